"""Feature distribution smoothing: features of rare labels borrow the statistics of their
neighbours.

Shapes: B batch, D embedding, N buckets of labels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxord.targets import labels


class FDS(nn.Module):
    """image_embeds <- (x - m1) sqrt(clip(v2 / v1, clip)) + m2 in training (Yang et al. 2021,
    imbalanced regression).

    m1, v1: running mean and (unbiased) variance of the label's bucket over the epochs before; m2,
      v2: the same, smoothed
    over the buckets by a window that is divided by its sum, the ends reflected.

    After an epoch m1 <- momentum m1 + (1 - momentum) mean of the epoch, likewise v1; a bucket's
    first epoch is taken as it is. Where v1 is 0 a feature stays. Evaluation changes nothing, and
    the statistics, in the collection "stats", have no gradient. Settings are on the scale of
    training (label / data.target_scale).

    Our choices. The program embeds the training split once more after each epoch, here its
    statistics are gathered from the batches as they pass, before calibration; a batch over two
    epochs counts to the later one. Its smoothed statistics are an epoch older than m1 and v1, here
    all are of the same epoch, as in the paper. Buckets without samples have no part in smoothing;
    in the program for ages they enter it with mean 0 and variance 1.

    Attributes:
      low, high, width: buckets of that width from low to high (exclusive), the ends take what lies
        beyond: 3, 100, 1 are the ages 3..99; 0, 1, 0.02 the 50 buckets of STS-B, whose targets are
        score / 5.
      kernel, size, sigma: of the window, see `jaxord.targets.labels.window`.
      momentum: share of what was before.
      start: first epoch whose features are calibrated, at least 1.
      clip: bounds of v2 / v1.
      copies: data.copies, by which the numbers of epochs are multiplied.
    """

    low: float
    high: float
    width: float = 1.0
    kernel: str = "gaussian"
    size: int = 5
    sigma: float = 2.0
    momentum: float = 0.9
    start: int = 1
    clip: tuple = (0.1, 10.0)
    copies: int = 1

    @nn.compact
    def __call__(self, arrays):
        if not self.is_mutable_collection("stats"):
            return {}  # evaluation
        x = arrays["image_embeds"].astype(jnp.float32)
        buckets = round((self.high - self.low) / self.width)
        smoothing = smoothing_matrix(
            buckets, labels.window(self.kernel, self.size, self.sigma)
        )  # [N, N]

        def keep(name, *shape, dtype=jnp.float32):
            return self.variable("stats", name, jnp.zeros, shape, dtype)

        epoch, epochs, count = (
            keep("epoch", dtype=jnp.int32),
            keep("epochs", buckets),
            keep("count", buckets),
        )
        mean, square = keep("mean", buckets, x.shape[1]), keep("square", buckets, x.shape[1])
        running_mean = keep("running_mean", buckets, x.shape[1])
        running_variance = keep("running_variance", buckets, x.shape[1])
        if self.is_mutable_collection("params"):
            return {}  # parameters are being drawn: there is no label

        # Where a new epoch begins, the old one's statistics join the running ones and start anew.
        now = arrays["epoch"].max() // self.copies
        ended = now != epoch.value  # a later stage counts from 0 again
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
        merge(count, mean, square, jax.lax.stop_gradient(x), bucket)

        seen = (epochs.value > 0).astype(jnp.float32)
        reach = jnp.maximum(smoothing @ seen, 1e-12)[:, None]
        m1, v1 = running_mean.value, running_variance.value  # zeros where not seen
        m2, v2 = (jnp.matmul(smoothing, part, precision="highest") / reach for part in (m1, v1))
        moves = (v1 > 0) & (now >= self.start)
        ratio = jnp.sqrt(jnp.clip(v2 / jnp.where(v1 > 0, v1, 1.0), *self.clip))
        m1, m2, ratio, moves = (part[bucket] for part in (m1, m2, ratio, moves))  # [B, D]
        return {"image_embeds": jnp.where(moves, (x - m1) * ratio + m2, x)}


def smoothing_matrix(buckets, window):
    """f32[N, N]: row b gives the window's share in each bucket, with reflection at the ends.

    Raises:
      ValueError: no buckets, or a window that reaches over both ends.
    """
    half = len(window) // 2
    if buckets < 1:
        raise ValueError("FDS has no buckets; expected low < high, at least one width apart")
    if half >= buckets:
        raise ValueError(
            f"a window of {len(window)} buckets is too wide for {buckets}; expected at most {2 * buckets - 1}"
        )
    places = np.pad(np.arange(buckets), half, mode="reflect")
    matrix = np.zeros((buckets, buckets))
    for offset, share in enumerate(window / window.sum()):
        np.add.at(matrix, (np.arange(buckets), places[offset : offset + buckets]), share)
    return jnp.asarray(matrix, jnp.float32)


def merge(count, mean, square, x, bucket):
    """Adds a batch to the count, mean and sum of squared deviations of each bucket (Chan's rule).

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
