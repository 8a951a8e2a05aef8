"""The parameters and statistics that a stage starts from: inherited, pretrained or drawn."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import trees
from jaxord.weights import glove, hf_clip, torchvision

# Each program runs once: half the compile time counts for more than its speed.
FAST = {"xla_backend_optimization_level": 0}


def variables(config, model, constants, records, vectors=None, start=None):
    """All parameters and statistics: of the stage before, else pretrained, else drawn.

    Prompts start from word embeddings, so the towers are loaded first and the missing parameters
    are initialised around them.

    Args:
      config: of one stage.
      model: the linen module.
      constants: of the run.
      records: of the training split; its `inputs` have the shapes that the model takes.
      vectors: from `word_vectors`; for sentences.
      start: {"params": flat, "stats": flat} of the stage before, or None.

    Returns:
      {"params": {path: numpy array}, "stats": {path: numpy array}}.
    """
    # Folded in, so that the stream differs from that of augmentation.
    key = jax.random.fold_in(jax.random.key(config.seed), 0x1A17)
    arrays = {
        name: jnp.zeros((1, *array.shape[1:]), array.dtype)
        for name, array in records.inputs.items()
        if name not in ("frames", "size")
    }
    arrays |= constants
    if records.read is not None or "frames" in records.inputs:
        size = config.data.image_size
        arrays["image"] = jnp.zeros((1, 1, size, size, 3))

    shapes = jax.eval_shape(functools.partial(model.init, key), arrays)
    shapes = {name: trees.flatten(shapes.get(name, {})) for name in ("params", "stats")}
    loaded = inherited(config, shapes, start) if start else pretrained(config, shapes, vectors)

    # The key is an argument, so that runs that differ in the seed share one compiled program.
    def statistics(key, arrays):
        return model.init(key, arrays)["stats"]

    def fill(loaded, key):
        return model.apply(loaded, arrays, rngs={"params": key}, mutable=["params"])[1]["params"]

    if shapes["stats"]:
        drawn = jax.jit(statistics, compiler_options=FAST)(key, arrays)
        loaded["stats"] = {**trees.flatten(drawn), **loaded["stats"]}
    if set(loaded["params"]) < set(shapes["params"]):
        drawn = jax.jit(fill, compiler_options=FAST)(trees.nested(loaded), key)
        loaded["params"] = trees.flatten(drawn)
    return jax.tree.map(np.asarray, loaded)


def pretrained(config, shapes, vectors):
    """The arrays of the config's weights files: {"params": flat, "stats": flat}."""
    m, loaded = config.model, {"params": {}, "stats": {}}
    if m.weights:
        # Another image tower replaces CLIP's and its projection.
        replaced = {"vision_model", "visual_projection"} if m.image_tower else set()
        parts = set(hf_clip.PARTS) - replaced
        wanted = {path: x for path, x in shapes["params"].items() if path.split("/")[0] in parts}
        loaded["params"] |= hf_clip.load(m.weights, wanted) if wanted else {}
    if m.image_weights:
        (tower,) = {path.split("/")[0] for path in shapes["params"]} & {"resnet", "vgg"}
        wanted = {path: x for flat in shapes.values() for path, x in flat.items()}
        wanted = {path: x for path, x in wanted.items() if path.startswith(f"{tower}/")}
        short = {path: path.removeprefix(f"{tower}/") for path in wanted}
        arrays = torchvision.load(m.image_weights, {short[path]: wanted[path] for path in wanted})
        for name, flat in shapes.items():
            loaded[name] |= {path: arrays[short[path]] for path in flat if path in short}
    if m.vectors:
        loaded["params"]["sentence/embedding"] = vectors
    return loaded


def word_vectors(config, vocabulary):
    """The table f32[words, size] that a tower of sentences starts from; zeros without a file."""
    path = config.model.vectors
    if not path:
        return np.zeros((len(vocabulary), config.model.vector_size), np.float32)
    inside = os.path.join(config.data.root, path)
    return glove.vectors(inside if os.path.isfile(inside) else path, vocabulary, config.seed)


def inherited(config, shapes, start):
    """The arrays that a stage takes over from the one before.

    A parameter that neither the stage before nor config.fresh has is a ValueError.
    """
    fresh = re.compile(config.fresh)
    kept = {name: [p for p in flat if not fresh.fullmatch(p)] for name, flat in shapes.items()}
    missing = [path for path in kept["params"] if path not in start["params"]]
    if missing:
        raise ValueError(
            f"the stage before has no {missing}; parameters that begin anew are named by the "
            "stage's `fresh`"
        )
    return {
        name: {path: start[name][path] for path in paths if path in start[name]}
        for name, paths in kept.items()
    }


def check_scratch(config, groups):
    """Refuses a tower that would start at random and never be trained."""
    m = config.model
    sources = {"resnet": m.image_weights, "vgg": m.image_weights, "sentence": m.vectors}
    frozen = {path.split("/")[0] for path, group in groups.items() if group == "frozen"}
    random = sorted(tower for tower in frozen if not sources.get(tower, m.weights))
    if random:
        raise ValueError(
            f"{config.method} keeps {random} frozen, which without weights would stay random; give "
            "model.weights (or model.image_weights), or start everything from scratch with the "
            "config argument 'backbone=tiny'"
        )
