"""The contrastive losses as their equations stand, with all pairs or triples in memory.

Shapes: B batch, K ranks, D embedding.
"""

import jax
import jax.numpy as jnp

from jaxord import vectors


def supcon(image_embeds, rank):
    z = vectors.unit(image_embeds)
    others = _others(rank)
    scores = z @ z.T / 0.07  # [B, B]
    shares = scores - jnp.log((others * jnp.exp(scores)).sum(1, keepdims=True))
    positives = others * (rank[:, None] == rank)
    return -((positives * shares).sum(1) / jnp.maximum(positives.sum(1), 1)).mean()


def rnc(image_embeds, target):
    scores = -vectors.distances(image_embeds, image_embeds) / 2  # [B, B]
    gap = jnp.abs(target[:, None] - target)
    others = _others(target)
    # [B, B, B]: anchor, partner, candidate
    farther = others[:, None] * (gap[:, None] >= gap[:, :, None])
    shares = scores - jnp.log((farther * jnp.exp(scores)[:, None]).sum(2))
    return -(others * shares).sum() / others.sum()


def group_contrastive(image_embeds, group):
    return rnc(image_embeds, group.astype(jnp.float32))


def conord(image_embeds, target):
    similarities, gap = _geometry(image_embeds, target)
    attracting = (1 / (gap**2 + 1e-7) * similarities).sum(1)
    repelling = (gap**2 * similarities).sum(1)
    return -jnp.log(attracting / repelling).mean()


def expected_error(image_embeds, target):
    similarities, gap = _geometry(image_embeds, target)
    return jnp.log((gap * similarities).sum(1) / similarities.sum(1)).mean()


def center(image_embeds, reference_points, reference):
    return jnp.linalg.norm(vectors.unit(image_embeds) - reference_points[reference], axis=1).mean()


def info_nce(logits, rank):
    return _both_ways(logits, rank, jnp.ones((rank.size, rank.size)))


def fcrc(logits, rank):
    gap = jnp.abs(rank[:, None] - rank).astype(jnp.float32)
    return _both_ways(logits, rank, gap * (rank.size - 1) / gap.sum(1, keepdims=True))


def asymmetric_contrastive(logits, rank):
    scores = logits[:, rank]  # [B, B]
    same = (rank[:, None] == rank).astype(jnp.float32)

    def one_way(scores):
        return -((same * jax.nn.log_softmax(scores)).sum(1) / same.sum(1)).mean()

    return one_way(scores) + one_way(scores.T)


def ordinal_pairwise(image_embeds, text_embeds, rank, rank_values):
    images = vectors.unit(image_embeds)
    texts = vectors.unit(text_embeds)[rank]
    values = rank_values[rank]
    span = rank_values.max() - rank_values.min()
    weights = _others(rank) * jnp.abs(values[:, None] - values) / span
    pairs = (weights * ((images + 0.5 * texts) @ texts.T)).sum()
    return pairs / float(rank.size * (rank.size - 1)) - (images * texts).sum(1).mean()


def cloc(image_embeds, rank, margins):
    z = vectors.unit(image_embeds)
    position = jnp.pad(jnp.cumsum(margins), (1, 0))[rank]
    near = z @ z.T
    far = near + jnp.abs(position[:, None] - position)
    same = rank[:, None] == rank
    positives = same & ~jnp.eye(rank.size, dtype=bool)
    # [B, B, B]: anchor, positive, negative
    triples = jax.nn.relu(far[:, None] - near[:, :, None])
    total = (triples * positives[:, :, None] * ~same[:, None]).sum((1, 2))
    p, q = positives.sum(1), (~same).sum(1)
    return (total / jnp.maximum(p * q * q, 1)).mean()


def _others(rank):
    """f32[B, B]: 0 on the diagonal, else 1."""
    return 1.0 - jnp.eye(rank.size)


def _geometry(image_embeds, target):
    """(similarities of the other samples, gaps of the targets), both f32[B, B]."""
    z = vectors.unit(image_embeds)
    similarities = _others(target) * jnp.exp((2 * z @ z.T - 2) / 0.07)
    return similarities, jnp.abs(target[:, None] - target)


def _both_ways(logits, rank, weights):
    """The weighted contrastive loss from images to texts plus that from texts to images."""
    scores = jnp.exp(logits[:, rank])  # [B, B]
    candidates = jnp.where(jnp.eye(rank.size) > 0, 1.0, weights)
    return sum(-jnp.log(s.diagonal() / (candidates * s).sum(1)).mean() for s in (scores, scores.T))
