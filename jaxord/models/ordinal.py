"""The model: towers, prompt and heads, from a batch to a dict of named arrays.

Outputs (B batch, V views, K ranks, T tokens, D embedding, C width):
  image_features f32[B, C]   of the image tower, mean over the views
  image_embeds   f32[B, D]   their projection, if there is one; heads may replace it
  text_embeds    f32[K, D]   with a prompt: projected features of the rank sentences
  logit_scale    f32[]       with a prompt: the logarithm of the scale
and those of the heads: logits f32[B, K], value f32[B], ...

Embeddings are not normalised here: the loss or rule that compares them normalises them.
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

    `tower` and each of `heads` are (first part of the parameter paths, function that makes the
    module). The image tower maps f32[N, H, W, 3] -> f32[N, C], or for sentences (i32[B, 2, T],
    bool[B, 2, T]) -> f32[B, C].
    """

    tower: tuple
    settings: clip.ClipSettings | None  # None without a tower of CLIP
    project: bool  # whether `visual_projection` takes the features to CLIP's space
    prompt: nn.Module | None  # None: no text tower
    heads: tuple
    logit_scale: float = 100.0  # exp of the parameter at the start, which multiplies cosines
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention: str = "xla"  # of the text tower; the image tower has its own

    def setup(self):
        name, make = self.tower
        setattr(self, name, make())
        if self.project:
            self.visual_projection = clip.projection(self.settings.projection_dim, self.dtype)
        if self.prompt is not None:
            self.text_model = clip.TextModel(self.settings, self.dtype, self.remat, self.attention)
            self.text_projection = clip.projection(self.settings.projection_dim, self.dtype)
            start = nn.initializers.constant(math.log(self.logit_scale))
            self.scale = self.param("logit_scale", start, ())
        for name, make in self.heads:
            setattr(self, name, make())

    def text(self, arrays):
        """Features of the rank sentences: f32[K, D]."""
        embed, base = self.text_model.embed, arrays.get("prompt_base")
        base = embed(base) if base is not None else None  # [S, n, C]
        words = embed(arrays["prompt_tokens"])
        words = self.prompt(words, arrays["prompt_slots"], base)  # [K, T, C]
        features = self.text_model(words, arrays["prompt_end"])
        return self.text_projection(features).astype(jnp.float32)

    def features(self, arrays):
        """Features of the image tower, mean over the views: f32[B, C]."""
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
        """Outputs for a batch, see the module's docstring.

        `arrays` holds image f32[B, V, H, W, 3] (or sentences and sentence_mask), the constants of
        the run, and the arrays that heads take. `text_embeds` among them replaces the text tower,
        `image_features` the image tower.
        """
        features = self.features(arrays)
        embeds = self.visual_projection(features).astype(jnp.float32) if self.project else features
        outputs = {"image_features": features, "image_embeds": embeds}
        if self.prompt is not None:
            text = arrays.get("text_embeds")
            outputs["text_embeds"] = self.text(arrays) if text is None else text
            outputs["logit_scale"] = self.scale
        for name, _ in self.heads:
            outputs |= getattr(self, name)({**arrays, **outputs})
        return outputs


def image_tower(config, settings, dtype, vectors, attention):
    """(name, function that makes the module) of the tower that config.model.image_tower names."""
    name, remat = config.model.image_tower, config.model.remat
    vision = dict(config=settings, remat=remat, attention=attention)
    vocabulary, dim = vectors
    words = dict(vocabulary=vocabulary, dim=dim, **config.model.sentence)
    towers = {
        "": ("vision_model", clip.VisionModel, vision),
        "ResNet-18": ("resnet", resnet.ResNet, dict(depth=18, remat=remat)),
        "ResNet-50": ("resnet", resnet.ResNet, dict(depth=50, remat=remat)),
        "VGG-16": ("vgg", vgg.VGG, dict(remat=remat)),
        "BiLSTM": ("sentence", sentence.BiLSTM, words),
    }
    if name not in towers:
        raise ValueError(
            f"model.image_tower is {name!r}; it takes one of {sorted(towers)}, '' is CLIP's own"
        )
    # A function: the module gets its name from the attribute that `setup` assigns it to.
    path, module, form = towers[name]
    return path, functools.partial(module, dtype=dtype, **form)


def build(config, settings, dtype, prompt_slots=None, vectors=(0, 0), attention=("xla", "xla")):
    """The OrdinalModel that a config describes.

    Args:
      config: a whole config.
      settings: sizes of CLIP's towers, None where neither is used.
      dtype: of activations.
      prompt_slots: i32[K, T] of the run's sentences; None builds no text tower.
      vectors: shape of the table of word vectors, for a data set of sentences.
      attention: implementations in (image tower, text tower), from task.attentions.
    """
    m, prompt = config.model, None
    if prompt_slots is not None:
        prompt = _prompt(config.prompt, prompt_slots)
    modules = []
    for entry in config.heads:
        make = functools.partial(lookup(heads, entry["name"]), **settings_of(entry))
        modules.append((snake(entry["name"]), make))
    tower = image_tower(config, settings, dtype, vectors, attention[0])
    project = not m.image_tower or prompt is not None
    shared = (m.logit_scale, dtype, m.remat, attention[1])
    return OrdinalModel(tower, settings, project, prompt, tuple(modules), *shared)


def _prompt(config, slots):
    """The prompt module of `config.prompt` for sentences with these slots, i32[K, T]."""
    counts = {kind: int((slots == kind).sum(1).max()) for kind in (CONTEXT, RANK)}
    prompt = lookup(prompts, config.name)(
        context_tokens=counts[CONTEXT],
        rank_tokens=counts[RANK],
        drawn_context=config.context_tokens > 0,
        drawn_ranks=config.rank_tokens > 0,
        **config.settings,
    )
    if isinstance(prompt, prompts.ContextPrompt) and not counts[CONTEXT]:
        raise ValueError(
            f"{config.name} learns a context, but prompt.template {config.template!r} has no "
            "words; set prompt.context_tokens"
        )
    return prompt


def settings_of(entry):
    """The settings of a head's entry in the config."""
    return {key: value for key, value in entry.items() if key != "name"}


def snake(name):
    """CosineLogits -> cosine_logits: the first part of a head's parameter paths."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
