"""Chooses the fastest implementation of attention by timing each at the shapes of a run.

Shapes: N sequences, T tokens, H heads, D width of a head.
"""

import functools
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxord.runtime import REPEATABLE, hosts

IMPLEMENTATIONS = ("xla", "cudnn")  # of jax.nn.dot_product_attention
CALLS, ROUNDS = 10, 5


def choose(setting, shape, dtype, causal, gradient=True):
    """The implementation that a run takes, the same on all processes.

    Args:
      setting: config.model.attention: one of IMPLEMENTATIONS, or "auto": the fastest on an
        accelerator, but "xla" on a CPU, which has no other, and under --deterministic.
      shape, dtype: (N, T, H, D) of one device.
      causal: whether a token sees only those before it.
      gradient: whether to time the backward pass too, for a training.
    """
    if setting not in (*IMPLEMENTATIONS, "auto"):
        choices = ", ".join(map(repr, IMPLEMENTATIONS))
        raise ValueError(f"model.attention is {setting!r}; it takes 'auto' or one of {choices}")
    if setting != "auto":
        return setting
    if jax.default_backend() == "cpu" or REPEATABLE in os.environ.get("XLA_FLAGS", ""):
        return "xla"
    return hosts.first(lambda: fastest(tuple(shape), jnp.dtype(dtype), causal, gradient)[0])()


@functools.cache
def fastest(shape, dtype, causal, gradient, implementations=IMPLEMENTATIONS):
    """(name, seconds of a call) of the fastest that runs here; ValueError says why none does."""
    runs, errors = {}, []
    for name in implementations:
        try:
            run = _calls(name, shape, dtype, causal, gradient)
            run()  # compiles
            runs[name] = run
        except (ValueError, RuntimeError) as error:  # XLA's too: not supported, or out of memory
            errors.append(f"{name}: {str(error).splitlines()[0][:200]}")
    if not runs:
        raise ValueError(f"no attention runs at {shape} in {dtype}\n  " + "\n  ".join(errors))
    # Rounds alternate between the implementations, so that a busy moment slows all of them.
    rounds = ROUNDS if len(runs) > 1 else 1
    times = [{name: run() for name, run in runs.items()} for _ in range(rounds)]
    medians = {name: statistics.median(t[name] for t in times) / CALLS for name in runs}
    best = min(medians, key=medians.get)
    return best, medians[best]


def _calls(name, shape, dtype, causal, gradient):
    """A function that makes CALLS calls and returns their seconds."""

    def attend(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=name)

    def total(*arrays):
        return attend(*arrays).astype(jnp.float32).sum()

    function = jax.jit(jax.grad(total, (0, 1, 2)) if gradient else attend)
    draw = np.random.default_rng(0)
    arrays = [jnp.asarray(draw.normal(size=shape), dtype) for _ in range(3)]

    def run():
        began = time.perf_counter()
        for _ in range(CALLS):
            result = function(*arrays)
        jax.block_until_ready(result)
        return time.perf_counter() - began

    return run
