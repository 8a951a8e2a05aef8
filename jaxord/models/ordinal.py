"""The model: towers, prompt and heads, from a batch to a dict of named arrays.

Outputs (B batch, K ranks, D embedding, C width):
  image_features f32[B, C]   what the image tower gave, mean over the views
  image_embeds   f32[B, D]   its projection, where there is one; heads may replace it
  text_embeds    f32[K, D]   with a prompt: projected features of the rank sentences
  logit_scale    f32[]       with a prompt: the logarithm of the scale
and what the heads add: logits f32[B, K], value f32[B], ...

Embeddings are not normalised here: whoever compares them normalises them.
"""

import functools
import math
import re

import jax.numpy as jnp
from flax import linen as nn

from jaxord.binding import lookup
from jaxord.models import clip, heads, prompts, resnet, sentence, vgg
from jaxord.models.tokens import CONTEXT, RANK


class OrdinalModel(nn.Module):
    """Image tower, text tower under a prompt (or none), heads.

    Attributes:
      tower: (name, function that makes the module) of the image tower: f32[N, H, W, 3] -> f32[N,
        C], or for sentences (i32[B, 2, T], bool[B, 2, T]) -> f32[B, C]; the name begins the paths
        of its parameters.
      settings: sizes of CLIP's towers; None where neither is used.
      project: whether `visual_projection` takes the features to CLIP's space.
      prompt: a module of jaxord.models.prompts, or None for no text tower.
      heads: (name, function that makes the module), in order; as for the tower.
      logit_scale: exp of it multiplies cosines, at the start.
      dtype: of activations; parameters are float32.
      remat: recompute each block in the backward pass.
      attention: implementation in the text tower, one of jaxord.runtime.attention.IMPLEMENTATIONS; the
        image tower has its own.
    """

    tower: tuple
    settings: clip.ClipSettings | None
    project: bool
    prompt: nn.Module | None
    heads: tuple
    logit_scale: float = 100.0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention: str = "xla"

    def setup(self):
        s = self.settings
        setattr(self, self.tower[0], self.tower[1]())
        if self.project:
            self.visual_projection = clip.projection(s.projection_dim, self.dtype)
        if self.prompt is not None:
            self.text_model = clip.TextModel(
                s, dtype=self.dtype, remat=self.remat, attention=self.attention
            )
            self.text_projection = clip.projection(s.projection_dim, self.dtype)
            self.scale = self.param(
                "logit_scale", nn.initializers.constant(math.log(self.logit_scale)), ()
            )

        for name, make in self.heads:
            setattr(self, name, make())

    def text(self, arrays):
        """Features of the rank sentences: f32[K, D]."""
        embed, base = self.text_model.embed, arrays.get("prompt_base")
        base = embed(base) if base is not None else None  # [S, n, C]
        words = self.prompt(
            embed(arrays["prompt_tokens"]), arrays["prompt_slots"], base
        )  # [K, T, C]
        return self.text_projection(self.text_model(words, arrays["prompt_end"])).astype(
            jnp.float32
        )

    def features(self, arrays):
        """What the image tower makes of an example, mean over its views: f32[B, C]."""
        if "image_features" in arrays:  # computed before
            return arrays["image_features"]
        tower = getattr(self, self.tower[0])
        if "image" not in arrays:
            return tower(arrays["sentences"], arrays["sentence_mask"]).astype(jnp.float32)
        image = arrays["image"]
        batch, views = image.shape[:2]
        features = tower(image.reshape(batch * views, *image.shape[2:]))
        return features.astype(jnp.float32).reshape(batch, views, -1).mean(1)

    def __call__(self, arrays):
        """Outputs for a batch.

        Args:
          arrays: image f32[B, V, H, W, 3] (or sentences and sentence_mask), the constants of the
            run, and what heads take. With `text_embeds` among them the text tower does not run,
            with `image_features` the image tower.

        Returns:
          dict of outputs, see the module's docstring.
        """
        features = self.features(arrays)
        embeds = self.visual_projection(features).astype(jnp.float32) if self.project else features
        outputs = {"image_features": features, "image_embeds": embeds}
        if self.prompt is not None:
            text = arrays.get("text_embeds")
            outputs |= {
                "text_embeds": self.text(arrays) if text is None else text,
                "logit_scale": self.scale,
            }
        for name, _ in self.heads:
            outputs |= getattr(self, name)({**arrays, **outputs})
        return outputs


def image_tower(config, settings, dtype, vectors, attention):
    """(name, function that makes the module) of the tower that config.model.image_tower names."""
    name, remat = config.model.image_tower, config.model.remat
    towers = {
        "": (
            "vision_model",
            functools.partial(
                clip.VisionModel, settings, dtype=dtype, remat=remat, attention=attention
            ),
        ),
        "ResNet-18": (
            "resnet",
            functools.partial(resnet.ResNet, depth=18, dtype=dtype, remat=remat),
        ),
        "ResNet-50": (
            "resnet",
            functools.partial(resnet.ResNet, depth=50, dtype=dtype, remat=remat),
        ),
        "VGG-16": ("vgg", functools.partial(vgg.VGG, dtype=dtype)),
        "BiLSTM": (
            "sentence",
            functools.partial(sentence.BiLSTM, *vectors, dtype=dtype, **config.model.sentence),
        ),
    }
    if name not in towers:
        raise ValueError(
            f"model.image_tower is {name!r}; it takes one of {sorted(towers)}, '' is CLIP's own"
        )
    return towers[name]


def build(config, settings, dtype, prompt_slots=None, vectors=(0, 0), attention=("xla", "xla")):
    """The model a config describes.

    Args:
      config: a whole config.
      settings: sizes of CLIP's towers, None where neither is used.
      dtype: of activations.
      prompt_slots: i32[K, T] of the run's sentences; None builds no text tower.
      vectors: shape of the table of word vectors, for a data set of sentences.
      attention: implementations in (image tower, text tower), from task.attentions.
    """
    prompt = None
    if prompt_slots is not None:
        counts = {kind: int((prompt_slots == kind).sum(1).max()) for kind in (CONTEXT, RANK)}
        prompt = lookup(prompts, config.prompt.name)(
            context_tokens=counts[CONTEXT],
            rank_tokens=counts[RANK],
            drawn_context=config.prompt.context_tokens > 0,
            drawn_ranks=config.prompt.rank_tokens > 0,
            **config.prompt.settings,
        )
        if isinstance(prompt, prompts.ContextPrompt) and not counts[CONTEXT]:
            raise ValueError(
                f"{config.prompt.name} learns a context, but prompt.template {config.prompt.template!r} has no words; "
                "set prompt.context_tokens"
            )
    made = tuple(
        (
            snake(entry["name"]),
            functools.partial(lookup(heads, entry["name"]), **settings_of(entry)),
        )
        for entry in config.heads
    )
    tower = image_tower(config, settings, dtype, vectors, attention[0])
    project = not config.model.image_tower or prompt is not None
    m = config.model
    return OrdinalModel(
        tower, settings, project, prompt, made, m.logit_scale, dtype, m.remat, attention[1]
    )


def settings_of(entry):
    return {key: value for key, value in entry.items() if key != "name"}


def snake(name):
    """CosineLogits -> cosine_logits: the first part of a head's parameter paths."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
