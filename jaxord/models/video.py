"""Video: SlowFast's Fast pathway, and the head that joins its motion to the frames' features.

The frames of a video are views of the image tower. The Fast pathway is frozen: its features are
extracted once (`jaxord.data.video`), and the head `MotionFusion` learns from them.

Shapes: B batch, M clips of a video, N clips, F frames of a clip, H W image, h w map, C width, D
  embedding.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxord.models import clip


class FrozenNorm(nn.Module):
    """scale (x - mean) / sqrt(var + 1e-5) + bias with fixed statistics ("stats"): [..., C]."""

    @nn.compact
    def __call__(self, x):
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("stats", "mean", jnp.zeros, width).value
        var = self.variable("stats", "var", jnp.ones, width).value
        return (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias


def convolution(x, features, size, stride=1, names=("conv", "norm")):
    """3-D convolution without bias, padded by size // 2 at each end ("SAME" is not), and norm."""
    padding = [(length // 2, length // 2) for length in size]
    form = dict(strides=(1, stride, stride), padding=padding, use_bias=False)
    return FrozenNorm(name=names[1])(nn.Conv(features, size, name=names[0], **form)(x))


class Stem(nn.Module):
    """5 x 7 x 7 convolution, 1 x 3 x 3 maximum: [N, F, H, W, 3] -> [N, F, H / 4, W / 4, width]."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(convolution(x, self.width, (5, 7, 7), 2))
        return nn.max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))


class Branch(nn.Module):
    """Convolutions over time, space and channels: [N, F, h, w, C] -> [..., 4 inner]."""

    inner: int
    stride: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(convolution(x, self.inner, (3, 1, 1), names=("conv_a", "norm_a")))
        x = nn.relu(convolution(x, self.inner, (1, 3, 3), self.stride, ("conv_b", "norm_b")))
        return convolution(x, 4 * self.inner, (1, 1, 1), names=("conv_c", "norm_c"))


class Bottleneck(nn.Module):
    """ReLU(shortcut + branch); the first of a stage has a convolution as its shortcut."""

    inner: int
    stride: int
    first: bool

    @nn.compact
    def __call__(self, x):
        branch = Branch(self.inner, self.stride, name="branch2")(x)
        if self.first:
            names = ("branch1_conv", "branch1_norm")
            x = convolution(x, 4 * self.inner, (1, 1, 1), self.stride, names)
        return nn.relu(x + branch)


class Stage(nn.Module):
    """Bottlenecks, the first of them with the stride."""

    inner: int
    stride: int
    depth: int

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = Bottleneck(self.inner, stride, i == 0, name=f"res_blocks_{i}")(x)
        return x


class FastPathway(nn.Module):
    """SlowFast's Fast pathway, frozen: f32[N, F, H, W, 3] -> f32[N, F, H / 32, W / 32, 32 width].

    A ResNet over all frames, no stride in time, stages of 32, 64, 128 and 256 channels; R50 8x8
    sees 32 normalised frames of 224 x 224 pixels. Parameters have the names of pytorchvideo's
    `slowfast_r50`, statistics are in "stats".

    Feichtenhofer et al. 2019, "SlowFast networks for video recognition", Table 1.
    """

    width: int = 8  # channels of the stem
    depths: tuple = (3, 4, 6, 3)  # bottlenecks of each stage

    @nn.compact
    def __call__(self, video):
        x = Stem(self.width, name="blocks_0")(video)
        for i, depth in enumerate(self.depths):
            x = Stage(self.width * 2**i, 1 if i == 0 else 2, depth, name=f"blocks_{i + 1}")(x)
        return x


class MotionFusion(nn.Module):
    """image_embeds <- W [z_s; z_t] + b: the frames' mean z_s and the motion z_t (ConOrd Figure 7).

    z_t = W' mean(attention(motion)) + b': pre-norm transformer blocks over each clip by itself,
    alternating over the places of a frame (intra-frame) and the frames at a place (inter-frame),
    then the mean over clips, frames and places. The paper gives no depth, width or fusion: these
    are our choices. Without position embeddings the order of clips and frames does not matter.

    Takes `motion` f32[B, M, F, h, w, C] and `image_embeds` f32[B, D]; gives f32[B, D], not
    normalised.
    """

    # For exports, see jaxord.models.heads; the README shows no line, as the input is no photograph.
    reads = ("image_embeds", "motion")
    writes = ("image_embeds",)

    blocks: int = 2  # of attention, the first over space
    heads: int = 4
    width: int = 256  # C

    @nn.compact
    def __call__(self, arrays):
        motion, embeds = (arrays[name].astype(jnp.float32) for name in ("motion", "image_embeds"))
        batch, clips, frames, h, w, width = motion.shape
        if width != self.width:
            raise ValueError(
                f"MotionFusion has the width {self.width}, but the motion features have {width} "
                "channels"
            )
        tower = clip.Tower(width, self.blocks, self.heads, mlp=4 * width, hidden_act="gelu")
        x = motion.reshape(batch * clips, frames, h * w, width)  # [BM, F, hw, C]
        for i in range(self.blocks):
            over_time = i % 2 == 1
            x = jnp.swapaxes(x, 1, 2) if over_time else x
            name = f"{'inter' if over_time else 'intra'}_{i}"
            block = clip.Block(tower, causal=False, dtype=jnp.float32, name=name)
            # Attention joins the rows of the next to last axis only.
            x = block(x.reshape(-1, *x.shape[2:])).reshape(x.shape)
            x = jnp.swapaxes(x, 1, 2) if over_time else x
        mean = x.reshape(batch, -1, width).mean(1)  # [B, C]
        temporal = nn.Dense(embeds.shape[-1], name="temporal")(mean)  # [B, D]
        both = jnp.concatenate([embeds, temporal], -1)
        return {"image_embeds": nn.Dense(embeds.shape[-1], name="fusion")(both)}
