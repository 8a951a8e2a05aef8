"""Contrastive losses between images and the texts of ranks.

B batch, K ranks. The text of a sample is the text of its rank, so a batch of pairs needs only its logits [B, K].
"""

import jax.numpy as jnp

from jaxord.losses.rank import cross_entropy, negative_log_share, text_image_kl


def info_nce(logits, rank, *, direction="both"):
    """CLIP's contrastive loss over the pairs (image i, text of rank i) of the batch.

    i2t: mean over i of -log[ e^s_ii / sum_j e^s_ij ],  s_ij = logits[i, rank_j];  t2i: the same of the transpose

    It is `fcrc`'s pair form with all weights 1: a sample of the same rank counts as a negative, although its text is
    the own one, so log(number of samples of the rank) is the least that image i can reach.

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
    return _directed(direction, *_pairs(logits, rank, 1.0 - jnp.eye(logits.shape[0])))


def fcrc(logits, rank, *, form="pair", distance="absolute", direction="both"):
    """Fine-grained cross-modal ranking-based contrastive loss: far ranks are stronger negatives than near ones.

    form "pair", over the B pairs of the batch, s_ij = logits[i, rank_j], d_ij = distance(|rank_i - rank_j|):
      i2t: mean over i of -log[ e^s_ii / (e^s_ii + sum_{j != i} l_ij e^s_ij) ],  l_ij = (B-1) d_ij / sum_{j != i} d_ij
      t2i: the same of the transpose of s
      so the weights have mean 1 over the B-1 others, and a sample of the same rank (d = 0) leaves the denominator.
    form "class", every text once:
      i2t: as above with the K texts as candidates; the weights have mean 1 over the K-1 other texts
      t2i: each text whose rank is in the batch is an anchor once, its images are the positives, the images of other
      ranks the negatives, weights with mean 1 over these; mean over its images, then over the texts. The papers write
      no such form; this is our reading. With every rank once in the batch "class" equals "pair".
    form "code", of the authors' program, where the weights multiply the logits inside the exponent:
      i2t: cross_entropy(u * logits, rank),  u_ic = (K-1) d_ic / sum_c d_ic, 1 at the own rank
      t2i: text_image_kl(v * logits, rank),  v_ic = (K-1) d_ic / sum_i d_ic, 1 at the own rank; sum over the batch

    NumCLIP Eq 4-6 (RegCLIP Eq 1-2); "code": xmed-lab/NumCLIP, runner_ssr.py:198-253. The paper's factor beta on d
    cancels. Distances are between ranks (bins), never between targets: an image would otherwise push its own text away.
    If all ranks of the batch are equal, "pair" and, text to image, "class" have no negative: that loss and its gradient
    are 0. In form "code" a far rank is the harder negative only while its logit is positive.

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
    both_ways = _choose("form", form, {"pair": _pair_form, "class": _class_form, "code": _code_form})
    scale = _choose("distance", distance, {"absolute": jnp.asarray, "sqrt": jnp.sqrt, "square": jnp.square})

    def distances(ranks):  # [B, len(ranks)]
        return scale(jnp.abs(rank[:, None] - ranks).astype(jnp.float32))

    return _directed(direction, *both_ways(jnp.asarray(logits, jnp.float32), rank, distances))


def _pair_form(logits, rank, distances):
    return _pairs(logits, rank, _with_mean_one(distances(rank), rank.size - 1, axis=1))


def _class_form(logits, rank, distances):
    texts = logits.shape[1]
    own = jnp.take_along_axis(logits, rank[:, None], axis=1)[:, 0]  # [B]
    to_texts = _with_mean_one(distances(jnp.arange(texts)), texts - 1, axis=1)  # [B, K]
    i2t = negative_log_share(own, logits, to_texts).mean()

    between = distances(rank)  # [B, B]
    negatives = (between > 0).sum(axis=1, keepdims=True)
    to_images = _with_mean_one(between, negatives, axis=1)
    terms = negative_log_share(own, jnp.take(logits, rank, axis=1).T, to_images)  # [B]
    each = 1.0 / (rank.size - negatives[:, 0])  # the images of a rank share the weight of their one text
    return i2t, (each * terms).sum() / each.sum()


def _code_form(logits, rank, distances):
    apart = distances(jnp.arange(logits.shape[1]))  # [B, K]
    # K-1 in both directions, as in the authors' program; over the batch the weights then have no mean of 1.
    u, v = (jnp.where(apart > 0, _with_mean_one(apart, logits.shape[1] - 1, axis), 1.0) for axis in (1, 0))
    return cross_entropy(u * logits, rank), text_image_kl(v * logits, rank)


def _pairs(logits, rank, weights):
    """(i2t, t2i) over the pairs of the batch; weights f32[B, B], row the anchor, 0 on the diagonal."""
    scores = jnp.take(logits, rank, axis=1)  # [B, B], row image, column text
    own = jnp.diagonal(scores)
    return negative_log_share(own, scores, weights).mean(), negative_log_share(own, scores.T, weights).mean()


def _with_mean_one(distance, negatives, axis):
    """Distances along `axis` scaled to the sum `negatives`; all 0 stay 0."""
    total = distance.sum(axis=axis, keepdims=True)
    return distance * negatives / jnp.where(total > 0, total, 1.0)


def _directed(direction, i2t, t2i):
    return _choose("direction", direction, {"both": i2t + t2i, "i2t": i2t, "t2i": t2i})  # jit drops what is not used


def _choose(setting, name, choices):
    if name not in choices:
        raise ValueError(f"{setting} is {name!r}; expected one of {sorted(choices)}")
    return choices[name]
