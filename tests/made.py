"""Runs with random parameters, as if trained, without training: for what is made of a finished
run."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from configs import folder
from jaxord import trees
from jaxord.models import ordinal, variants
from jaxord.predict import trained_model
from jaxord.targets import labels, ranks
from jaxord.task import prompt_constants
from jaxord.trees import nested
from jaxord.workdir import run_config

TINY = dataclasses.replace(
    variants.VARIANTS["tiny"],
    vision=dataclasses.replace(variants.VARIANTS["tiny"].vision, layers=1),
    text=dataclasses.replace(variants.VARIANTS["tiny"].text, layers=1),
)
TARGETS = np.repeat(np.arange(4.0), 6).astype(np.float32)
OPTIONS = {"fds": ",low=0,high=4,width=1"}


def last_stage(config):
    return run_config.staged(config, config.stages[-1]) if config.stages else config


def of_folder(argument, **fields):
    """The last stage of configs/folder.py with a tiny CLIP."""
    method = argument.partition(",")[0]
    backbone = "" if "backbone=" in argument else ",backbone=tiny"
    if (
        method == "zero_shot"
    ):  # wants pretrained weights; what follows the towers is the same without
        c = folder.get_config("method=zero_shot").unlock()
        c.model.variant, c.model.weights, c.data.image_size, c.data.stored_size = "tiny", "", 32, 40
    else:
        c = folder.get_config(f"method={argument}{backbone}{OPTIONS.get(method, '')}").unlock()
        c.data.image_size, c.data.stored_size = 32, 40
    c = last_stage(c).unlock()
    c.update_from_flattened_dict(fields)
    for rule in c.rules:
        if rule.name == "knn":
            rule.k = 5
    return c


def made(config):
    """A run with random parameters, as if trained: no parameter is where it starts."""
    generator, angles = np.random.default_rng(0), config.name == "mpiifacegaze"
    targets = np.stack([TARGETS, -TARGETS], 1) if angles else TARGETS
    task_ranks = None if angles else ranks.build(config.ranks, targets)
    constants = labels.build(config, targets, task_ranks).constants
    clip = None if config.model.image_tower and not config.prompt.name else TINY
    if config.prompt.name:
        constants |= prompt_constants(config, clip, task_ranks.names)
    model = ordinal.build(config, clip, jnp.float32, constants.get("prompt_slots"), (50, 6))
    size = config.data.image_size
    inputs = {"image": jnp.zeros((1, 1, size, size, 3))}
    if config.model.image_tower == "BiLSTM":
        inputs = {
            "sentences": jnp.zeros((1, 2, 4), jnp.int32),
            "sentence_mask": jnp.ones((1, 2, 4), bool),
        }
    extract = config.data.reader.get("extract") or {}
    if extract.get("clips"):
        cells = extract["clip_size"] // 32
        inputs["motion"] = jnp.zeros((1, extract["clips"], 4, cells, cells, 256))
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs | constants)

    def draw(path, shape):
        *_, leaf = path.split("/")
        wide = shape.size // shape.shape[-1] if leaf == "kernel" else 1
        x = generator.normal(size=shape.shape) * ((2 / wide) ** 0.5 if leaf == "kernel" else 0.3)
        x *= (
            0.1 if path.startswith(("bin_regressor", "reference")) else 1.0
        )  # 1 + delta far from 0; points near the sphere
        return np.asarray(
            {"scale": 1 + x, "var": np.exp(x), "logit_scale": np.log(10.0)}.get(leaf, x), np.float32
        )

    shapes = {name: trees.flatten(shapes.get(name, {})) for name in ("params", "stats")}
    flat = {
        name: {path: draw(path, x) for path, x in part.items()} for name, part in shapes.items()
    }
    if config.prompt.name:
        constants["text_embeds"] = generator.normal(
            size=(len(task_ranks.names), clip.projection_dim)
        ).astype(np.float32)
    for rule in config.rules:
        if rule.name == "knn":
            outputs = jax.eval_shape(lambda v: model.apply(v, inputs | constants), nested(flat))
            embeds = outputs[(rule.get("arrays") or {}).get("image_embeds", "image_embeds")].shape[
                1
            ]
            constants["gallery_embeds"] = generator.normal(size=(len(targets), embeds)).astype(
                np.float32
            )
            constants["gallery_targets"] = np.float32(targets)
    words = tuple(map(str, range(50))) if "sentences" in inputs else ()
    return trained_model.TrainedModel(
        pathlib.Path("made"), config.lock(), task_ranks, model, constants, flat, words
    )
