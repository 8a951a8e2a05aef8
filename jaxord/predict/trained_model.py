"""A trained run as a function of its inputs, read from the workdir alone.

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

# A rule that reads one of these analyses the run and cannot predict.
LABELS = {"target", "rank", "group", "reference"}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The selected parameters of one fold's last stage, and what they need to predict.

    Attributes:
      folder, config: of that stage.
      ranks: None if a target is two angles.
      model: the linen module.
      constants: {name: numpy array}, with `text_embeds` if the model has a text side, and
        `gallery_embeds` and `gallery_targets` if the run stored its neighbours.
      variables: {"params": flat, "stats": flat}, numpy arrays.
      vocabulary: the words behind ids in inputs; () without such inputs.
    """

    folder: pathlib.Path
    config: ConfigDict
    ranks: Ranks | None
    model: ordinal.OrdinalModel
    constants: dict
    variables: dict
    vocabulary: tuple = ()

    def images(self, stored, size):
        """Transform images as evaluation does, inside jit: u8[B, C, C, 3] -> f32[B, V, H, W, 3].

        `stored` may also be frames u8[B, F, C, C, 3], which are views; `size` is i32[B, 2].
        """
        zeros = jnp.zeros(len(stored), jnp.int32)
        return augment.transform(stored, size, zeros, zeros, data=self.config.data)

    def inputs(self, batch):
        """The model's inputs, of a batch as `jaxord.data.inputs` reads it."""
        raw = ("stored", "frames", "size")
        arrays = {name: array for name, array in batch.items() if name not in raw}
        for name in {"stored", "frames"} & set(batch):
            arrays["image"] = self.images(batch[name], batch["size"])
        return arrays

    def outputs(self, variables, constants, inputs):
        """All arrays computed from a batch, and each rule's value on the label's scale by its name.

        Args:
          variables, constants: those of this object, or copies on a device.
          inputs: of `inputs`, such as {"image": f32[B, V, H, W, 3]}.
        """
        arrays = {**constants, **inputs}
        arrays |= self.model.apply(nested(variables), arrays)
        outputs = {name: array for name, array in arrays.items() if name not in constants}
        for name, (rule, renames) in configured_rules(self.config).items():
            if not set(needs(rule)[0]) & LABELS:
                outputs[name] = self.config.data.target_scale * bind(rule, arrays, renames)
        return outputs


def load(folder, fold=""):
    """Read the TrainedModel in a workdir; `fold` is required if the run has several.

    Raises ValueError if there is no finished run, or if it has several folds and none is chosen.
    """
    folder = pathlib.Path(folder)
    run_config = layout.read_config(folder)
    folds = layout.chosen_folds(run_config)
    if fold not in folds and (fold or len(folds) > 1):
        names = ", ".join(folds) or "(none)"
        raise ValueError(f"{folder} has the folds {names}; choose one with --fold=, found {fold!r}")
    stage_folder, config = layout.stages_of(run_config, folder, fold or folds[0])[-1]
    variables = layout.selected(stage_folder)
    ranks, constants, _ = layout.read_facts(stage_folder)
    model = _build(config, layout.read_settings(stage_folder), variables["params"], constants)
    # Texts and neighbours are constants of a trained model.
    if "prompt_tokens" in constants:
        constants["text_embeds"] = np.asarray(text_embeds(model, variables["params"], constants))
    gallery = stage_folder / "gallery.npz"
    if gallery.exists():
        stored = files.read_arrays(gallery)
        constants["gallery_embeds"] = stored["embeds"]
        constants["gallery_targets"] = stored["targets"] / np.float32(config.data.target_scale)
    words = stage_folder / "vocabulary.json"
    vocabulary = tuple(files.read_json(words)) if words.exists() else ()
    return TrainedModel(stage_folder, config, ranks, model, constants, variables, vocabulary)


def _build(config, settings, params, constants):
    """The linen module, without remat: it saves no memory if no gradient is taken."""
    config = copy.deepcopy(config).unlock()
    dtype, tokens = activations(config), constants.get("prompt_tokens")
    batch = config.data.eval_batch
    ways = attentions(config, settings, dtype, batch, tokens, gradient=False)
    table = params.get("sentence/embedding", np.zeros((0, 0))).shape
    config.model.remat = False
    return ordinal.build(config, settings, dtype, constants.get("prompt_slots"), table, ways)


def make_forward(run):
    """Jit (stored u8[B, C, C, 3], size i32[B, 2]) -> the `outputs` of `run`, on one device."""

    @jax.jit
    def forward(variables, constants, stored, size):
        return run.outputs(variables, constants, run.inputs({"stored": stored, "size": size}))

    return functools.partial(forward, *jax.device_put((run.variables, run.constants)))
