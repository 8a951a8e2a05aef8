"""The parameters and statistics that a stage starts from: inherited, pretrained, or drawn from the
seed."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import trees
from jaxord.weights import glove, hf_clip, torchvision


def variables(config, model, constants, records, vectors=None, start=None):
    """All parameters and statistics, flat: of the stage before, pretrained where there are weights,
    the rest drawn.

    Prompts start from word embeddings, so the towers are loaded first and what is missing is
    initialised around them.

    Args:
      config: of one stage.
      model: the linen module.
      constants: of the run.
      records: of the training split; its `inputs` have the shapes that the model takes.
      vectors: from `word_vectors`; for sentences.
      start: {"params": flat, "stats": flat} of the stage before, or None.

    Returns:
      {"params": {path: numpy array}, "stats": {path: numpy array}}.

    Raises:
      ValueError: a parameter that the stage before does not have and that config.fresh does not
        name.
    """
    key = jax.random.fold_in(
        jax.random.key(config.seed), 0x1A17
    )  # apart from the stream of augmentation
    size = config.data.image_size
    inputs = {
        name: array for name, array in records.inputs.items() if name not in ("frames", "size")
    }
    arrays = {
        name: jnp.zeros((1, *array.shape[1:]), array.dtype) for name, array in inputs.items()
    } | constants
    if records.read is not None or "frames" in records.inputs:
        arrays["image"] = jnp.zeros((1, 1, size, size, 3))

    shapes = jax.eval_shape(functools.partial(model.init, key), arrays)
    shapes = {name: trees.flatten(shapes.get(name, {})) for name in ("params", "stats")}
    loaded = inherited(config, shapes, start) if start else pretrained(config, shapes, vectors)
    # The key is an argument, so that runs that differ in the seed share one compiled program.
    fast = {
        "xla_backend_optimization_level": 0
    }  # each runs once: half the compile time counts for more than speed
    if shapes["stats"]:
        fresh = jax.jit(
            lambda key, arrays: model.init(key, arrays)["stats"], compiler_options=fast
        )(key, arrays)
        loaded["stats"] = {**trees.flatten(fresh), **loaded["stats"]}

    def fill(loaded, key):
        return model.apply(loaded, arrays, rngs={"params": key}, mutable=["params"])[1]["params"]

    if set(loaded["params"]) < set(shapes["params"]):
        drawn = jax.jit(fill, compiler_options=fast)(trees.nested(loaded), key)
        loaded["params"] = trees.flatten(drawn)
    return jax.tree.map(np.asarray, loaded)


def pretrained(config, shapes, vectors):
    """What the config's weights files give: {"params": flat, "stats": flat}."""
    m, found = config.model, {"params": {}, "stats": {}}
    if m.weights:
        parts = [part for part in hf_clip.PARTS if part != "vision_model" or not m.image_tower]
        parts = [part for part in parts if part != "visual_projection" or not m.image_tower]
        wanted = {
            path: shape for path, shape in shapes["params"].items() if path.split("/")[0] in parts
        }
        found["params"] |= hf_clip.load(m.weights, wanted) if wanted else {}
    if m.image_weights:
        (prefix,) = {path.split("/")[0] for path in shapes["params"]} & {"resnet", "vgg"}
        wanted = {
            name: {path: shape for path, shape in flat.items() if path.startswith(f"{prefix}/")}
            for name, flat in shapes.items()
        }
        both = {
            path.removeprefix(f"{prefix}/"): shape
            for flat in wanted.values()
            for path, shape in flat.items()
        }
        read = torchvision.load(m.image_weights, both)
        for name, flat in wanted.items():
            found[name] |= {path: read[path.removeprefix(f"{prefix}/")] for path in flat}
    if m.vectors:
        found["params"]["sentence/embedding"] = vectors
    return found


def word_vectors(config, vocabulary):
    """The table f32[words, size] that a tower of sentences starts from; without a file only its
    shape means something."""
    path = config.model.vectors
    if not path:
        return np.zeros((len(vocabulary), config.model.vector_size), np.float32)
    inside = os.path.join(config.data.root, path)
    return glove.vectors(inside if os.path.isfile(inside) else path, vocabulary, config.seed)


def inherited(config, shapes, start):
    """What a stage takes over from the one before."""
    fresh = re.compile(config.fresh)
    found = {
        name: {
            path: start[name][path]
            for path in shapes[name]
            if path in start[name] and not fresh.fullmatch(path)
        }
        for name in ("params", "stats")
    }
    missing = [
        path
        for path in shapes["params"]
        if path not in found["params"] and not fresh.fullmatch(path)
    ]
    if missing:
        raise ValueError(
            f"the stage before has no {missing}; parameters that begin anew are named by the stage's `fresh`"
        )
    return found


def check_scratch(config, groups):
    """A tower that starts at random and is never trained is a mistake."""
    sources = {
        "resnet": config.model.image_weights,
        "vgg": config.model.image_weights,
        "sentence": config.model.vectors,
    }
    frozen = {path.split("/")[0] for path, group in groups.items() if group == "frozen"}
    random = sorted(tower for tower in frozen if not sources.get(tower, config.model.weights))
    if random:
        raise ValueError(
            f"{config.method} keeps {random} frozen, which without weights would stay random; give model.weights (or "
            "model.image_weights), or start everything from scratch with the config argument 'backbone=tiny'"
        )
