"""Sums over all pairs of a batch: block by block, or counted in sorted rows.

B batch, N columns.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

BLOCK = 2**20  # pairs at once; a batch of up to 1,024 is one block
_Arrays = tuple[Array, ...]
_Function = Callable[..., Array]


def mean_over_blocks(of_rows: _Function, rows: _Arrays, columns: _Arrays, block: int) -> Array:
    """Mean of of_rows(*rows, *columns), f32[], with at most `block` pairs in memory.

    The gradient of a block is taken together with its value: nothing is computed twice, and only
    one block is held. A block takes every n-th row, so that devices share every block evenly.

    Args:
      of_rows: function of parts [rows, ...] of `rows` and all of `columns` -> f32[rows], each entry
        from its own row. Closes over no array; finite for zeros, which fill the last block.
      rows: arrays [B, ...].
      columns: arrays of any shape, such as the B samples that each row is compared with.
      block: pairs (row, sample) at once; a block has at least one row.
    """
    size = rows[0].shape[0]
    count = -(-size // max(block // size, 1))
    if count == 1:
        return of_rows(*rows, *columns).mean()
    width = -(-size // count)

    def cut(x: Array) -> Array:  # [B, ...] -> [count, width, ...]
        padded = jnp.pad(x, [(0, count * width - size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.swapaxes(padded.reshape(width, count, *x.shape[1:]), 0, 1)

    def of_block(part: _Arrays, columns: _Arrays) -> Array:
        # Keeps the zeros that fill the last block out of the sum.
        real, *rows = part
        return jnp.where(real, of_rows(*rows, *columns), 0.0).sum()

    return _sum(of_block, tuple(map(cut, (jnp.ones(size, bool), *rows))), columns) / size


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(of_block: _Function, parts: _Arrays, columns: _Arrays) -> Array:
    return jax.lax.map(lambda part: of_block(part, columns), parts).sum()


def _sum_forward(of_block: _Function, parts: _Arrays, columns: _Arrays) -> tuple[Array, Any]:
    def add(total: Any, part: _Arrays) -> tuple[Any, Any]:
        value, slopes = jax.value_and_grad(of_block, (0, 1), allow_int=True)(part, columns)
        of_part, of_columns = _floats(slopes)
        return jax.tree.map(jnp.add, total, of_columns), (value, of_part)

    zero = _floats(jax.tree.map(jnp.zeros_like, columns))
    of_columns, (values, of_parts) = jax.lax.scan(add, zero, parts)
    return values.sum(), (of_parts, of_columns)


def _floats(tree: Any) -> Any:
    """The tree with None for integers and for their gradients, float0, which scan cannot carry."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else None, tree)


def _sum_backward(of_block: _Function, slopes: Any, gradient: Array) -> Any:
    return jax.tree.map(lambda x: gradient * x, slopes)


_sum.defvjp(_sum_forward, _sum_backward)


def ascending(x: Array) -> Array:
    """Rows f32[..., N] in ascending order; no gradient, no nan."""
    # XLA on a CPU sorts integers four times faster. Their order is that of the floats once the bits
    # of negative ones are flipped.
    bits = _flipped(jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.int32))
    return jax.lax.bitcast_convert_type(_flipped(jax.lax.sort(bits)), jnp.float32)


def _flipped(bits: Array) -> Array:
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def insertion_index(rows: Array, values: Array, side: str) -> Array:
    """jnp.searchsorted for each row: ascending f32[rows, N], f32[rows, B] -> i32[rows, B]."""
    return jax.vmap(functools.partial(jnp.searchsorted, side=side))(rows, values)
