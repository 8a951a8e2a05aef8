"""CLIP's two towers, with the parameter paths of Hugging Face's Flax port.

`jaxord.weights.hf_clip` turns a checkpoint's names into these (`pre_layrnorm` with its spelling) by
one rule, and back. Parameters are float32, activations `dtype`; layer norms and softmax are
computed in float32. Initial values are those of the public code: the layers that add to the
residual stream (out_proj, fc2) start smaller by sqrt(2 layers) in both towers.

Radford et al. 2021, "Learning transferable visual models from natural language supervision".

Shapes: N images, K sentences (ranks), T tokens, C width, D embedding, H W image, P patches.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxord.models.norm import LayerNorm

normal = nn.initializers.normal


@dataclasses.dataclass(frozen=True)
class Tower:
    """Sizes of one transformer, as in a checkpoint's `vision_config` or `text_config`."""

    width: int
    layers: int
    heads: int
    mlp: int  # hidden width of the blocks' perceptrons
    hidden_act: str = "quick_gelu"  # OpenAI's weights; LAION's have "gelu", the exact one
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """Everything that decides the shapes and the arithmetic of a CLIP."""

    vision: Tower
    text: Tower
    image_size: int  # pixels, both sides
    patch_size: int
    vocab_size: int
    max_positions: int  # the longest sentence in tokens, with start and end
    projection_dim: int  # D, where image and text meet
    eos_token_id: int

    def __post_init__(self):
        sides = {"vision": self.vision, "text": self.text}
        sizes = {name: size for name, size in vars(self).items() if name not in sides}
        for side, tower in sides.items():
            names = ("width", "layers", "heads", "mlp")
            sizes |= {f"{side} {name}": getattr(tower, name) for name in names}
        may_be_zero = ("eos_token_id", "vision layers", "text layers")
        problems = [
            f"{name} is {size!r}, expected a whole number"
            for name, size in sizes.items()
            if not isinstance(size, int) or size < (name not in may_be_zero)
        ]
        # The sizes must be numbers before they can divide each other.
        problems = problems or list(self._misfits(sides))
        if problems:
            raise ValueError("these CLIP settings cannot be built: " + "; ".join(problems))

    def _misfits(self, sides):
        if self.image_size % self.patch_size:
            size, patch = self.image_size, self.patch_size
            yield f"image_size {size} is not a multiple of patch_size {patch}"
        for side, tower in sides.items():
            if tower.width % tower.heads:
                yield f"{side} width {tower.width} is not a multiple of its {tower.heads} heads"
            if tower.hidden_act not in ACTIVATIONS:
                known = sorted(ACTIVATIONS)
                yield f"{side} hidden_act {tower.hidden_act!r} is unknown, known are {known}"


ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's approximation
    # The exact one; jax's default is the tanh approximation, which no CLIP checkpoint means.
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


class Dense(nn.Dense):
    """nn.Dense over rows: [..., C] -> [..., features].

    XLA's CPU transposes gradients with more than two axes by a copy before it multiplies them.
    """

    def __call__(self, x):
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class _Part(nn.Module):
    """A part of a transformer, [N, T, C] -> [N, T, C]."""

    tower: Tower
    causal: bool
    dtype: jnp.dtype
    attention: str = "xla"  # an implementation of jax.nn.dot_product_attention
    remat: bool = False  # recompute each block in the backward pass


class Attention(_Part):
    """Multi-head self-attention softmax(q kᵀ / sqrt(C / heads)) v."""

    @nn.compact
    def __call__(self, x):
        width, depth = self.tower.width, self.tower.layers

        def dense(name, std):
            return Dense(width, dtype=self.dtype, kernel_init=normal(std), name=name)

        split = (*x.shape[:-1], self.tower.heads, -1)  # [N, T, heads, C / heads]
        names = ("q_proj", "k_proj", "v_proj")
        q, k, v = (dense(name, width**-0.5)(x).reshape(split) for name in names)
        # No mask array: cuDNN's kernels take is_causal, but refuse a mask, which becomes a bias,
        # at odd lengths.
        form = dict(is_causal=self.causal, implementation=self.attention)
        mixed = jax.nn.dot_product_attention(q, k, v, **form).reshape(x.shape)
        return dense("out_proj", width**-0.5 * (2 * depth) ** -0.5)(mixed)


class Mlp(_Part):
    """fc2(act(fc1(x)))."""

    @nn.compact
    def __call__(self, x):
        width, depth = self.tower.width, self.tower.layers
        start, end = normal((2 * width) ** -0.5), normal(width**-0.5 * (2 * depth) ** -0.5)
        x = Dense(self.tower.mlp, dtype=self.dtype, kernel_init=start, name="fc1")(x)
        x = ACTIVATIONS[self.tower.hidden_act](x)
        return Dense(width, dtype=self.dtype, kernel_init=end, name="fc2")(x)


class Block(_Part):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    @nn.compact
    def __call__(self, x):
        form = (self.tower, self.causal, self.dtype, self.attention)
        norms = [
            LayerNorm(self.tower.layer_norm_eps, self.dtype, name=f"layer_norm{i}") for i in (1, 2)
        ]
        x = x + Attention(*form, name="self_attn")(norms[0](x))
        return x + Mlp(*form, name="mlp")(norms[1](x))


class Layers(_Part):
    """The blocks "0", "1", ..."""

    @nn.compact
    def __call__(self, x):
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.tower.layers):
            x = block(self.tower, self.causal, self.dtype, self.attention, name=str(i))(x)
        return x


class Encoder(_Part):
    """The level `encoder` of the paths, which holds only `layers`."""

    @nn.compact
    def __call__(self, x):
        form = (self.tower, self.causal, self.dtype, self.attention, self.remat)
        return Layers(*form, name="layers")(x)


class Patches(nn.Module):
    """A linear map of each patch, row by row: [N, H, W, c] -> [N, P, C].

    A checkpoint's convolution with stride = size, as one product: inside a loop of steps, XLA's CPU
    computes the gradient of such a convolution by a plain loop.
    """

    features: int
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image):
        (n, height, width, channels), p = image.shape, self.patch
        init = normal((3 * channels * p * p) ** -0.5)  # torch's for a convolution
        kernel = self.param("kernel", init, (p, p, channels, self.features)).astype(self.dtype)
        patches = image.astype(self.dtype).reshape(n, height // p, p, width // p, p, channels)
        rows = patches.swapaxes(2, 3).reshape(-1, p * p * channels)
        mapped = rows @ kernel.reshape(-1, self.features)
        return mapped.reshape(n, -1, self.features)


class VisionEmbeddings(nn.Module):
    """The class token and the patches, plus positions: [N, H, W, 3] -> [N, 1 + P, C]."""

    config: ClipSettings
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image):
        width, patch = self.config.vision.width, self.config.patch_size
        init = normal(width**-0.5)
        first = self.param("class_embedding", init, (width,))
        patches = Patches(width, patch, self.dtype, name="patch_embedding")(image)  # [N, P, C]
        first = jnp.broadcast_to(first.astype(self.dtype), (image.shape[0], 1, width))
        x = jnp.concatenate([first, patches], axis=1)  # [N, 1 + P, C]
        form = dict(dtype=self.dtype, embedding_init=init, name="position_embedding")
        count = 1 + (self.config.image_size // patch) ** 2
        return x + nn.Embed(count, width, **form)(jnp.arange(x.shape[1]))


class _ClipTower(nn.Module):
    """Attributes of both towers; `remat` recomputes each block in the backward pass."""

    config: ClipSettings
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention: str = "xla"  # an implementation of jax.nn.dot_product_attention


class VisionModel(_ClipTower):
    """CLIP's image tower; `visual_projection` follows."""

    @nn.compact
    def __call__(self, image):
        """The class token after the last layer norm: f32[N, H, W, 3] -> f32[N, C].

        Images are normalised as the checkpoint's were and have H = W = config.image_size; another
        size is a ValueError.
        """
        size, found = self.config.image_size, list(image.shape)
        if found[1:] != [size, size, 3]:
            expected = f"[N, {size}, {size}, 3]"
            message = f"the image tower was built for {expected} and got {found}: set image_size"
            raise ValueError(message)
        tower, epsilon = self.config.vision, self.config.vision.layer_norm_eps
        x = VisionEmbeddings(self.config, self.dtype, name="embeddings")(image)  # [N, 1 + P, C]
        x = LayerNorm(epsilon, self.dtype, name="pre_layrnorm")(x)
        x = Encoder(tower, False, self.dtype, self.attention, self.remat, name="encoder")(x)
        return LayerNorm(epsilon, jnp.float32, name="post_layernorm")(x[:, 0])  # [N, C]


class TextEmbeddings(nn.Module):
    """The tables of tokens and positions, which the tower adds after a prompt changed the rows."""

    config: ClipSettings

    def setup(self):
        width, positions = self.config.text.width, self.config.max_positions
        self.token_embedding = nn.Embed(self.config.vocab_size, width, embedding_init=normal(0.02))
        self.position_embedding = nn.Embed(positions, width, embedding_init=normal(0.01))


class TextModel(_ClipTower):
    """CLIP's text tower in two steps, between which a prompt can change the token embeddings.

    `text_projection` follows.
    """

    def setup(self):
        tower = self.config.text
        self.embeddings = TextEmbeddings(self.config)
        self.encoder = Encoder(tower, True, self.dtype, self.attention, self.remat)
        self.final_layer_norm = LayerNorm(tower.layer_norm_eps, jnp.float32)

    def embed(self, tokens):
        """Token embeddings without positions: i32[K, T] -> f32[K, T, C]."""
        return self.embeddings.token_embedding(tokens)

    def __call__(self, embeddings, end):
        """The state at `end` after the last layer norm: f32[K, T, C], i32[K] -> f32[K, C].

        `end` is the position of each sentence's end token. The attention is causal, so nothing
        behind it matters and sentences may be cut there. T above config.max_positions is a
        ValueError.
        """
        length, limit = embeddings.shape[1], self.config.max_positions
        if length > limit:
            raise ValueError(
                f"a prompt has {length} tokens, the text tower takes {limit}: shorten the template"
            )
        x = embeddings + self.embeddings.position_embedding(jnp.arange(length))  # [K, T, C]
        x = self.encoder(x.astype(self.dtype))
        return self.final_layer_norm(x[jnp.arange(x.shape[0]), end])  # [K, C]


def projection(features, dtype=jnp.float32):
    """`visual_projection` or `text_projection`: a linear map without bias, [N, C] -> [N, D]."""
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")  # standard deviation C^-1/2
    return nn.Dense(features, use_bias=False, dtype=dtype, kernel_init=init)
