"""Prompts: what the text tower reads for each rank.

A prompt maps word embeddings f32[K, T, C] and slots i32[K, T] (jaxord.ranks) to word embeddings f32[K, T, C]. Its
parameters are called `context` and `ranks`, so that a table of parameter groups freezes either. Parameters start from
the words that stand at their positions, or are drawn from N(0, 0.02^2).

Shapes: K ranks, T tokens, C width, S base ranks.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxord.ranks import CONTEXT, RANK

DRAWN = nn.initializers.normal(0.02)


def pick(embeddings, slots, kind, count):
    """The first `count` vectors of each sentence at positions of one kind: f32[K, count, C]."""
    order = jnp.argsort(slots != kind, axis=1, stable=True)[:, :count]
    return jnp.take_along_axis(embeddings, order[..., None], axis=1)


def place(embeddings, slots, kind, vectors):
    """Writes vectors f32[K or 1, n, C], in order, over the positions of one kind."""
    here = slots == kind
    order = jnp.clip(jnp.cumsum(here, axis=1) - 1, 0)  # [K, T]
    vectors = jnp.broadcast_to(vectors, (len(embeddings), *vectors.shape[1:]))
    return jnp.where(here[..., None], jnp.take_along_axis(vectors, order[..., None], axis=1), embeddings)


def interpolation_weights(ranks, base_ranks, interpolation):
    """How much of each base rank a rank is made of (OrdinalCLIP, Li 2022).

    Base ranks sit at linspace(0, K-1, S) (one base rank: in the middle). With the distance d the raw weights are
    `linear` 1 - d / (K-1), `inv_prop` 1 / (d + 1e-5), `normal` exp(-d^2); rows are divided by their sums. `linear` is
    not piecewise-linear interpolation: at a base rank the other base ranks keep a share.

    Returns:
      f32[K, S].
    """
    base = jnp.linspace(0.0, ranks - 1.0, base_ranks) if base_ranks > 1 else jnp.array([(ranks - 1) / 2])
    distance = jnp.abs(jnp.arange(ranks)[:, None] - base)  # [K, S]
    forms = {
        "linear": lambda d: 1 - d / (ranks - 1),
        "inv_prop": lambda d: 1 / (d + 1e-5),
        "normal": lambda d: jnp.exp(-jnp.square(d)),
    }
    if interpolation not in forms:
        raise ValueError(f"interpolation is {interpolation!r}; it takes one of {sorted(forms)}")
    raw = forms[interpolation](distance)
    return raw / raw.sum(1, keepdims=True)


class FixedPrompt(nn.Module):
    """The sentences as they are: zero-shot CLIP. Base of the other prompts.

    Attributes:
      context_tokens, rank_tokens: numbers of positions of either kind; a shorter name uses the first of its vectors.
      drawn_context, drawn_ranks: start from N(0, 0.02^2) and not from the words.
    """

    context_tokens: int
    rank_tokens: int
    drawn_context: bool
    drawn_ranks: bool

    def __call__(self, embeddings, slots):
        return embeddings


class ContextPrompt(FixedPrompt):
    """Learned context vectors shared by all ranks, fixed rank names (CoOp, Zhou 2022)."""

    def write_context(self, embeddings, slots):
        def words(key, shape):
            return pick(embeddings, slots, CONTEXT, self.context_tokens)[0]

        shape = (self.context_tokens, embeddings.shape[-1])
        context = self.param("context", DRAWN if self.drawn_context else words, shape)
        return place(embeddings, slots, CONTEXT, context[None])

    @nn.compact
    def __call__(self, embeddings, slots):
        return self.write_context(embeddings, slots)


class ConceptPrompt(ContextPrompt):
    """Learned context, and learned vectors for each rank (NumCLIP 2024; the CoOp rows of OrdinalCLIP's tables)."""

    @nn.compact
    def __call__(self, embeddings, slots):
        def words(key, shape):
            return pick(embeddings, slots, RANK, self.rank_tokens)

        shape = (embeddings.shape[0], self.rank_tokens, embeddings.shape[-1])
        vectors = self.param("ranks", DRAWN if self.drawn_ranks else words, shape)
        return place(self.write_context(embeddings, slots), slots, RANK, vectors)


class RankPrompt(ContextPrompt):
    """Learned context; each rank a fixed mixture of a few learned base ranks (OrdinalCLIP, Li 2022).

    Attributes:
      base_ranks: number S of base ranks, always drawn from N(0, 0.02^2).
      interpolation: "linear", "inv_prop" or "normal", see `interpolation_weights`.
    """

    base_ranks: int = 3
    interpolation: str = "linear"

    @nn.compact
    def __call__(self, embeddings, slots):
        base = self.param("ranks", DRAWN, (self.base_ranks, self.rank_tokens, embeddings.shape[-1]))
        weights = interpolation_weights(len(embeddings), self.base_ranks, self.interpolation)
        vectors = jnp.einsum("ks,snc->knc", weights, base)
        return place(self.write_context(embeddings, slots), slots, RANK, vectors)
