"""Video: the Fast pathway of SlowFast, and the head that joins its motion to the features of the
frames.

The frames of a video are views of the image tower; its motion is a head's matter, from features
that `jaxord.data.readers.videos` extracts once: the pathway is frozen.

Shapes: B batch, M clips of a video, N clips, F frames of a clip, H W image, h w map, C width, D
  embedding.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxord.models import clip


class FrozenNorm(nn.Module):
    """scale (x - mean) / sqrt(var + 1e-5) + bias: batch normalisation by running statistics that
    never move ("stats")."""

    @nn.compact
    def __call__(self, x):
        """x [..., C] -> [..., C]."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("stats", "mean", jnp.zeros, width).value
        var = self.variable("stats", "var", jnp.ones, width).value
        return (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias


def convolution(features, size, stride, name):
    """3-D convolution without bias, padded by size // 2 at each end; "SAME" would pad even maps at
    one end only."""
    padding = [(length // 2, length // 2) for length in size]
    return nn.Conv(
        features, size, strides=(1, stride, stride), padding=padding, use_bias=False, name=name
    )


class Stem(nn.Module):
    """A 5 x 7 x 7 convolution and a maximum over 1 x 3 x 3, both at every second place in space."""

    width: int

    @nn.compact
    def __call__(self, x):
        """x [N, F, H, W, 3] -> [N, F, H / 4, W / 4, width]."""
        x = nn.relu(FrozenNorm(name="norm")(convolution(self.width, (5, 7, 7), 2, "conv")(x)))
        return nn.max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))


class Branch(nn.Module):
    """Three frames of time, 3 x 3 of space (at every `stride`-th place), and four times as many
    channels."""

    inner: int
    stride: int

    @nn.compact
    def __call__(self, x):
        """x [N, F, h, w, C] -> [N, F, h / stride, w / stride, 4 inner]."""
        x = nn.relu(FrozenNorm(name="norm_a")(convolution(self.inner, (3, 1, 1), 1, "conv_a")(x)))
        x = nn.relu(
            FrozenNorm(name="norm_b")(convolution(self.inner, (1, 3, 3), self.stride, "conv_b")(x))
        )
        return FrozenNorm(name="norm_c")(convolution(4 * self.inner, (1, 1, 1), 1, "conv_c")(x))


class Bottleneck(nn.Module):
    """ReLU(shortcut + branch); the first of a stage has a convolution as its shortcut."""

    inner: int
    stride: int
    first: bool

    @nn.compact
    def __call__(self, x):
        """x [N, F, h, w, C] -> [N, F, h / stride, w / stride, 4 inner]."""
        added = Branch(self.inner, self.stride, name="branch2")(x)
        if self.first:
            x = convolution(4 * self.inner, (1, 1, 1), self.stride, "branch1_conv")(x)
            x = FrozenNorm(name="branch1_norm")(x)
        return nn.relu(x + added)


class Stage(nn.Module):
    """Bottlenecks, the first of them with the stride."""

    inner: int
    stride: int
    depth: int

    @nn.compact
    def __call__(self, x):
        """x [N, F, h, w, C] -> [N, F, h / stride, w / stride, 4 inner]."""
        for i in range(self.depth):
            x = Bottleneck(
                self.inner, self.stride if i == 0 else 1, i == 0, name=f"res_blocks_{i}"
            )(x)
        return x


class FastPathway(nn.Module):
    """The Fast pathway of SlowFast alone, frozen: a ResNet over all frames with an eighth of the
    channels.

    No stride in time anywhere, stages of 32, 64, 128 and 256 channels; R50 8x8 sees 32 frames of
    224 x 224 pixels. Parameters lie under the names of pytorchvideo's `slowfast_r50`
    (`jaxord.weights.slowfast.source_name`), statistics in "stats".

    Feichtenhofer et al. 2019, "SlowFast networks for video recognition", Table 1.

    Attributes:
      width: channels of the stem.
      depths: bottlenecks of each stage.
    """

    width: int = 8
    depths: tuple = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, video):
        """Feature maps of the last stage.

        Args:
          video: f32[N, F, H, W, 3], normalised; H and W multiples of 32.

        Returns:
          f32[N, F, H / 32, W / 32, 32 width].
        """
        x = Stem(self.width, name="blocks_0")(video)
        for i, depth in enumerate(self.depths):
            x = Stage(self.width * 2**i, 1 if i == 0 else 2, depth, name=f"blocks_{i + 1}")(x)
        return x


class MotionFusion(nn.Module):
    """image_embeds <- W [z_s; z_t] + b, the frames' mean z_s beside the motion z_t (ConOrd Figure
    7).

    z_t = W' mean(attention(motion)) + b': pre-norm transformer blocks over each clip by itself, by
    turns over the places of a frame (intra-frame) and over the frames at a place (inter-frame),
    then the mean over clips, frames and places. The paper gives no depth, width or fusion: these
    are our choices. There are no position embeddings, so neither the order of the clips nor that of
    a clip's frames matters; what the order tells is in the pathway's features already.

    Takes `motion` f32[B, M, F, h, w, C] and `image_embeds` f32[B, D]; the result is f32[B, D] and
    not normalised.

    Attributes:
      blocks: attention blocks, the first over space.
      heads: of each attention.
      width: C.
    """

    blocks: int = 2
    heads: int = 4
    width: int = 256

    @nn.compact
    def __call__(self, arrays):
        motion, embeds = (arrays[name].astype(jnp.float32) for name in ("motion", "image_embeds"))
        batch, clips, frames, h, w, width = motion.shape
        if width != self.width:
            raise ValueError(
                f"MotionFusion has the width {self.width}, but the motion features have {width} channels"
            )
        tower = clip.Tower(
            width, layers=self.blocks, heads=self.heads, mlp=4 * width, hidden_act="gelu"
        )
        x = motion.reshape(batch * clips, frames, h * w, width)  # [BM, F, hw, C]
        for i in range(self.blocks):
            over_time = i % 2 == 1
            x = jnp.swapaxes(x, 1, 2) if over_time else x
            block = clip.Block(
                tower,
                causal=False,
                dtype=jnp.float32,
                name=f"{'inter' if over_time else 'intra'}_{i}",
            )
            x = block(x.reshape(-1, *x.shape[2:])).reshape(x.shape)
            x = jnp.swapaxes(x, 1, 2) if over_time else x
        mean = x.reshape(batch, -1, width).mean(1)  # [B, C]
        temporal = nn.Dense(embeds.shape[-1], name="temporal")(mean)  # [B, D]
        return {
            "image_embeds": nn.Dense(embeds.shape[-1], name="fusion")(
                jnp.concatenate([embeds, temporal], -1)
            )
        }
