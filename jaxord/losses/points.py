"""Losses between embeddings and learned reference points.

B batch, R reference points, D embedding.
"""

import jax
import jax.numpy as jnp

from jaxord.losses.rank import choose
from jaxord.vectors import length, unit


def center(
    image_embeds: jax.Array,
    reference_points: jax.Array,
    reference: jax.Array,
    *,
    reduction: str = "mean",
) -> jax.Array:
    """Distance of each embedding to its reference point (ConOrd Eq 8).

    mean over i of |z_i - mu_(reference_i)|_2,  z_i = image_embeds_i / |image_embeds_i|

    The norm, not its square. The points are taken as they are: the equation does not put them on
    the sphere. Eq 8 is a sum over the batch, which beside `conord` as printed would be about 1,000
    times the stronger term; the mean is the companion of `conord` without its factor 1/|A|.

    Args:
      image_embeds: [B, D].
      reference_points: [R, D].
      reference: i32[B], or f32[B] where labels lie between the points: a fraction interpolates the
        two neighbours.
      reduction: "mean" or "sum".

    Returns:
      f32[].

    Raises:
      ValueError: unknown reduction.
    """
    points = jnp.asarray(reference_points, jnp.float32)
    if jnp.issubdtype(reference.dtype, jnp.floating):
        low = jnp.clip(jnp.floor(reference), 0, max(len(points) - 2, 0)).astype(jnp.int32)
        share = (reference - low)[:, None]
        own = (1 - share) * points[low] + share * points[
            jnp.minimum(low + 1, len(points) - 1)
        ]  # [B, D]
    else:
        own = points[reference]
    reduce = choose("reduction", reduction, {"mean": jnp.mean, "sum": jnp.sum})
    return reduce(length(unit(image_embeds) - own))
