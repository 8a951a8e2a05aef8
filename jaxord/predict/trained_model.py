"""A trained run as a function of images: all of it read from the workdir, none of it from the data
it was trained on.

Shapes: B images, V views, C side of the stored canvas, H W side of the model's image.
"""

import copy
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxord.binding import bind, needs
from jaxord.data import augment
from jaxord.models import ordinal
from jaxord.targets.ranks import Ranks
from jaxord.task import activations, attentions, configured_rules, text_embeds
from jaxord.trees import nested
from jaxord.workdir import files, layout

LABELS = {
    "target",
    "rank",
    "group",
    "reference",
}  # a rule that takes one analyses and cannot predict


@dataclasses.dataclass(frozen=True)
class Finished:
    """The selected parameters of one fold's last stage, and what they need to predict.

    Attributes:
      folder: of that stage.
      config: of that stage.
      ranks: the task's ranks; None where a target is two angles.
      model: the linen module.
      constants: name -> numpy array; with `text_embeds` where the model has a text side, and
        `gallery_embeds` and `gallery_targets` where the run has kept its neighbours.
      variables: {"params": flat, "stats": flat}, numpy arrays.
      vocabulary: the words that ids in inputs stand for; () without such inputs.
    """

    folder: pathlib.Path
    config: ConfigDict
    ranks: Ranks | None
    model: ordinal.OrdinalModel
    constants: dict
    variables: dict
    vocabulary: tuple = ()

    def images(self, stored, size):
        """Images as the model sees them in evaluation: u8[B, C, C, 3], i32[B, 2] -> f32[B, V, H, W,
        3]; for jit.

        Or frames u8[B, F, C, C, 3], which are views.
        """
        none = jnp.zeros(len(stored), jnp.int32)
        return augment.transform(stored, size, none, none, data=self.config.data)

    def inputs(self, given):
        """What the model takes, of a batch of what `jaxord.data.inputs` reads; for jit."""
        arrays = {
            name: array for name, array in given.items() if name not in ("stored", "frames", "size")
        }
        for stored in {"stored", "frames"} & set(given):
            arrays["image"] = self.images(given[stored], given["size"])
        return arrays

    def outputs(self, variables, constants, arrays):
        """All named arrays that a batch leads to, and under its name each rule's value on the
        label's scale; for jit.

        Args:
          variables, constants: as of this object, or the same on a device.
          arrays: of `inputs`, such as {"image": f32[B, V, H, W, 3]}.
        """
        arrays = {**constants, **arrays}
        arrays |= self.model.apply(nested(variables), arrays)
        scale = self.config.data.target_scale
        found = {
            name: scale * bind(function, arrays, renames)
            for name, (function, renames) in configured_rules(self.config).items()
            if not set(needs(function)[0]) & LABELS
        }
        return {name: array for name, array in arrays.items() if name not in constants} | found


def load(folder, fold=""):
    """Reads a finished run.

    Args:
      folder: workdir of the run.
      fold: which fold, where the run has several.

    Raises:
      ValueError: no finished run there, or several folds and none chosen.
    """
    folder = pathlib.Path(folder)
    trained = layout.read_config(folder)
    folds = layout.chosen_folds(trained)
    if fold not in folds and (fold or len(folds) > 1):
        raise ValueError(
            f"{folder} has the folds {', '.join(folds) or '(none)'}; choose one with --fold=, found {fold!r}"
        )
    stage_folder, config = layout.stages_of(trained, folder, fold or folds[0])[-1]
    variables = layout.selected(stage_folder)
    ranks, constants, _ = layout.read_facts(stage_folder)
    table = variables["params"].get("sentence/embedding", np.zeros((0, 0)))
    settings, dtype = layout.read_settings(stage_folder), activations(config)
    ways = attentions(
        config,
        settings,
        dtype,
        config.data.eval_batch,
        constants.get("prompt_tokens"),
        gradient=False,
    )
    plain = copy.deepcopy(config).unlock()
    plain.model.remat = False  # it saves nothing where no step is taken
    model = ordinal.build(plain, settings, dtype, constants.get("prompt_slots"), table.shape, ways)
    if "prompt_tokens" in constants:
        constants["text_embeds"] = np.asarray(text_embeds(model, variables["params"], constants))
    gallery = stage_folder / "gallery.npz"
    if gallery.exists():
        stored = files.read_arrays(gallery)
        constants |= {"gallery_embeds": stored["embeds"]}
        constants |= {"gallery_targets": stored["targets"] / np.float32(config.data.target_scale)}
    words = stage_folder / "vocabulary.json"
    vocabulary = tuple(files.read_json(words)) if words.exists() else ()
    return Finished(stage_folder, config, ranks, model, constants, variables, vocabulary)


def make_forward(run):
    """The jitted form(stored u8[B, C, C, 3], size i32[B, 2]) -> the `outputs` of `run`, on one
    device."""

    @jax.jit
    def forward(variables, constants, stored, size):
        return run.outputs(variables, constants, run.inputs({"stored": stored, "size": size}))

    variables, constants = jax.device_put((run.variables, run.constants))
    return functools.partial(forward, variables, constants)
