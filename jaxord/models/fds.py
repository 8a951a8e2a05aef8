"""Feature distribution smoothing: features of rare labels borrow their neighbours' statistics.

Shapes: B batch, D embedding, N buckets of labels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxord.targets import labels


class FDS(nn.Module):
    """image_embeds <- (x - m1) sqrt(clip(v2 / v1, clip)) + m2 in training; nothing in evaluation.

    m1, v1 are the running mean and unbiased variance of the label's bucket over the epochs before;
    m2, v2 the same, smoothed over the buckets by a window of sum 1, reflected at the ends. After an
    epoch m1 <- momentum m1 + (1 - momentum) mean of the epoch, likewise v1; a bucket's first epoch
    is taken as it is. Where v1 is 0 a feature stays. Statistics have no gradient.

    Yang et al. 2021, "Delving into deep imbalanced regression". Their program embeds the training
    split again after each epoch; here statistics are gathered from the batches before calibration,
    and a batch over two epochs counts to the later one. Their smoothed statistics are an epoch
    older than m1 and v1, here all are of one epoch, as in the paper. Buckets without samples take
    no part in smoothing; in their program for ages they have mean 0 and variance 1.
    """

    training_only = True

    # Buckets of `width` from low to high (exclusive); the ends take everything beyond. On the scale
    # of training: 3, 100, 1 are the ages 3..99; 0, 1, 0.02 the 50 buckets of STS-B (score / 5).
    low: float
    high: float
    width: float = 1.0
    kernel: str = "gaussian"  # of the window, with size and sigma; see targets.labels.window
    size: int = 5
    sigma: float = 2.0
    momentum: float = 0.9
    start: int = 1  # first epoch whose features are calibrated, at least 1
    clip: tuple = (0.1, 10.0)  # bounds of v2 / v1
    copies: int = 1  # data.copies, which multiplies the numbers of epochs

    @nn.compact
    def __call__(self, arrays):
        if not self.is_mutable_collection("stats"):
            return {}  # evaluation
        x = arrays["image_embeds"].astype(jnp.float32)
        buckets = round((self.high - self.low) / self.width)
        window = labels.window(self.kernel, self.size, self.sigma)
        smoothing = smoothing_matrix(buckets, window)  # [N, N]

        def variable(name, *shape, dtype=jnp.float32):
            return self.variable("stats", name, jnp.zeros, shape, dtype)

        epoch = variable("epoch", dtype=jnp.int32)
        epochs, count = variable("epochs", buckets), variable("count", buckets)
        table = (buckets, x.shape[1])
        mean, square = variable("mean", *table), variable("square", *table)
        running_mean = variable("running_mean", *table)
        running_variance = variable("running_variance", *table)
        if self.is_mutable_collection("params"):
            return {}  # while parameters are drawn there is no label

        # When an epoch begins, the statistics of the one before join the running ones.
        now = arrays["epoch"].max() // self.copies
        ended = now != epoch.value  # not >: a later stage counts from 0 again
        joins = ended & (count.value > 0)
        share = jnp.where(epochs.value > 0, 1 - self.momentum, 1.0)
        variance = square.value / jnp.maximum(count.value - 1, 1)[:, None]
        for running, new in ((running_mean, mean.value), (running_variance, variance)):
            joined = running.value + share[:, None] * (new - running.value)
            running.value = jnp.where(joins[:, None], joined, running.value)
        epochs.value = epochs.value + joins
        for part in (count, mean, square):
            part.value = jnp.where(ended, 0.0, part.value)
        epoch.value = now

        place = jnp.floor((arrays["target"] - self.low) / self.width + labels.ON_EDGE)
        bucket = jnp.clip(place, 0, buckets - 1).astype(jnp.int32)  # [B]
        add_batch(count, mean, square, jax.lax.stop_gradient(x), bucket)

        seen = (epochs.value > 0).astype(jnp.float32)
        reach = jnp.maximum(smoothing @ seen, 1e-12)[:, None]
        m1, v1 = running_mean.value, running_variance.value  # zeros where not seen
        m2, v2 = (jnp.matmul(smoothing, part, precision="highest") / reach for part in (m1, v1))
        moves = (v1 > 0) & (now >= self.start)
        ratio = jnp.sqrt(jnp.clip(v2 / jnp.where(v1 > 0, v1, 1.0), *self.clip))
        m1, m2, ratio, moves = (part[bucket] for part in (m1, m2, ratio, moves))  # [B, D]
        return {"image_embeds": jnp.where(moves, (x - m1) * ratio + m2, x)}


def smoothing_matrix(buckets, window):
    """f32[N, N]: each row has the window's share of every bucket, reflected at the ends.

    No buckets, or a window that reaches over both ends, is a ValueError.
    """
    half = len(window) // 2
    if buckets < 1:
        raise ValueError("FDS has no buckets; expected low < high, at least one width apart")
    if half >= buckets:
        raise ValueError(
            f"a window of {len(window)} buckets is too wide for {buckets}; "
            f"expected at most {2 * buckets - 1}"
        )
    places = np.pad(np.arange(buckets), half, mode="reflect")
    matrix = np.zeros((buckets, buckets))
    for offset, share in enumerate(window / window.sum()):
        np.add.at(matrix, (np.arange(buckets), places[offset : offset + buckets]), share)
    return jnp.asarray(matrix, jnp.float32)


def add_batch(count, mean, square, x, bucket):
    """Adds a batch to each bucket's count, mean and sum of squared deviations (Chan's rule).

    Sums of squares would lose the variance of features whose mean is large. One-hot products,
    unlike scattered sums, are added in the same order every time.
    """
    member = jax.nn.one_hot(bucket, len(count.value), axis=0)  # [N, B]
    new = member.sum(axis=1)
    total = jnp.maximum(count.value + new, 1.0)
    centre = jnp.matmul(member, x, precision="highest") / jnp.maximum(new, 1.0)[:, None]  # [N, D]
    spread = jnp.matmul(member, jnp.square(x - centre[bucket]), precision="highest")
    apart = centre - mean.value
    square.value = square.value + spread + jnp.square(apart) * (count.value * new / total)[:, None]
    mean.value = mean.value + apart * (new / total)[:, None]
    count.value = count.value + new
