"""VGG-16 without batch normalisation, with the parameter paths of torchvision's names.

The numbers in `features/0/kernel` and `classifier/0/kernel` are positions in torchvision's lists,
which count activations, pools and dropouts too. Parameters are float32, activations `dtype`. A
mutable collection "stats", although empty, means that the tower trains.

Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
configuration D. Initial values: He et al. 2015, fan-out, and N(0, 0.01²) for the perceptron.

Shapes: N images, C width, H W image or map.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

GRID = 7  # side of the map that the classifier takes
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def adaptive_average(x, size):
    """Averages a map to size x size, as torch's AdaptiveAvgPool2d: [N, H, W, C].

    Output i along an axis of length n is the mean over floor(i n / size) <= j < ceil((i + 1) n /
    size): windows overlap where n is no multiple of size, and repeat where n is smaller.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        windows = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        means = [jax.lax.slice_in_dim(x, a, b, axis=axis).mean(axis) for a, b in windows]
        x = jnp.stack(means, axis)
    return x


class Features(nn.Module):
    """Stages of convolutions, a pool of 2 x 2 after each: [N, H, W, 3] -> [N, H/32, W/32, C]."""

    stages: tuple
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x):
        position = 0
        for widths in self.stages:

            def stage(module, x, first=position, widths=widths):
                form = dict(padding=1, dtype=module.dtype, kernel_init=HE)
                for i, width in enumerate(widths):
                    x = nn.relu(nn.Conv(width, (3, 3), name=str(first + 2 * i), **form)(x))
                return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))

            x = nn.remat(stage)(self, x) if self.remat else stage(self, x)
            position += 2 * len(widths) + 1
        return x


class Classifier(nn.Module):
    """The perceptron without its last layer, dropout of one half in training: -> [N, hidden]."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        # Drawing parameters makes every collection mutable, but is no training.
        train = self.is_mutable_collection("stats") and not self.is_mutable_collection("params")
        form = dict(dtype=self.dtype, kernel_init=nn.initializers.normal(0.01))
        for position in (0, 3):
            x = nn.relu(nn.Dense(self.hidden, name=str(position), **form)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return x


class VGG(nn.Module):
    """VGG-16 without its last layer; trains (rng "dropout") under mutable=["stats"]."""

    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # recompute each stage in the backward pass
    stages: tuple = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    hidden: int = 4096  # width of the classifier's layers

    @nn.compact
    def __call__(self, image):
        """The second hidden layer of the classifier: f32[N, H, W, 3] -> f32[N, hidden].

        Images are normalised as the checkpoint's were; H and W are at least 32, else a ValueError.
        The last map of any size but 224 is averaged to 7 x 7.
        """
        least = 2 ** len(self.stages)
        if min(image.shape[1:3]) < least:
            raise ValueError(
                f"VGG-16 halves its images {len(self.stages)} times and got {list(image.shape)}: "
                f"use at least {least} pixels a side"
            )
        x = Features(self.stages, self.dtype, self.remat, name="features")(image)
        # [N, GRID² C] with channels last; torch has them first.
        x = adaptive_average(x, GRID).reshape(image.shape[0], -1)
        return Classifier(self.hidden, self.dtype, name="classifier")(x).astype(jnp.float32)
