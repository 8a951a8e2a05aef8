"""The model: towers, prompt and heads, from a batch to a dict of named arrays.

Outputs (B batch, K ranks, D embedding, C width):
  image_features f32[B, C]   what the image tower gave, mean over the views
  image_embeds   f32[B, D]   its projection, mean over the views; heads may replace it
  text_embeds    f32[K, D]   with a prompt: projected features of the rank sentences
  logit_scale    f32[]       with a prompt: the logarithm of the scale
and what the heads add: logits f32[B, K], value f32[B], ...

Embeddings are not normalised here: whoever compares them normalises them.
"""

import functools
import math

import jax.numpy as jnp
from flax import linen as nn

from jaxord.binding import lookup
from jaxord.models import clip, heads, prompts
from jaxord.ranks import CONTEXT, RANK


class OrdinalModel(nn.Module):
    """Image tower, text tower under a prompt (or none), heads.

    Attributes:
      settings: sizes of the towers.
      prompt: a module of jaxord.models.prompts, or None for no text tower.
      heads: (name, function that makes the module), in order; the name begins the paths of its parameters.
      logit_scale: exp of it multiplies cosines, at the start.
      dtype: of activations; parameters are float32.
      remat: recompute each block in the backward pass.
    """

    settings: clip.ClipSettings
    prompt: nn.Module | None
    heads: tuple
    logit_scale: float = 100.0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self):
        s = self.settings
        self.vision_model = clip.VisionModel(s, dtype=self.dtype, remat=self.remat)
        self.visual_projection = clip.projection(s.projection_dim, self.dtype)
        if self.prompt is not None:
            self.text_model = clip.TextModel(s, dtype=self.dtype, remat=self.remat)
            self.text_projection = clip.projection(s.projection_dim, self.dtype)
            self.scale = self.param("logit_scale", nn.initializers.constant(math.log(self.logit_scale)), ())

        for name, make in self.heads:
            setattr(self, name, make())

    def text(self, prompt_tokens, prompt_slots, prompt_end):
        """Features of the rank sentences: f32[K, D]."""
        words = self.prompt(self.text_model.embed(prompt_tokens), prompt_slots)  # [K, T, C]
        return self.text_projection(self.text_model(words, prompt_end)).astype(jnp.float32)

    def __call__(self, arrays):
        """Outputs for a batch.

        Args:
          arrays: image f32[B, V, H, W, 3], the constants of the run, and what heads take. With `text_embeds` among
            them the text tower does not run.

        Returns:
          dict of outputs, see the module's docstring.
        """
        image = arrays["image"]
        batch, views = image.shape[:2]
        features = self.vision_model(image.reshape(batch * views, *image.shape[2:]))
        embeds = self.visual_projection(features)

        def mean_over_views(x):
            return x.astype(jnp.float32).reshape(batch, views, -1).mean(1)

        outputs = {"image_features": mean_over_views(features), "image_embeds": mean_over_views(embeds)}
        if self.prompt is not None:
            text = arrays.get("text_embeds")
            if text is None:
                text = self.text(*(arrays[name] for name in ("prompt_tokens", "prompt_slots", "prompt_end")))
            outputs |= {"text_embeds": text, "logit_scale": self.scale}
        for name, _ in self.heads:
            outputs |= getattr(self, name)({**arrays, **outputs})
        return outputs


def build(config, settings, dtype, prompt_slots=None):
    """The model a config describes.

    Args:
      config: a whole config.
      settings: sizes of the towers.
      dtype: of activations.
      prompt_slots: i32[K, T] of the run's sentences; None builds no text tower.
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
    made = tuple((snake(entry["name"]), functools.partial(lookup(heads, entry["name"]), **settings_of(entry)))
                 for entry in config.heads)
    return OrdinalModel(settings, prompt, made, config.model.logit_scale, dtype, config.model.remat)


def settings_of(entry):
    return {key: value for key, value in entry.items() if key != "name"}


def snake(name):
    """CosineLogits -> cosine_logits: the first part of a head's parameter paths."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
