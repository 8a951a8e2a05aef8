"""Contrastive losses between images and the texts of ranks.

B batch, K ranks, D embedding. The text of a sample is the text of its rank, so the B x B pairs of a
batch are its logits [B, K], each as often as the batch has the rank. No array has B x B entries.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxord import vectors
from jaxord.losses.classification import cross_entropy
from jaxord.losses.log_space import log_mass, log_share, negative_log_share, own_scores
from jaxord.losses.settings import choose


def text_image_kl(logits: Array, rank: Array, *, sharpness: float = 10.0) -> Array:
    """KL divergence from the images of each rank to the images that its text picks.

        mean over the ranks c present of KL(q_c || softmax_j(logits_jc))
        q_c = softmax_j(sharpness * 1[rank_j = c])

    OrdinalCLIP's second term (xk-huang/OrdinalCLIP, runner.py:142-158). The target leaves some mass
    on the other images, so the minimum 0 is reached at finite logits.
    """
    by_text = jnp.asarray(logits, jnp.float32).T  # [K, B]
    carries = rank == jnp.arange(by_text.shape[0])[:, None]  # [K, B]
    target = jax.nn.log_softmax(sharpness * carries.astype(jnp.float32), axis=1)
    terms = jnp.exp(target) * (target - jax.nn.log_softmax(by_text, axis=1))
    present = carries.any(axis=1)  # [K]
    return jnp.where(present, terms.sum(axis=1), 0.0).sum() / present.sum()


def info_nce(logits: Array, rank: Array, *, direction: str = "both") -> Array:
    """CLIP's contrastive loss over the pairs (image i, text of rank i) of the batch.

        i2t: mean over i of -log[ e^s_ii / sum_j e^s_ij ],  s_ij = logits[i, rank_j]
        t2i: the same of the transpose

    The pair form of `fcrc` with all weights 1. A sample of the same rank is a negative with the
    image's own text, so the minimum of image i is log(number of samples of its rank).
    """
    logits = jnp.asarray(logits, jnp.float32)
    own = own_scores(logits, rank)  # [B]
    carries = jax.nn.one_hot(rank, logits.shape[1])  # [B, K]
    i2t = negative_log_share(own, logits, carries.sum(axis=0) - carries).mean()

    # The images of a rank have one sum; where the rank has one image, the first term is exactly 0.
    top, rest, _ = log_mass(logits.T, carries.T)  # [K], the images of the text's rank
    other_top, other_rest, present = log_mass(logits.T, 1.0 - carries.T)  # [K], all others
    against = log_share(top, other_top, other_rest - rest, present)
    return _directed(direction, i2t, ((top[rank] - own) + rest[rank] + against[rank]).mean())


def asymmetric_contrastive(logits: Array, rank: Array, *, direction: str = "both") -> Array:
    """L2RCLIP's asymmetrical contrastive loss (Eq 7): samples of a rank are positives.

        C_i = {z : rank_z = rank_i},  s_ij = logits[i, rank_j]
        i2t: mean over i, over z in C_i of -log[ e^s_iz / sum_b e^s_ib ]
        t2i: mean over i, over z in C_i of -log[ e^s_zi / sum_b e^s_bi ]

    With one text a rank this is `info_nce` with the same arguments: s_iz is the same for all z in
    C_i, and text to image the anchors of a rank share one mean over its images. The paper weighs
    both directions alike (0.03 or 0.1).
    """
    return info_nce(logits, rank, direction=direction)


def ordinal_pairwise(
    image_embeds: Array,
    text_embeds: Array,
    rank: Array,
    rank_values: Array,
    *,
    strength: float = 0.5,
    form: str = "inner",
    weight_scale: str = "span",
) -> Array:
    """L2RCLIP's cross-modal ordinal pairwise loss (COP): near the own text, far from distant ranks.

        form "inner" (Eq 6): mean over pairs i != j of w_ij (v_i + strength r_yi) . r_yj
          - mean over i of v_i . r_yi
        form "euclid", strength > 0: mean over i of |v_i - r_yi|^2 / 2
          - mean over pairs i < j of w_ij (|v_i - r_yj| + strength |r_yi - r_yj|)
        form "euclid", strength 0: mean over i of |v_i - r_yi|^2
          - mean over i and all K texts c of w_ic |v_i - r_c|

    v_i unit image features, r_c unit text features, y_i = rank_i, w_ic the scaled gap between the
    values of ranks y_i and c. "inner" with strength 0 is the paper's SCOP for frozen texts.
    "euclid" is the authors' two programs (raywang335/L2RCLIP, loss/ordinal_ce_stage1.py and
    loss/ordinal_ce.py), which add 1e-6 to the gap of equal ranks. The paper does not print the
    strength; 0.5 is the program's ratio. A batch of one has no pairs, only the term of v_i and its
    own text. Trap: the stage-1 program pairs image i with the texts of later samples, so that form
    depends on the order of the batch.

    Args:
      strength: 0 or above, of the repulsion between texts.
      form: "inner" or "euclid".
      weight_scale: "span" divides gaps by the span of all rank values, so that a loss weight means
        the same on 62 and 5 ranks; "raw" keeps them; "pairs" is the programs' (gap - smallest) /
        largest over the pairs.
    """
    images = vectors.unit(image_embeds)
    texts = vectors.unit(text_embeds)
    values = jnp.asarray(rank_values, jnp.float32)
    own = texts[rank]  # [B, D]
    carries = jax.nn.one_hot(rank, values.size)  # [B, K]
    gap = jnp.abs(values[rank][:, None] - values)  # [B, K]

    def mean_of(terms: Array, times: Array) -> Array:
        """Mean of w * terms [B, K]; pair (sample i, text c) counts times[i, c] times."""
        # jit drops the bounds that the setting does not use.
        used = times > 0
        smallest = jnp.where(used.any(), jnp.min(jnp.where(used, gap, jnp.inf)), 0.0)
        largest = jnp.max(jnp.where(used, gap, 0.0))
        span = values.max() - values.min()
        bounds = {"span": (0.0, span), "raw": (0.0, 1.0), "pairs": (smallest, largest)}
        low, high = choose("weight_scale", weight_scale, bounds)
        weight = times * ((gap - low) / _above_zero(high))
        return (weight * terms).sum() / jnp.maximum(times.sum(), 1.0)

    if choose("form", form, {"inner": True, "euclid": False}):
        similarity = vectors.inner(images + strength * own, texts)  # [B, K]
        tightness = (images * own).sum(axis=1).mean()
        return mean_of(similarity, carries.sum(axis=0) - carries) - tightness
    tightness = jnp.square(images - own).sum(axis=1).mean()
    apart = vectors.distances(images, texts)  # [B, K]
    if not strength:
        return tightness - mean_of(apart, jnp.ones_like(gap))
    later = jnp.cumsum(carries[::-1], axis=0)[::-1] - carries  # [B, K], samples behind i
    between_texts = strength * vectors.distances(texts, texts)[rank]
    return tightness / 2 - mean_of(apart + between_texts, later)


def fcrc(
    logits: Array,
    rank: Array,
    *,
    form: str = "pair",
    distance: str = "absolute",
    direction: str = "both",
) -> Array:
    """Fine-grained cross-modal ranking-based contrastive loss: far ranks are stronger negatives.

        form "pair": the B pairs of the batch, s_ij = logits[i, rank_j]
          i2t: mean over i of -log[ e^s_ii / (e^s_ii + sum_{j != i} l_ij e^s_ij) ]
          t2i: the same of the transpose of s
          l_ij = (B-1) d_ij / sum_{j != i} d_ij,  d_ij = distance(|rank_i - rank_j|)
        form "class": each text once
          i2t: as above with the K texts as candidates, weights of mean 1 over the K-1 other texts
          t2i: the texts of the batch's ranks against all images, weights of mean 1 over the images
               of other ranks; mean over the images of a text, then over the texts
        form "code": the weights multiply the logits inside the exponent
          i2t: cross_entropy(u * logits, rank),  u_ic = (K-1) d_ic / sum_c d_ic, 1 at the own rank
          t2i: text_image_kl(v * logits, rank),  v_ic = (K-1) d_ic / sum_i d_ic, 1 at the own rank

    NumCLIP Eq 4-6 (RegCLIP Eq 1-2). In "pair" the weights have mean 1 over the B-1 others; a sample
    of the same rank (d = 0) leaves the denominator. "class" is our reading, the papers write no
    such form; it equals "pair" where the batch has every rank once. "code" is the authors' program
    (xmed-lab/NumCLIP, runner_ssr.py:198-253), where a far rank is the harder negative only while
    its logit is positive. The paper's factor beta on d cancels. Distances are between ranks (bins),
    never targets: an image would push its own text away. In a batch of one rank "pair", and "class"
    text to image, have no negative: value and gradient are 0.

    Args:
      form: "pair", "class" or "code".
      distance: of two ranks: "absolute" |a - b|, "sqrt" its root, "square" its square.
      direction: "both", "i2t" or "t2i".
    """
    both_ways = choose("form", form, {"pair": _pair_form, "class": _class_form, "code": _code_form})
    scales = {"absolute": jnp.asarray, "sqrt": jnp.sqrt, "square": jnp.square}
    scale = choose("distance", distance, scales)
    logits = jnp.asarray(logits, jnp.float32)
    steps = jnp.abs(jnp.arange(logits.shape[1])[:, None] - rank)
    apart = scale(steps.astype(jnp.float32))  # [K, B]
    return _directed(direction, *both_ways(logits, rank, apart))


def _pair_form(logits: Array, rank: Array, apart: Array) -> tuple[Array, Array]:
    own, number = _own_and_number(logits, rank)
    to_images = _with_mean_one(apart, rank.size - 1, axis=1)  # [K, B]
    # The samples of a rank have one text, which takes the weights of all of them.
    to_texts = _with_mean_one(number * apart.T, rank.size - 1, axis=1)  # [B, K]
    i2t = negative_log_share(own, logits, to_texts).mean()
    return i2t, _among_images(own, logits, rank, to_images).mean()


def _class_form(logits: Array, rank: Array, apart: Array) -> tuple[Array, Array]:
    own, number = _own_and_number(logits, rank)
    to_texts = _with_mean_one(apart.T, logits.shape[1] - 1, axis=1)  # [B, K]
    to_images = _with_mean_one(apart, (rank.size - number)[:, None], axis=1)  # [K, B]
    # The images of a rank share the weight of their one text.
    share = (1.0 / jnp.maximum(number, 1))[rank]
    t2i = (share * _among_images(own, logits, rank, to_images)).sum() / share.sum()
    return negative_log_share(own, logits, to_texts).mean(), t2i


def _code_form(logits: Array, rank: Array, apart: Array) -> tuple[Array, Array]:
    apart = apart.T
    # K-1 in both directions, as in the authors' program: over the batch the mean is not 1.
    others = logits.shape[1] - 1
    u, v = (jnp.where(apart > 0, _with_mean_one(apart, others, axis), 1.0) for axis in (1, 0))
    return cross_entropy(u * logits, rank), text_image_kl(v * logits, rank)


def _own_and_number(logits: Array, rank: Array) -> tuple[Array, Array]:
    """f32[B], scores of the images and their own texts; f32[K], number of samples of each rank."""
    return own_scores(logits, rank), jax.nn.one_hot(rank, logits.shape[1]).sum(axis=0)


def _among_images(own: Array, logits: Array, rank: Array, weights: Array) -> Array:
    """f32[B], -log of the share of an image among itself and all images, for its own text."""
    # The weights f32[K, B] for a text are 0 at all images of its rank: one sum serves these.
    return log_share(own, *(part[rank] for part in log_mass(logits.T, weights)))


def _with_mean_one(distance: Array, negatives: int | Array, axis: int) -> Array:
    """Distances along `axis` scaled to the sum `negatives`; all 0 stay 0."""
    total = distance.sum(axis=axis, keepdims=True)
    return distance * negatives / _above_zero(total)


def _above_zero(scale: Array) -> Array:
    return jnp.where(scale > 0, scale, 1.0)


def _directed(direction: str, i2t: Array, t2i: Array) -> Array:
    # jit drops the one that is not used.
    return choose("direction", direction, {"both": i2t + t2i, "i2t": i2t, "t2i": t2i})
