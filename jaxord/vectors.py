"""Geometry of embeddings, in float32 whatever comes in.

D embedding.
"""

from typing import Any

import jax
import jax.numpy as jnp

PIECE = 2**22  # numbers of the columns of `distances` at once: 16 MiB


def unit(x: jax.Array) -> jax.Array:
    """Rows of length one; a row of zeros stays one, with a finite gradient.

    Args:
      x: [..., D].

    Returns:
      f32[..., D].
    """
    x = jnp.asarray(x, jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def length(x: jax.Array) -> jax.Array:
    """Euclidean norm over the last axis; its gradient at 0 is 0, not nan.

    Args:
      x: [..., D].

    Returns:
      f32[...].
    """
    squared = jnp.sum(jnp.square(jnp.asarray(x, jnp.float32)), axis=-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def inner(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Inner products of all pairs, f32[M, D] and f32[N, D] -> f32[M, N].

    In full precision: TF32 would leave 3 digits, and temperatures multiply what is lost.
    """
    return jnp.matmul(rows, columns.T, precision="highest")


@jax.custom_vjp
# One kernel, also outside of jit: the differences [M, N, D] are summed as they arise, never stored
@jax.jit
def distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Euclidean distances of all pairs; of duplicates exactly 0, with gradient 0.

    From the differences, not from |a|^2 + |b|^2 - 2 ab: that form knows the distance of near neighbours only to
    3e-4 |a|. Its backward pass is one matrix product a side. Many columns pass in pieces of PIECE numbers, because XLA goes
    through all of them for each coordinate: ten times slower on a CPU whose cache they leave.

    Args:
      rows: f32[M, D].
      columns: f32[N, D].

    Returns:
      f32[M, N].
    """

    def to(some: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.square(rows[:, None] - some), axis=-1))

    size, width = columns.shape
    count = -(-size // max(PIECE // width, 1))
    if count == 1:
        return to(columns)
    each = -(-size // count)
    pieces = jnp.pad(columns, ((0, count * each - size), (0, 0))).reshape(count, each, width)
    return jnp.moveaxis(jax.lax.map(to, pieces), 0, 1).reshape(rows.shape[0], -1)[:, :size]


def _distances_forward(rows: jax.Array, columns: jax.Array) -> tuple[Any, Any]:
    distance = distances(rows, columns)
    return distance, (rows, columns, distance)


def _distances_backward(saved: Any, gradient: jax.Array) -> tuple[Any, ...]:
    rows, columns, distance = saved
    pull = jnp.where(distance > 0, gradient / jnp.where(distance > 0, distance, 1.0), 0.0)  # [M, N]
    centre = columns.mean(axis=0)  # near the origin less cancels in sum_j pull_ij (a_i - b_j)
    rows, columns = rows - centre, columns - centre
    to_rows = rows * pull.sum(axis=1)[:, None] - jnp.matmul(pull, columns, precision="highest")
    to_columns = columns * pull.sum(axis=0)[:, None] - jnp.matmul(pull.T, rows, precision="highest")
    return to_rows, to_columns


distances.defvjp(_distances_forward, _distances_backward)
