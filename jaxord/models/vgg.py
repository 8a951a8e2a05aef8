"""VGG-16 without batch normalisation, with the parameter paths of torchvision's names.

`features/0/kernel`, `classifier/0/kernel`: the numbers are positions in torchvision's lists, which
count activations, pools and dropouts too. Parameters are float32, activations `dtype`. There are no
running statistics; whether the tower trains still shows in the collection "stats".

Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
configuration D. Initial values: He et al. 2015, fan-out, and N(0, 0.01²) for the perceptron, as
torchvision.

Shapes: N images, C width, H W image or map.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

GRID = 7  # side of the map that the classifier takes


def adaptive_average(x, size):
    """Averages a map to size x size, as torch's AdaptiveAvgPool2d.

    Output i along an axis of length n is the mean over floor(i n / size) <= j < ceil((i + 1) n /
    size): windows overlap where n is no multiple of size, and repeat where n is smaller.

    Args:
      x: [N, H, W, C].
      size: of both sides.

    Returns:
      [N, size, size, C].
    """
    for axis in (1, 2):
        n = x.shape[axis]
        windows = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        x = jnp.stack(
            [jax.lax.slice_in_dim(x, a, b, axis=axis).mean(axis) for a, b in windows], axis
        )
    return x


class Features(nn.Module):
    """The convolutions, five stages that end in a pool of 2 x 2; `remat` recomputes each stage in
    the backward pass."""

    stages: tuple
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, 3] -> [N, H/32, W/32, C]."""
        position = 0
        for widths in self.stages:

            def stage(module, x, first=position, widths=widths):
                for i, width in enumerate(widths):
                    x = nn.relu(
                        nn.Conv(
                            width,
                            (3, 3),
                            padding=1,
                            dtype=module.dtype,
                            name=str(first + 2 * i),
                            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
                        )(x)
                    )
                return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))

            x = nn.remat(stage)(self, x) if self.remat else stage(self, x)
            position += 2 * len(widths) + 1
        return x


class Classifier(nn.Module):
    """The perceptron without its last layer; dropout of one half in training."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """x [N, C] -> [N, hidden]."""
        # While parameters are drawn everything is mutable, and nothing is trained.
        train = self.is_mutable_collection("stats") and not self.is_mutable_collection("params")
        for position in (0, 3):
            x = nn.Dense(
                self.hidden,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                name=str(position),
            )(x)
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return x


class VGG(nn.Module):
    """VGG-16 without its last layer: image -> the second hidden layer of the classifier.

    It trains (dropout, from the rng "dropout") where it is applied with mutable=["stats"].

    Attributes:
      dtype: of the activations.
      remat: recompute each stage in the backward pass.
      stages: widths of the convolutions; a pool is behind each stage.
      hidden: width of the classifier's layers.
    """

    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    stages: tuple = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    hidden: int = 4096

    @nn.compact
    def __call__(self, image):
        """Image features.

        Args:
          image: f32[N, H, W, 3], normalised as the checkpoint's were; H and W at least 32. At 224
            the last map is 7 x 7, that of any other size is averaged to it.

        Returns:
          f32[N, hidden].

        Raises:
          ValueError: a smaller image.
        """
        least = 2 ** len(self.stages)
        if min(image.shape[1:3]) < least:
            raise ValueError(
                f"VGG-16 halves its images {len(self.stages)} times and got {list(image.shape)}: "
                f"use at least {least} pixels a side"
            )
        x = Features(self.stages, self.dtype, self.remat, name="features")(
            image
        )  # [N, H/32, W/32, C]
        x = adaptive_average(x, GRID).reshape(
            image.shape[0], -1
        )  # [N, GRID² C], channels last: torch has them first
        return Classifier(self.hidden, self.dtype, name="classifier")(x).astype(jnp.float32)
