"""Which implementation of attention is fastest here: measured at the shapes of a run, not believed.

Shapes: N sequences, T tokens, H heads, D width of a head.
"""

import functools
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxord.runtime import REPEATABLE, devices

IMPLEMENTATIONS = ("xla", "cudnn")  # of jax.nn.dot_product_attention
CALLS, ROUNDS = 10, 5


def choose(wanted, shape, dtype, causal, gradient=True):
    """The implementation that a run takes.

    Args:
      wanted: config.model.attention: one of IMPLEMENTATIONS, or "auto": the fastest of them on an
        accelerator, "xla" on a CPU, which has no other, and where the same command is to give the
        same bytes.
      shape: (N, T, H, D) of one device.
      dtype: of queries, keys and values.
      causal: whether a token sees only those before it.
      gradient: whether a training takes it.

    Returns:
      One of IMPLEMENTATIONS, the same on all processes.

    Raises:
      ValueError: an unknown one.
    """
    if wanted not in (*IMPLEMENTATIONS, "auto"):
        raise ValueError(
            f"model.attention is {wanted!r}; it takes 'auto' or one of {', '.join(map(repr, IMPLEMENTATIONS))}"
        )
    if wanted != "auto":
        return wanted
    if jax.default_backend() == "cpu" or REPEATABLE in os.environ.get("XLA_FLAGS", ""):
        return "xla"
    return devices.first(lambda: fastest(tuple(shape), jnp.dtype(dtype), causal, gradient)[0])()


@functools.cache
def fastest(shape, dtype, causal, gradient, implementations=IMPLEMENTATIONS):
    """(name, seconds of a call) of the fastest, by the median of a few rounds in turn; arguments as
    of `choose`.

    What does not run on this device or at these shapes is left out.

    Raises:
      ValueError: none runs.
    """
    runs, mistakes = {}, []
    for name in implementations:
        try:
            runs[name] = _calls(name, shape, dtype, causal, gradient)
            runs[name]()  # compiles
        except (
            ValueError,
            RuntimeError,
        ) as error:  # of XLA too: what it does not know, or has no memory for
            runs.pop(name, None)
            mistakes.append(f"{name}: {str(error).splitlines()[0][:200]}")
    if not runs:
        raise ValueError(f"no attention runs at {shape} in {dtype}\n  " + "\n  ".join(mistakes))
    times = {name: [] for name in runs}
    for _ in range(ROUNDS if len(runs) > 1 else 1):
        for name, run in runs.items():
            times[name].append(run())
    medians = {name: statistics.median(seconds) / CALLS for name, seconds in times.items()}
    best = min(medians, key=medians.get)
    return best, medians[best]


def _calls(name, shape, dtype, causal, gradient):
    """A function that makes CALLS calls and gives their seconds."""

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
            found = function(*arrays)
        jax.block_until_ready(found)
        return time.perf_counter() - began

    return run
