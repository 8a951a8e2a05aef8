"""Contrastive losses between images and the texts of ranks.

B batch, K ranks, D embedding. The text of a sample is the text of its rank, so the B x B pairs of a
batch are its logits [B, K], each as often as the batch has the rank, and no array has B x B
entries.
"""

import jax
import jax.numpy as jnp

from jaxord import vectors
from jaxord.losses.rank import (
    choose,
    cross_entropy,
    log_mass,
    log_share,
    negative_log_share,
    text_image_kl,
)


def info_nce(logits: jax.Array, rank: jax.Array, *, direction: str = "both") -> jax.Array:
    """CLIP's contrastive loss over the pairs (image i, text of rank i) of the batch.

    i2t: mean over i of -log[ e^s_ii / sum_j e^s_ij ],  s_ij = logits[i, rank_j];  t2i: the same of the transpose

    It is `fcrc`'s pair form with all weights 1: a sample of the same rank counts as a negative,
    although its text is the own one, so log(number of samples of the rank) is the least that image
    i can reach.

    Args:
      logits: [B, K].
      rank: i32[B].
      direction: "both" (the sum), "i2t" or "t2i".

    Returns:
      f32[].

    Raises:
      ValueError: unknown direction.
    """
    logits = jnp.asarray(logits, jnp.float32)
    own, carries = _own(logits, rank), jax.nn.one_hot(rank, logits.shape[1])  # [B], [B, K]
    i2t = negative_log_share(own, logits, carries.sum(axis=0) - carries).mean()

    # The images of a rank have one sum; where the rank has one image, the first term is exactly 0.
    top, mass, _ = log_mass(logits.T, carries.T)  # [K], the images of the text's rank
    highest, rest, some = log_mass(logits.T, 1.0 - carries.T)  # [K], all others
    against = log_share(top, highest, rest - mass, some)
    return _directed(direction, i2t, ((top[rank] - own) + mass[rank] + against[rank]).mean())


def asymmetric_contrastive(
    logits: jax.Array, rank: jax.Array, *, direction: str = "both"
) -> jax.Array:
    """L2RCLIP's asymmetrical contrastive loss (Eq 7), in which all samples of a rank are positives
    of each other.

    C_i = {z : rank_z = rank_i},  s_ij = logits[i, rank_j]
    i2t: mean over i, over z in C_i of -log[ e^s_iz / sum_b e^s_ib ]
    t2i: mean over i, over z in C_i of -log[ e^s_zi / sum_b e^s_bi ]

    With one text a rank it is `info_nce` in other words: s_iz is the same for all z in C_i, and
    text to image the anchors of a rank share one mean over its images. The paper weighs the two
    directions alike (0.03 or 0.1), so that one entry with direction="both" serves.

    Args, Returns, Raises: as `info_nce`.
    """
    return info_nce(logits, rank, direction=direction)


def ordinal_pairwise(
    image_embeds: jax.Array,
    text_embeds: jax.Array,
    rank: jax.Array,
    rank_values: jax.Array,
    *,
    strength: float = 0.5,
    form: str = "inner",
    weight_scale: str = "span",
) -> jax.Array:
    """L2RCLIP's cross-modal ordinal pairwise loss (COP): near to the own text, far from those of
    distant ranks.

    v_i unit image features, r_c unit text features, y_i = rank_i, w_ic the gap of the values of
    ranks y_i and c:
    form "inner":  mean over ordered pairs i != j of w_ij (v_i + strength r_yi) . r_yj  -  mean over i of v_i . r_yi
    form "euclid", strength > 0:  mean over i of |v_i - r_yi|^2 / 2
      - mean over pairs i < j of w_ij |v_i - r_yj|  -  strength * mean over pairs i < j of w_ij |r_yi - r_yj|
    form "euclid", strength 0:  mean over i of |v_i - r_yi|^2  -  mean over i and all K texts c of w_ic |v_i - r_c|

    Eq 6 of the paper is "inner", with strength 0 its SCOP for frozen texts; "euclid" is the
    authors' two programs (raywang335/L2RCLIP, loss/ordinal_ce_stage1.py and loss/ordinal_ce.py),
    which add 1e-6 to the gap of equal ranks. The strength is not printed; 0.5 is the program's
    ratio. Trap: the stage-1 program pairs image i with the texts of later samples only, so this one
    form depends on the order of the batch.

    Args:
      image_embeds: [B, D].
      text_embeds: [K, D].
      rank: i32[B].
      rank_values: f32[K].
      strength: >= 0, of the texts' own repulsion.
      form: "inner" or "euclid".
      weight_scale: of the gaps: "span" divides by that of all rank values, so that a loss weight
        means the same on 62 and on 5 ranks; "raw" is the gap itself; "pairs" is the programs' (gap
        - smallest) / largest over the pairs.

    Returns:
      f32[]; of a batch of one, which has no pairs, only the term of v_i and its own text.

    Raises:
      ValueError: unknown form or weight_scale.
    """
    images, texts = vectors.unit(image_embeds), vectors.unit(text_embeds)
    values = jnp.asarray(rank_values, jnp.float32)
    own, carries = texts[rank], jax.nn.one_hot(rank, values.size)  # [B, D], [B, K]
    gap = jnp.abs(values[rank][:, None] - values)  # [B, K]

    def mean_of(terms: jax.Array, times: jax.Array) -> jax.Array:
        """Mean of w * terms [B, K] over the pairs (sample i, text c), each of which is there so
        many times, [B, K]."""
        used = times > 0
        largest, smallest = (
            jnp.max(jnp.where(used, gap, 0.0)),
            jnp.min(jnp.where(used, gap, jnp.inf)),
        )
        scaled = {
            "span": lambda: gap / _above_zero(values.max() - values.min()),
            "raw": lambda: gap,
            "pairs": lambda: (gap - jnp.where(used.any(), smallest, 0.0)) / _above_zero(largest),
        }
        weight = times * choose("weight_scale", weight_scale, scaled)()
        return (weight * terms).sum() / jnp.maximum(times.sum(), 1.0)

    def inner() -> jax.Array:
        similarity = vectors.inner(images + strength * own, texts)  # [B, K]
        return (
            mean_of(similarity, carries.sum(axis=0) - carries) - (images * own).sum(axis=1).mean()
        )

    def euclid() -> jax.Array:
        tightness, apart = (
            jnp.square(images - own).sum(axis=1).mean(),
            vectors.distances(images, texts),
        )  # [], [B, K]
        if not strength:
            return tightness - mean_of(apart, jnp.ones_like(gap))
        later = jnp.cumsum(carries[::-1], axis=0)[::-1] - carries  # [B, K], samples behind i
        return tightness / 2 - mean_of(
            apart + strength * vectors.distances(texts, texts)[rank], later
        )

    return choose("form", form, {"inner": inner, "euclid": euclid})()


def _above_zero(scale: jax.Array) -> jax.Array:
    return jnp.where(scale > 0, scale, 1.0)


def fcrc(
    logits: jax.Array,
    rank: jax.Array,
    *,
    form: str = "pair",
    distance: str = "absolute",
    direction: str = "both",
) -> jax.Array:
    """Fine-grained cross-modal ranking-based contrastive loss: far ranks are stronger negatives
    than near ones.

    form "pair", over the B pairs of the batch, s_ij = logits[i, rank_j], d_ij = distance(|rank_i - rank_j|):
      i2t: mean over i of -log[ e^s_ii / (e^s_ii + sum_{j != i} l_ij e^s_ij) ],  l_ij = (B-1) d_ij / sum_{j != i} d_ij
      t2i: the same of the transpose of s
      so the weights have mean 1 over the B-1 others, and a sample of the same rank (d = 0) leaves
      the denominator.
    form "class", every text once:
      i2t: as above with the K texts as candidates; the weights have mean 1 over the K-1 other texts
      t2i: each text whose rank is in the batch is an anchor once, its images are the positives, the
        images of other
      ranks the negatives, weights with mean 1 over these; mean over its images, then over the
      texts. The papers write no such form; this is our reading. With every rank once in the batch
      "class" equals "pair".
    form "code", of the authors' program, where the weights multiply the logits inside the exponent:
      i2t: cross_entropy(u * logits, rank),  u_ic = (K-1) d_ic / sum_c d_ic, 1 at the own rank
      t2i: text_image_kl(v * logits, rank),  v_ic = (K-1) d_ic / sum_i d_ic, 1 at the own rank; sum over the batch

    NumCLIP Eq 4-6 (RegCLIP Eq 1-2); "code": xmed-lab/NumCLIP, runner_ssr.py:198-253. The paper's
    factor beta on d cancels. Distances are between ranks (bins), never between targets: an image
    would otherwise push its own text away. If all ranks of the batch are equal, "pair" and, text to
    image, "class" have no negative: that loss and its gradient are 0. In form "code" a far rank is
    the harder negative only while its logit is positive.

    Args:
      logits: [B, K].
      rank: i32[B].
      form: "pair", "class" or "code".
      distance: of two ranks: "absolute" |a - b|, "sqrt" its root, "square" its square.
      direction: "both" (the sum), "i2t" or "t2i".

    Returns:
      f32[].

    Raises:
      ValueError: unknown form, distance or direction.
    """
    both_ways = choose("form", form, {"pair": _pair_form, "class": _class_form, "code": _code_form})
    scale = choose(
        "distance", distance, {"absolute": jnp.asarray, "sqrt": jnp.sqrt, "square": jnp.square}
    )

    logits = jnp.asarray(logits, jnp.float32)
    apart = scale(
        jnp.abs(jnp.arange(logits.shape[1])[:, None] - rank).astype(jnp.float32)
    )  # [K, B]
    return _directed(direction, *both_ways(logits, rank, apart))


def _pair_form(logits: jax.Array, rank: jax.Array, apart: jax.Array) -> tuple[jax.Array, ...]:
    own, others, number = _own(logits, rank), rank.size - 1, _number(logits, rank)
    to_images = _with_mean_one(apart, others, axis=1)  # [K, B]
    to_texts = _with_mean_one(
        number * apart.T, others, axis=1
    )  # [B, K], samples of a rank together
    return negative_log_share(own, logits, to_texts).mean(), _among_images(
        own, logits, rank, to_images
    ).mean()


def _class_form(logits: jax.Array, rank: jax.Array, apart: jax.Array) -> tuple[jax.Array, ...]:
    own, number = _own(logits, rank), _number(logits, rank)
    to_texts = _with_mean_one(apart.T, logits.shape[1] - 1, axis=1)  # [B, K]
    to_images = _with_mean_one(apart, (rank.size - number)[:, None], axis=1)  # [K, B]
    each = (1.0 / jnp.maximum(number, 1))[
        rank
    ]  # the images of a rank share the weight of their one text
    t2i = (each * _among_images(own, logits, rank, to_images)).sum() / each.sum()
    return negative_log_share(own, logits, to_texts).mean(), t2i


def _code_form(logits: jax.Array, rank: jax.Array, apart: jax.Array) -> tuple[jax.Array, ...]:
    apart = apart.T
    # K-1 in both directions, as in the authors' program; over the batch the weights then have no
    # mean of 1.
    u, v = (
        jnp.where(apart > 0, _with_mean_one(apart, logits.shape[1] - 1, axis), 1.0)
        for axis in (1, 0)
    )
    return cross_entropy(u * logits, rank), text_image_kl(v * logits, rank)


def _own(logits: jax.Array, rank: jax.Array) -> jax.Array:
    """f32[B], the score of each image and its own text."""
    return jnp.take_along_axis(logits, rank[:, None], axis=1)[:, 0]


def _number(logits: jax.Array, rank: jax.Array) -> jax.Array:
    """f32[K], samples of each rank."""
    return jax.nn.one_hot(rank, logits.shape[1]).sum(axis=0)


def _among_images(
    own: jax.Array, logits: jax.Array, rank: jax.Array, weights: jax.Array
) -> jax.Array:
    """f32[B], -log of the share that an image has for its own text among itself and all images.

    The weights f32[K, B] of the images for each text are 0 at those of the text's rank, so one sum
    serves all of these.
    """
    return log_share(own, *(part[rank] for part in log_mass(logits.T, weights)))


def _with_mean_one(distance: jax.Array, negatives: int | jax.Array, axis: int) -> jax.Array:
    """Distances along `axis` scaled to the sum `negatives`; all 0 stay 0."""
    total = distance.sum(axis=axis, keepdims=True)
    return distance * negatives / _above_zero(total)


def _directed(direction: str, i2t: jax.Array, t2i: jax.Array) -> jax.Array:
    return choose(
        "direction", direction, {"both": i2t + t2i, "i2t": i2t, "t2i": t2i}
    )  # jit drops what is not used
