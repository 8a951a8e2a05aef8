"""Geometry of embeddings, in float32 for any input. Shapes: M rows, N columns, D embedding."""

from typing import Any

import jax
import jax.numpy as jnp

# `distances` takes columns of this many numbers, 16 MiB, at once: for each coordinate XLA goes
# through all of them, which is ten times slower on a CPU whose cache they exceed.
PIECE = 2**22


def unit(x: jax.Array) -> jax.Array:
    """f32[..., D]: rows of length one; a row of zeros stays zero, with a finite gradient."""
    x = jnp.asarray(x, jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def length(x: jax.Array) -> jax.Array:
    """f32[...]: Euclidean norm over the last axis; its gradient at 0 is 0, not nan."""
    squared = jnp.sum(jnp.square(jnp.asarray(x, jnp.float32)), axis=-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def inner(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Inner products of all pairs, f32[M, D] and f32[N, D] -> f32[M, N].

    In full precision: TF32 keeps 3 digits, and temperatures multiply the loss.
    """
    return jnp.matmul(rows, columns.T, precision="highest")


@jax.custom_vjp
# jit makes one kernel outside of jit too: it sums the differences [M, N, D] and never stores them.
@jax.jit
def distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Euclidean distances of all pairs; exactly 0 between duplicates, with gradient 0.

    Sums squared differences, because |a|^2 + |b|^2 - 2 ab knows the distance of near neighbours
    only to 3e-4 |a|. The backward pass is one matrix product a side. f32[M, D] and f32[N, D] ->
    f32[M, N].
    """

    def distance_to(some: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.square(rows[:, None] - some), axis=-1))

    size, width = columns.shape
    count = -(-size // max(PIECE // width, 1))
    if count == 1:
        return distance_to(columns)
    each = -(-size // count)
    pieces = jnp.pad(columns, ((0, count * each - size), (0, 0))).reshape(count, each, width)
    parts = jnp.moveaxis(jax.lax.map(distance_to, pieces), 0, 1)  # [M, count, each]
    return parts.reshape(rows.shape[0], -1)[:, :size]


def _distances_forward(rows: jax.Array, columns: jax.Array) -> tuple[Any, Any]:
    distance = distances(rows, columns)
    return distance, (rows, columns, distance)


def _distances_backward(saved: Any, gradient: jax.Array) -> tuple[Any, ...]:
    rows, columns, distance = saved
    pull = jnp.where(distance > 0, gradient / jnp.where(distance > 0, distance, 1.0), 0.0)  # [M, N]
    # sum_j pull_ij (a_i - b_j) cancels less when the vectors lie near the origin.
    centre = columns.mean(axis=0)
    rows, columns = rows - centre, columns - centre
    to_rows = rows * pull.sum(axis=1)[:, None] - jnp.matmul(pull, columns, precision="highest")
    to_columns = columns * pull.sum(axis=0)[:, None] - jnp.matmul(pull.T, rows, precision="highest")
    return to_rows, to_columns


distances.defvjp(_distances_forward, _distances_backward)
