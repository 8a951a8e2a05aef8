"""Places of numbers among the sorted numbers of a row, which is how pairs are counted without
forming them."""

import functools

import jax
import jax.numpy as jnp


def ascending(x: jax.Array) -> jax.Array:
    """Rows f32[..., N] in ascending order; no gradient, no nan.

    Sorted as whole numbers, whose order is that of the floats once negative ones are turned round:
    on a CPU XLA sorts these four times faster.
    """
    bits = jax.lax.sort(_turned(jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.int32)))
    return jax.lax.bitcast_convert_type(_turned(bits), jnp.float32)


def _turned(bits: jax.Array) -> jax.Array:
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def place(rows: jax.Array, values: jax.Array, side: str) -> jax.Array:
    """Where values f32[rows, B] would be inserted into ascending rows f32[rows, N] of the same
    number: i32[rows, B].

    `side` is "left", before equal ones, or "right", behind them.
    """
    return jax.vmap(functools.partial(jnp.searchsorted, side=side))(rows, values)
