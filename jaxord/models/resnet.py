"""ResNet-18 and ResNet-50, with the parameter paths of torchvision's names.

`jaxord.weights.torchvision` turns a checkpoint's names into `layer1/0/downsample/0/kernel` and into
the running statistics `bn1/mean` and `bn1/var` of the collection "stats" by one rule, and back.
Parameters and statistics are float32, activations `dtype`; batch normalisation and the last average
are computed in float32.

He et al. 2016, "Deep residual learning for image recognition"; as in torchvision the stride of a
bottleneck is in its 3 x 3 convolution ("v1.5"). Initial values: He et al. 2015, fan-out.

Shapes: N images, C width, H W image or map.
"""

import jax.numpy as jnp
from flax import linen as nn

# Depth -> (blocks of the four stages, kernel sizes of a block's convolutions).
DEPTHS = {18: ((2, 2, 2, 2), (3, 3)), 50: ((3, 4, 6, 3), (1, 3, 1))}
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolution(features, size, stride, dtype, name):
    """Convolution without bias, padded by size // 2 on each side ("SAME" pads even maps on one)."""
    form = dict(strides=stride, padding=size // 2, use_bias=False, kernel_init=HE)
    return nn.Conv(features, (size, size), dtype=dtype, name=name, **form)


class BatchNorm(nn.Module):
    """scale (x - mean) / sqrt(var + epsilon) + bias, by torch's conventions: [N, H, W, C].

    In training (mutable "stats") mean and variance are the global batch's, on any number of
    devices, and the running ones move: running <- (1 - momentum) running + momentum batch, with the
    unbiased variance (n - 1); the normalisation takes the biased one (n). Otherwise the running
    ones are used. While parameters are drawn: the batch's, and the running ones stay. One value a
    channel in training is a ValueError.

    Ioffe and Szegedy 2015, "Batch normalization", Algorithms 1 and 2. Trap: flax's `momentum` is 1
    minus torch's, and its running variance is the biased one.
    """

    dtype: jnp.dtype
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        running_mean = self.variable("stats", "mean", jnp.zeros, (width,))
        running_var = self.variable("stats", "var", jnp.ones, (width,))
        x = x.astype(jnp.float32)
        if self.is_mutable_collection("stats"):
            mean = x.mean((0, 1, 2))  # [C]
            var = jnp.square(x - mean).mean((0, 1, 2))  # [C], in two passes, as torch
        else:
            mean, var = running_mean.value, running_var.value
        # Drawing parameters makes every collection mutable, but is no training.
        if self.is_mutable_collection("stats") and not self.is_mutable_collection("params"):
            n = x.size // width
            if n == 1:
                raise ValueError(
                    "batch normalisation in training got one value a channel (a map of shape "
                    f"{list(x.shape)}), which has no variance: use more than one image a batch, or "
                    "larger images"
                )
            running_mean.value += self.momentum * (mean - running_mean.value)
            running_var.value += self.momentum * (var * n / (n - 1) - running_var.value)
        return ((x - mean) * (scale / jnp.sqrt(var + self.epsilon)) + bias).astype(self.dtype)


class Shortcut(nn.Module):
    """The level `downsample` of the paths: a 1 x 1 convolution and its normalisation."""

    width: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        x = convolution(self.width, 1, self.stride, self.dtype, "0")(x)
        return BatchNorm(self.dtype, name="1")(x)


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)): [N, H, W, C] -> [N, H / stride, W / stride, out].

    The branch is two 3 x 3 convolutions (out = width) or a bottleneck (out = 4 width).
    """

    width: int
    stride: int
    kernels: tuple
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        last = len(self.kernels) - 1
        outside = self.width * (4 if self.kernels == (1, 3, 1) else 1)
        branch = x
        for i, size in enumerate(self.kernels):
            stride = self.stride if i == self.kernels.index(3) else 1
            features = outside if i == last else self.width
            branch = convolution(features, size, stride, self.dtype, f"conv{i + 1}")(branch)
            branch = BatchNorm(self.dtype, name=f"bn{i + 1}")(branch)
            if i < last:
                branch = nn.relu(branch)
        if self.stride != 1 or x.shape[-1] != outside:
            x = Shortcut(outside, self.stride, self.dtype, name="downsample")(x)
        return nn.relu(x + branch)


class Stage(nn.Module):
    """The blocks "0", "1", ... of one resolution; the first one has the stride."""

    blocks: int
    width: int
    stride: int
    kernels: tuple
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x):
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.blocks):
            x = block(self.width, 1 if i else self.stride, self.kernels, self.dtype, name=str(i))(x)
        return x


class ResNet(nn.Module):
    """A residual network without its classifier; trains under mutable=["stats"]."""

    depth: int  # 18 or 50
    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # recompute each block in the backward pass

    @nn.compact
    def __call__(self, image):
        """The average of the last map: f32[N, H, W, 3] -> f32[N, C], C 512 or 2048 by depth.

        Images are normalised as the checkpoint's were; H and W are free.
        """
        if self.depth not in DEPTHS:
            known = sorted(DEPTHS)
            raise ValueError(f"a ResNet of depth {self.depth!r} is unknown; choose one of {known}")
        blocks, kernels = DEPTHS[self.depth]
        x = convolution(64, 7, 2, self.dtype, "conv1")(image)  # [N, H/2, W/2, 64]
        x = nn.relu(BatchNorm(self.dtype, name="bn1")(x))
        # A separate step, because ONNX's converter drops the padding of a pool.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))  # [N, H/4, W/4, 64]
        for i, count in enumerate(blocks):
            form = (count, 64 * 2**i, 2 if i else 1, kernels, self.dtype, self.remat)
            x = Stage(*form, name=f"layer{i + 1}")(x)
        return x.astype(jnp.float32).mean((1, 2))  # [N, C]
