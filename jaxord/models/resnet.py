"""ResNet-18 and ResNet-50, with the parameter paths of torchvision's names:
`layer1/0/downsample/0/kernel`.

Running statistics are a second collection, "stats": `bn1/mean` and `bn1/var` beside the parameters
`bn1/scale` and `bn1/bias`. `jaxord.weights.torchvision` turns a checkpoint's names into both by one
rule, and back. Parameters and statistics are float32, activations `dtype`; batch normalisation and
the last average are computed in float32.

He et al. 2016, "Deep residual learning for image recognition"; as in torchvision the stride of a
bottleneck is in its 3 x 3 convolution ("v1.5"), not in the first one. Initial values: He et al.
2015, fan-out, as torchvision.

Shapes: N images, C width, H W image or map.
"""

import jax.numpy as jnp
from flax import linen as nn

# Depth -> (blocks of the four stages, kernel sizes of a block's convolutions).
DEPTHS = {18: ((2, 2, 2, 2), (3, 3)), 50: ((3, 4, 6, 3), (1, 3, 1))}
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolution(features, size, stride, dtype, name):
    """Convolution without bias, padded by size // 2 on each side. "SAME" would pad even maps on one
    side only."""
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=HE,
        name=name,
    )


class BatchNorm(nn.Module):
    """scale (x - mean) / sqrt(var + epsilon) + bias, by torch's conventions.

    In training mean and variance are the batch's, the whole global one on any number of devices,
    and the running ones move: running <- (1 - momentum) running + momentum batch. The running
    variance takes the unbiased estimate (n - 1), the normalisation the biased one (n). Otherwise
    the running ones are used. While parameters are drawn: the batch's, and the running ones stay.

    Ioffe and Szegedy 2015, "Batch normalization", Algorithms 1 and 2. The trap: flax's own
    `momentum` is 1 minus torch's, and its running variance is the biased one.
    """

    dtype: jnp.dtype
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, C] -> [N, H, W, C].

        Raises:
          ValueError: one value a channel in training, whose variance is unknown.
        """
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        running_mean = self.variable("stats", "mean", jnp.zeros, (width,))
        running_var = self.variable("stats", "var", jnp.ones, (width,))
        x = x.astype(jnp.float32)
        if self.is_mutable_collection("stats"):
            mean = x.mean((0, 1, 2))  # [C]
            var = jnp.square(x - mean).mean((0, 1, 2))  # [C], in two passes, as torch
            if not self.is_mutable_collection("params"):
                n = x.size // width
                if n == 1:
                    raise ValueError(
                        f"batch normalisation in training got one value a channel (a map of shape {list(x.shape)}), which has "
                        "no variance: use more than one image a batch, or larger images"
                    )
                running_mean.value += self.momentum * (mean - running_mean.value)
                running_var.value += self.momentum * (var * n / (n - 1) - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        return ((x - mean) * (scale / jnp.sqrt(var + self.epsilon)) + bias).astype(self.dtype)


class Shortcut(nn.Module):
    """The level `downsample` of the paths: a 1 x 1 convolution and its normalisation."""

    width: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, C] -> [N, H / stride, W / stride, width]."""
        return BatchNorm(self.dtype, name="1")(
            convolution(self.width, 1, self.stride, self.dtype, "0")(x)
        )


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)); a branch of two 3 x 3 convolutions, or a bottleneck of four
    times the width outside."""

    width: int
    stride: int
    kernels: tuple
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, C] -> [N, H / stride, W / stride, width or 4 width]."""
        last = len(self.kernels) - 1
        outside = self.width * (4 if self.kernels == (1, 3, 1) else 1)
        branch = x
        for i, size in enumerate(self.kernels):
            stride = self.stride if i == self.kernels.index(3) else 1
            branch = convolution(
                outside if i == last else self.width, size, stride, self.dtype, f"conv{i + 1}"
            )(branch)
            branch = BatchNorm(self.dtype, name=f"bn{i + 1}")(branch)
            if i < last:
                branch = nn.relu(branch)
        if self.stride != 1 or x.shape[-1] != outside:
            x = Shortcut(outside, self.stride, self.dtype, name="downsample")(x)
        return nn.relu(x + branch)


class Stage(nn.Module):
    """The blocks of one resolution, named "0", "1", ...; the first one has the stride."""

    blocks: int
    width: int
    stride: int
    kernels: tuple
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, C] -> [N, H / stride, W / stride, width or 4 width]."""
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.blocks):
            x = block(self.width, 1 if i else self.stride, self.kernels, self.dtype, name=str(i))(x)
        return x


class ResNet(nn.Module):
    """A residual network without its classifier: image -> average of the last map.

    It trains (batch statistics, which move the running ones) where it is applied with
    mutable=["stats"].

    Attributes:
      depth: 18 or 50.
      dtype: of the activations.
      remat: recompute each block in the backward pass.
    """

    depth: int
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, image):
        """Image features.

        Args:
          image: f32[N, H, W, 3], normalised as the checkpoint's were; any H and W.

        Returns:
          f32[N, C]; C is 512 for depth 18, 2048 for 50.

        Raises:
          ValueError: another depth.
        """
        if self.depth not in DEPTHS:
            raise ValueError(
                f"a ResNet of depth {self.depth!r} is unknown; choose one of {sorted(DEPTHS)}"
            )
        blocks, kernels = DEPTHS[self.depth]
        x = convolution(64, 7, 2, self.dtype, "conv1")(image)  # [N, H/2, W/2, 64]
        x = nn.relu(BatchNorm(self.dtype, name="bn1")(x))
        # The pool's own padding, in a step of its own: ONNX's converter leaves out the padding of a
        # pool.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))  # [N, H/4, W/4, 64]
        for i, count in enumerate(blocks):
            width, stride = 64 * 2**i, 2 if i else 1
            x = Stage(count, width, stride, kernels, self.dtype, self.remat, name=f"layer{i + 1}")(
                x
            )
        return x.astype(jnp.float32).mean((1, 2))  # [N, C]
