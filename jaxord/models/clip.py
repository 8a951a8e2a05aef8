"""CLIP's two towers, with the parameter paths of Hugging Face's Flax port.

`vision_model/encoder/layers/0/self_attn/q_proj/kernel`, `text_model/final_layer_norm/scale`, and
`pre_layrnorm` with its spelling: so `jaxord.weights.hf_clip` turns a checkpoint's names into these
by one rule, and back. The model that holds the towers gives them the names `vision_model` and
`text_model`, beside `visual_projection`, `text_projection` and `logit_scale`. Parameters are
float32, activations `dtype`; layer norms and softmax are computed in float32.

Radford et al. 2021, "Learning transferable visual models from natural language supervision".
Initial values are those of its public code: what a block adds to the residual stream (out_proj,
fc2) starts smaller by sqrt(2 layers), in the image tower as in the text tower. transformers puts
that factor on q, k and v instead of out_proj.

Shapes: N images, K sentences (ranks), T tokens, C width, H W image, P patches.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxord.models.norm import LayerNorm


@dataclasses.dataclass(frozen=True)
class Tower:
    """One transformer: sizes, activation and epsilon, as in the `vision_config` or `text_config` of
    a checkpoint."""

    width: int
    layers: int
    heads: int
    mlp: int  # hidden width of the blocks' perceptrons
    hidden_act: str = "quick_gelu"  # OpenAI's weights; "gelu" is the exact one, of LAION's
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
        sizes = {
            name: getattr(self, name)
            for name in (
                "image_size",
                "patch_size",
                "vocab_size",
                "max_positions",
                "projection_dim",
                "eos_token_id",
            )
        }
        for side, tower in (("vision", self.vision), ("text", self.text)):
            sizes |= {
                f"{side} {name}": getattr(tower, name)
                for name in ("width", "layers", "heads", "mlp")
            }
        wrong = [
            f"{name} is {size!r}, expected a whole number"
            for name, size in sizes.items()
            if not isinstance(size, int) or size < (not name.endswith(("layers", "eos_token_id")))
        ]
        if wrong:
            raise ValueError("these CLIP settings cannot be built: " + "; ".join(wrong))
        problems = [
            f"{side} width {tower.width} is not a multiple of its {tower.heads} heads"
            for side, tower in (("vision", self.vision), ("text", self.text))
            if tower.width % tower.heads
        ]
        problems += [
            f"{side} hidden_act {tower.hidden_act!r} is unknown, known are {sorted(ACTIVATIONS)}"
            for side, tower in (("vision", self.vision), ("text", self.text))
            if tower.hidden_act not in ACTIVATIONS
        ]
        if self.image_size % self.patch_size:
            problems.append(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if problems:
            raise ValueError("these CLIP settings cannot be built: " + "; ".join(problems))


def quick_gelu(x):
    """x sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x):
    """The exact GELU. jax's own default is the tanh approximation, which no CLIP checkpoint
    means."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


class Dense(nn.Dense):
    """nn.Dense over the rows of [..., C]: gradients with more axes are transposed by a copy before
    XLA's CPU multiplies."""

    def __call__(self, x):
        """x [..., C] -> [..., features]."""
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q kᵀ / sqrt(C / heads)) v; `attention` names jax's
    implementation of it."""

    tower: Tower
    causal: bool
    dtype: jnp.dtype
    attention: str = "xla"

    def setup(self):
        width, depth = self.tower.width, self.tower.layers

        def dense(std):
            return Dense(width, dtype=self.dtype, kernel_init=nn.initializers.normal(std))

        self.q_proj, self.k_proj, self.v_proj = (dense(width**-0.5) for _ in range(3))
        self.out_proj = dense(width**-0.5 * (2 * depth) ** -0.5)

    def __call__(self, x):
        """x [N, T, C] -> [N, T, C]."""
        split = (*x.shape[:-1], self.tower.heads, -1)  # [N, T, heads, C / heads]
        q, k, v = (dense(x).reshape(split) for dense in (self.q_proj, self.k_proj, self.v_proj))
        # Never a mask array: cuDNN's kernels take is_causal, a mask becomes a bias that they refuse
        # for odd lengths.
        mixed = jax.nn.dot_product_attention(
            q, k, v, is_causal=self.causal, implementation=self.attention
        )
        return self.out_proj(mixed.reshape(x.shape))


class Mlp(nn.Module):
    """fc2(act(fc1(x)))."""

    tower: Tower
    dtype: jnp.dtype

    def setup(self):
        width, depth = self.tower.width, self.tower.layers
        normal = nn.initializers.normal
        self.fc1 = Dense(self.tower.mlp, dtype=self.dtype, kernel_init=normal((2 * width) ** -0.5))
        self.fc2 = Dense(
            width, dtype=self.dtype, kernel_init=normal(width**-0.5 * (2 * depth) ** -0.5)
        )

    def __call__(self, x):
        """x [N, T, C] -> [N, T, C]."""
        return self.fc2(ACTIVATIONS[self.tower.hidden_act](self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    tower: Tower
    causal: bool
    dtype: jnp.dtype
    attention: str = "xla"

    def setup(self):
        self.layer_norm1 = LayerNorm(self.tower.layer_norm_eps, self.dtype)
        self.self_attn = Attention(self.tower, self.causal, self.dtype, self.attention)
        self.layer_norm2 = LayerNorm(self.tower.layer_norm_eps, self.dtype)
        self.mlp = Mlp(self.tower, self.dtype)

    def __call__(self, x):
        """x [N, T, C] -> [N, T, C]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):
    """The blocks, named "0", "1", ...; `remat` recomputes each one in the backward pass."""

    tower: Tower
    causal: bool
    dtype: jnp.dtype
    remat: bool
    attention: str

    @nn.compact
    def __call__(self, x):
        """x [N, T, C] -> [N, T, C]."""
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.tower.layers):
            x = block(self.tower, self.causal, self.dtype, self.attention, name=str(i))(x)
        return x


class Encoder(nn.Module):
    """Only the level `encoder/layers` of the paths."""

    tower: Tower
    causal: bool
    dtype: jnp.dtype
    remat: bool
    attention: str

    def setup(self):
        self.layers = Layers(self.tower, self.causal, self.dtype, self.remat, self.attention)

    def __call__(self, x):
        """x [N, T, C] -> [N, T, C]."""
        return self.layers(x)


class Patches(nn.Module):
    """The linear map of each patch of an image: the convolution of a checkpoint, whose stride is
    its size, as one product.

    XLA's CPU multiplies the gradient of such a convolution by a plain loop where it stands in a
    loop of steps.
    """

    features: int
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image):
        """image [N, H, W, c] -> [N, P, C], patches row by row."""
        (n, height, width, channels), p = image.shape, self.patch
        init = nn.initializers.normal(
            (3 * channels * p * p) ** -0.5
        )  # torch's for a convolution: 1 / sqrt(3 fan-in)
        kernel = self.param("kernel", init, (p, p, channels, self.features)).astype(self.dtype)
        patches = (
            image.astype(self.dtype)
            .reshape(n, height // p, p, width // p, p, channels)
            .swapaxes(2, 3)
        )
        mapped = patches.reshape(-1, p * p * channels) @ kernel.reshape(-1, self.features)
        return mapped.reshape(n, -1, self.features)


class VisionEmbeddings(nn.Module):
    """Patches as tokens behind the class token, plus positions."""

    config: ClipSettings
    dtype: jnp.dtype

    def setup(self):
        width, patch = self.config.vision.width, self.config.patch_size
        normal = nn.initializers.normal
        self.class_embedding = self.param("class_embedding", normal(width**-0.5), (width,))
        self.patch_embedding = Patches(width, patch, self.dtype)
        positions = 1 + (self.config.image_size // patch) ** 2
        self.position_embedding = nn.Embed(
            positions, width, dtype=self.dtype, embedding_init=normal(width**-0.5)
        )

    def __call__(self, image):
        """image [N, H, W, 3] -> [N, 1 + P, C]."""
        patches = self.patch_embedding(image)  # [N, P, C]
        first = jnp.broadcast_to(
            self.class_embedding.astype(self.dtype), (image.shape[0], 1, patches.shape[2])
        )
        x = jnp.concatenate([first, patches], axis=1)  # [N, 1 + P, C]
        return x + self.position_embedding(jnp.arange(x.shape[1]))


class VisionModel(nn.Module):
    """CLIP's image tower: image -> the class token after the last layer norm, before
    `visual_projection`.

    Attributes:
      config: sizes.
      dtype: of the activations.
      remat: recompute each block in the backward pass.
      attention: an implementation of jax.nn.dot_product_attention.
    """

    config: ClipSettings
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention: str = "xla"

    def setup(self):
        tower = self.config.vision
        self.embeddings = VisionEmbeddings(self.config, self.dtype)
        self.pre_layrnorm = LayerNorm(tower.layer_norm_eps, self.dtype)
        self.encoder = Encoder(tower, False, self.dtype, self.remat, self.attention)
        self.post_layernorm = LayerNorm(tower.layer_norm_eps, jnp.float32)

    def __call__(self, image):
        """Image features.

        Args:
          image: f32[N, H, W, 3], normalised by the checkpoint's mean and standard deviation; H = W
            = config.image_size.

        Returns:
          f32[N, C].

        Raises:
          ValueError: an image of another size. Positions are resized in the parameters
            (`resize_positions`), not here.
        """
        size = self.config.image_size
        if image.shape[1:] != (size, size, 3):
            found = list(image.shape)
            raise ValueError(
                f"the image tower was built for [N, {size}, {size}, 3] and got {found}: set image_size"
            )
        x = self.encoder(self.pre_layrnorm(self.embeddings(image)))  # [N, 1 + P, C]
        return self.post_layernorm(x[:, 0])  # [N, C]


class TextEmbeddings(nn.Module):
    """The tables of tokens and of positions; added by the tower, because a prompt may replace the
    former's rows."""

    config: ClipSettings

    def setup(self):
        width, normal = self.config.text.width, nn.initializers.normal
        self.token_embedding = nn.Embed(self.config.vocab_size, width, embedding_init=normal(0.02))
        self.position_embedding = nn.Embed(
            self.config.max_positions, width, embedding_init=normal(0.01)
        )


class TextModel(nn.Module):
    """CLIP's text tower in two steps, so that a prompt can change the token embeddings between
    them.

    Attributes:
      config: sizes.
      dtype: of the activations.
      remat: recompute each block in the backward pass.
      attention: an implementation of jax.nn.dot_product_attention.
    """

    config: ClipSettings
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention: str = "xla"

    def setup(self):
        tower = self.config.text
        self.embeddings = TextEmbeddings(self.config)
        self.encoder = Encoder(tower, True, self.dtype, self.remat, self.attention)
        self.final_layer_norm = LayerNorm(tower.layer_norm_eps, jnp.float32)

    def embed(self, tokens):
        """Token embeddings without positions: i32[K, T] -> f32[K, T, C]."""
        return self.embeddings.token_embedding(tokens)

    def __call__(self, embeddings, end):
        """Text features: the state at `end` after the last layer norm, before `text_projection`.

        The attention is causal, so what stands behind `end` changes nothing: sentences may be cut
        to the longest one.

        Args:
          embeddings: f32[K, T, C], from `embed` or from a prompt; T at most config.max_positions.
          end: i32[K], position of each sentence's end token.

        Returns:
          f32[K, C].

        Raises:
          ValueError: sentences longer than the table of positions.
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
    """The linear map without bias that `visual_projection` and `text_projection` are: [N, C] -> [N,
    D]."""
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")  # standard deviation C^-1/2
    return nn.Dense(features, use_bias=False, dtype=dtype, kernel_init=init)


def resize_positions(embedding, grid):
    """Position embeddings of an image tower for another resolution: the class token's stays, the
    grid is interpolated.

    Bicubic with the Catmull-Rom kernel (a = -1/2) and antialiasing: what Pillow does, and torch's
    `interpolate` with antialias=True. Torch without antialias has a = -3/4 and differs.

    Args:
      embedding: f32[1 + n², C], class token first, then the n x n grid row by row.
      grid: patches along each side of the new image.

    Returns:
      f32[1 + grid², C].

    Raises:
      ValueError: the positions behind the first are no square.
    """
    side = round((embedding.shape[0] - 1) ** 0.5)
    if side * side != embedding.shape[0] - 1:
        raise ValueError(
            f"cannot resize {embedding.shape[0]} position embeddings: expected 1 + n² with a square grid"
        )
    if side == grid:
        return embedding
    first, rest = embedding[:1], embedding[1:].reshape(side, side, -1)
    rest = jax.image.resize(rest, (grid, grid, rest.shape[-1]), "cubic")
    return jnp.concatenate([first, rest.reshape(grid * grid, -1)])
