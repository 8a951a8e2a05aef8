"""Losses over all pairs of a batch, one block of anchors at a time.

B batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 2**20  # pairs at once; a batch of up to 1,024 is one block
_Arrays = tuple[jax.Array, ...]


def mean_over_blocks(
    of_rows: Callable[..., jax.Array], rows: _Arrays, every: _Arrays, block: int
) -> jax.Array:
    """Mean of of_rows(*rows, *every) for arrays [B, ...], with no more than `block` pairs at once.

    Where a gradient is wanted, that of a block is taken with its value, so that nothing is computed
    twice and the pairs of one block are held. A block takes every n-th row: where the batch is
    spread over devices, each of them then has its part of every block.

    Args:
      of_rows: function of parts [rows, ...] of the arrays in `rows` and of all of `every` ->
        f32[rows], each entry from its own row; finite for rows of zeros, which fill the last block.
        It closes over no array.
      rows: arrays [B, ...].
      every: arrays of any shape, such as the B samples that a row is compared with.
      block: pairs (row, sample) at once; at least one row is taken.

    Returns:
      f32[].
    """
    size = rows[0].shape[0]
    count = -(-size // max(block // size, 1))
    if count == 1:
        return of_rows(*rows, *every).mean()
    width = -(-size // count)

    def cut(x: jax.Array) -> jax.Array:  # [B, ...] -> [count, width, ...]
        filled = jnp.pad(x, [(0, count * width - size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.swapaxes(filled.reshape(width, count, *x.shape[1:]), 0, 1)

    def of_block(part: _Arrays, every: _Arrays) -> jax.Array:
        there, *own = part
        return jnp.where(there, of_rows(*own, *every), 0.0).sum()

    return _sum(of_block, tuple(map(cut, (jnp.ones(size, bool), *rows))), every) / size


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(of_block: Callable[..., jax.Array], parts: _Arrays, every: _Arrays) -> jax.Array:
    return jax.lax.map(lambda part: of_block(part, every), parts).sum()


def _sum_forward(
    of_block: Callable[..., jax.Array], parts: _Arrays, every: _Arrays
) -> tuple[jax.Array, Any]:
    def add(slopes: Any, part: _Arrays) -> tuple[Any, Any]:
        value, found = jax.value_and_grad(of_block, (0, 1), allow_int=True)(part, every)
        of_part, of_every = jax.tree.map(
            lambda x: None if x.dtype == jax.dtypes.float0 else x, found
        )
        return jax.tree.map(jnp.add, slopes, of_every), (value, of_part)

    none = tuple(
        jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else None for x in every
    )
    slopes, (values, of_parts) = jax.lax.scan(add, none, parts)
    return values.sum(), (of_parts, slopes)


def _sum_backward(of_block: Callable[..., jax.Array], slopes: Any, gradient: jax.Array) -> Any:
    return jax.tree.map(lambda x: gradient * x, slopes)


_sum.defvjp(_sum_forward, _sum_backward)
