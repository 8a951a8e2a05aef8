"""Prompts: the word embeddings that the text tower reads for each rank.

A prompt maps word embeddings f32[K, T, C] and slots i32[K, T] (kinds of positions, see
`jaxord.models.tokens`) to word embeddings f32[K, T, C]; `base` f32[S, n, C] are the words of base
ranks. Its parameters `context`, `ranks` and `rank_former`, which parameter groups can freeze, start
from the words at their positions, or from N(0, 0.02^2).

Shapes: K ranks, T tokens, n tokens of the longest rank, C width, A width of the attention, S base
  ranks.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxord.models.norm import LayerNorm
from jaxord.models.tokens import CONTEXT, RANK

__all__ = ["FixedPrompt", "ContextPrompt", "ConceptPrompt", "RankPrompt", "RankFormer"]

DRAWN = nn.initializers.normal(0.02)


def take_slots(embeddings, slots, kind, count):
    """The first `count` vectors of each sentence at positions of one kind: f32[K, count, C]."""
    order = jnp.argsort(slots != kind, axis=1, stable=True)[:, :count]
    return jnp.take_along_axis(embeddings, order[..., None], axis=1)


def fill_slots(embeddings, slots, kind, vectors):
    """Writes vectors f32[K or 1, n, C], in order, over the positions of one kind."""
    here = slots == kind
    order = jnp.clip(jnp.cumsum(here, axis=1) - 1, 0)  # [K, T]
    vectors = jnp.broadcast_to(vectors, (len(embeddings), *vectors.shape[1:]))
    spread = jnp.take_along_axis(vectors, order[..., None], axis=1)
    return jnp.where(here[..., None], spread, embeddings)


def interpolation_weights(ranks, base_ranks, interpolation):
    """Shares of the base ranks in each rank, f32[K, S] (OrdinalCLIP, Li 2022).

    Base ranks sit at linspace(0, K-1, S), a single one in the middle. With the distance d the raw
    weights are `linear` 1 - d / (K-1), `inv_prop` 1 / (d + 1e-5), `normal` exp(-d^2); rows are
    divided by their sums. Trap: at a base rank `linear` leaves the other base ranks a share.
    """
    middle = jnp.array([(ranks - 1) / 2])
    base = jnp.linspace(0.0, ranks - 1.0, base_ranks) if base_ranks > 1 else middle
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
    """The sentences as they are: zero-shot CLIP. Base of the other prompts."""

    context_tokens: int  # positions of either kind; a shorter name uses the first of its vectors
    rank_tokens: int
    drawn_context: bool  # start from N(0, 0.02^2) and not from the words
    drawn_ranks: bool

    def __call__(self, embeddings, slots, base=None):
        return embeddings


class ContextPrompt(FixedPrompt):
    """Learned context vectors shared by all ranks, fixed rank names (CoOp, Zhou 2022)."""

    def write_context(self, embeddings, slots):
        """Writes `context` f32[context_tokens, C] into every sentence."""

        def words(key, shape):
            return take_slots(embeddings, slots, CONTEXT, self.context_tokens)[0]

        shape = (self.context_tokens, embeddings.shape[-1])
        context = self.param("context", DRAWN if self.drawn_context else words, shape)
        return fill_slots(embeddings, slots, CONTEXT, context[None])

    @nn.compact
    def __call__(self, embeddings, slots, base=None):
        return self.write_context(embeddings, slots)


class ConceptPrompt(ContextPrompt):
    """Learned context and ranks f32[K, n, C] (NumCLIP 2024; CoOp in OrdinalCLIP's tables)."""

    @nn.compact
    def __call__(self, embeddings, slots, base=None):
        def words(key, shape):
            return take_slots(embeddings, slots, RANK, self.rank_tokens)

        shape = (embeddings.shape[0], self.rank_tokens, embeddings.shape[-1])
        vectors = self.param("ranks", DRAWN if self.drawn_ranks else words, shape)
        return fill_slots(self.write_context(embeddings, slots), slots, RANK, vectors)


class RankPrompt(ContextPrompt):
    """Learned context; each rank a mixture of base ranks f32[S, n, C] (OrdinalCLIP, Li 2022).

    Also L2RCLIP-I. Base ranks start from the words of prompt.base_names, or from N(0, 0.02^2).
    """

    base_ranks: int = 3
    interpolation: str = "linear"  # see interpolation_weights

    @nn.compact
    def __call__(self, embeddings, slots, base=None):
        shape = (self.base_ranks, self.rank_tokens, embeddings.shape[-1])
        if base is not None and base.shape != shape:
            raise ValueError(
                f"prompt.base_names gives {base.shape[0]} base ranks of {base.shape[1]} tokens; "
                f"expected base_ranks = {self.base_ranks} of {self.rank_tokens}, so set "
                "prompt.settings.base_ranks to the number of names"
            )
        vectors = self.param("ranks", DRAWN if base is None else lambda key, shape: base, shape)
        weights = interpolation_weights(len(embeddings), self.base_ranks, self.interpolation)
        vectors = jnp.einsum("ks,snc->knc", weights, vectors)
        return fill_slots(self.write_context(embeddings, slots), slots, RANK, vectors)


class RankFormer(ContextPrompt):
    """Learned context; rank names changed by attention among all ranks (L2RCLIP, Wang 2023).

    R' = (1 - alpha) R + alpha f_out(f_sa(f_in(R))), R the fixed word embeddings of the rank names.

    f_in: C -> A and f_out: A -> C are linear; f_sa is x <- x + attention(norm(x)) over the K ranks
    at each position of a name, so rare ranks learn from all. A shorter name takes no part at the
    positions it lacks. f_out starts at 0, so R' starts as (1 - alpha) R. The paper leaves alpha,
    the widths, the axis, the heads and the start of f_out open: they are our choice. Its "global
    context" is prompt.context_tokens vectors before the template, whose words do not change.
    """

    alpha: float = 0.5  # share of the learned part
    width: int = 512  # A; 0 is the width of the text tower
    heads: int = 8
    layers: int = 1

    @nn.compact
    def __call__(self, embeddings, slots, base=None):
        if self.drawn_ranks:
            raise ValueError(
                "RankFormer changes the words of the names, and prompt.rank_tokens has none; "
                "expected 0"
            )
        words = take_slots(embeddings, slots, RANK, self.rank_tokens)  # [K, n, C]
        valid = jnp.sum(slots == RANK, axis=1)[:, None] > jnp.arange(self.rank_tokens)  # [K, n]
        width = self.width or embeddings.shape[-1]
        former = _AcrossRanks(width, self.heads, self.layers, name="rank_former")
        changed = former(words.swapaxes(0, 1), valid.T).swapaxes(0, 1)
        vectors = (1 - self.alpha) * words + self.alpha * changed
        return fill_slots(self.write_context(embeddings, slots), slots, RANK, vectors)


class _AcrossRanks(nn.Module):
    """f_out(f_sa(f_in(x))) of RankFormer: x [n, K, C], valid bool[n, K] -> [n, K, C]."""

    width: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, x, valid):
        if self.width % self.heads:
            raise ValueError(
                f"RankFormer's width is {self.width}; expected a multiple of its {self.heads} heads"
            )
        inside = nn.Dense(self.width, name="input")(x)  # [n, K, A]
        for i in range(self.layers):
            norm = LayerNorm(1e-5, jnp.float32, name=f"{i}_norm")
            attention = nn.MultiHeadDotProductAttention(self.heads, name=f"{i}_attention")
            inside = inside + attention(norm(inside), mask=valid[:, None, None, :])
        return nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="output")(inside)
