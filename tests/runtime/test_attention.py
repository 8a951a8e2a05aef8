"""The implementation of attention is the one that was measured to be fastest; what does not run is
left out."""

import jax.numpy as jnp
import pytest

from jaxord.runtime import REPEATABLE, attention

SHAPE = (2, 5, 2, 8)


def test_a_cpu_has_one(monkeypatch):
    """cuDNN's does not run there, which `fastest` finds out by trying."""
    attention.fastest.cache_clear()
    name, seconds = attention.fastest(SHAPE, jnp.dtype("float32"), True, True)
    assert name == "xla" and seconds > 0
    monkeypatch.setattr(attention, "fastest", None)  # not measured where there is nothing to choose
    assert attention.choose("auto", SHAPE, jnp.float32, causal=False) == "xla"
    assert attention.choose("cudnn", SHAPE, jnp.float32, causal=False) == "cudnn"
    with pytest.raises(
        ValueError, match="model.attention is 'flash'; it takes 'auto' or one of 'xla', 'cudnn'"
    ):
        attention.choose("flash", SHAPE, jnp.float32, causal=False)


def test_the_fastest_by_the_median_of_rounds_in_turn(monkeypatch):
    times = {
        "xla": iter([9.0, 3.0, 3.0, 1.0, 1.0, 9.0]),
        "cudnn": iter([9.0, 2.0, 2.0, 2.0, 8.0, 8.0]),
    }  # the first compiles
    monkeypatch.setattr(attention, "_calls", lambda name, *given: lambda: next(times[name]))
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
    attention.fastest.cache_clear()
    assert attention.choose("auto", SHAPE, jnp.bfloat16, causal=True) == "cudnn"
    assert (
        attention.choose("auto", SHAPE, jnp.bfloat16, causal=True) == "cudnn"
    )  # measured once: the times are used up
    monkeypatch.setenv("XLA_FLAGS", REPEATABLE)
    assert attention.choose("auto", SHAPE, jnp.bfloat16, causal=True) == "xla"
    attention.fastest.cache_clear()


def test_where_none_runs_each_says_why():
    with pytest.raises(
        ValueError, match="(?s)no attention runs at .2, 5, 2, 8. in float32\n  cudnn: .*cuDNN"
    ):
        attention.fastest(SHAPE, jnp.dtype("float32"), False, True, implementations=("cudnn",))
