"""Losses over all pairs of a batch, one block of anchors at a time.

B batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 2**20  # pairs at once; a batch of up to 1,024 is one block, and nothing is computed twice


def over_blocks(of_rows: Callable[..., Any], rows: tuple[jax.Array, ...], block: int) -> jax.Array:
    """of_rows(*rows) for arrays [B, ...] whose result has one entry a row, with no more than `block` pairs at once.

    The backward pass computes each block again, so it too holds the pairs of one block. A block takes every n-th row:
    where the batch is spread over devices, each of them then has its part of every block.

    Args:
      of_rows: function of arrays [rows, ...] -> f32[rows], each entry from its own row and all B samples; finite for
        rows of zeros, which fill the last block.
      rows: tuple of arrays [B, ...].
      block: pairs (row, sample) at once; at least one row is taken.

    Returns:
      f32[B].
    """
    size = rows[0].shape[0]
    count = -(-size // max(block // size, 1))
    if count == 1:
        return of_rows(*rows)
    width = -(-size // count)

    def cut(x: jax.Array) -> jax.Array:  # [B, ...] -> [count, width, ...]
        filled = jnp.pad(x, [(0, count * width - size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.swapaxes(filled.reshape(width, count, *x.shape[1:]), 0, 1)

    parts = jax.lax.map(jax.checkpoint(lambda part: of_rows(*part)), tuple(map(cut, rows)))  # [count, width]
    return parts.T.reshape(-1)[:size]
