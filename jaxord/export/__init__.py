"""A finished run as a folder that runs without jaxord: for torch, or as one program.

For torch, by formats "hf" (CLIP's towers) and "torch" (the others):

    model.safetensors      the towers: a CLIP by Hugging Face's names with config.json and preprocessor_config.json; a ResNet
                           or VGG by torchvision's; a BiLSTM by torch.nn.LSTM's behind `lstm.`, and
                           its table `embedding`
    ordinal.json           ranks, rules, heads, and how an example becomes the model's input
    ordinal.safetensors    what they need: features of the rank sentences, the heads' parameters, the gallery of neighbours
    predict.py             all of it in torch; README.md: how to use it, and the model card

By formats "stablehlo" and "onnx" the whole model is one file, see `jaxord.export.program`;
ordinal.json and README.md too.
"""

import copy
import dataclasses
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxord.export import description, model_card, program, torch_program, towers, verify
from jaxord.models import ordinal
from jaxord.predict import trained_model
from jaxord.task import text_embeds
from jaxord.workdir import layout
from jaxord.workdir.files import write_json

TORCH = {"hf": towers.write_hf, "torch": towers.write_torch}
PROGRAMS = {"stablehlo": program.stablehlo, "onnx": program.onnx}


def export(folder, output, *, format="", naming="hf", fold=""):
    """Writes a finished run as such a folder, checks it against the run where that can be done, and
    prints what it did.

    Until it is checked it is called .<output>.unfinished: what is called `output` is whole, and
    after a kill the same command begins again.

    Args:
      folder: workdir of the run.
      output: new or empty folder.
      format: a key of TORCH or PROGRAMS; "" is the one of TORCH that the image tower has.
      naming: "open_clip" adds CLIP's towers by OpenCLIP's names, see `jaxord.weights.open_clip`.
      fold: which fold, where the run has several.

    Raises:
      ValueError: no finished run, a format or naming that does not fit it, a folder that is in use,
        a method that torch does not get, no converter; or what was written predicts something else
        than the run.
    """
    run, output = in_float32(trained_model.load(folder, fold)), pathlib.Path(output)
    fold = fold or layout.chosen_folds(run.config)[0]
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty; remove it, or give another --output")
    part = output.absolute().with_name(f".{output.name}.unfinished")
    shutil.rmtree(part, ignore_errors=True)
    compare = write(run, part, format, naming)
    _, _, targets = layout.read_facts(run.folder)
    done = layout.read_done(run.folder)
    card = model_card.card(run.config, run.ranks, run.folder, targets, done, fold)
    with open(part / "README.md", "a", encoding="utf-8") as file:
        file.write("\n" + card)
    said = compare(fold)
    os.replace(part, output)
    print(f"{output}: {', '.join(sorted(file.name for file in output.iterdir()))}\n{said}")


def in_float32(run):
    """The run with activations and rank sentences in float32, whatever it was trained in."""
    config = copy.deepcopy(run.config).unlock()
    config.model.dtype = "float32"
    table = run.variables["params"].get("sentence/embedding", np.zeros((0, 0)))
    model = ordinal.build(
        config, run.model.settings, jnp.float32, run.constants.get("prompt_slots"), table.shape
    )
    constants = dict(run.constants)
    if "text_embeds" in constants:
        with jax.default_matmul_precision("highest"):
            constants["text_embeds"] = np.asarray(
                text_embeds(model, run.variables["params"], constants)
            )
    return dataclasses.replace(run, config=config.lock(), model=model, constants=constants)


def write(run, folder, format="", naming="hf"):
    """Writes everything but the model card.

    Args:
      run: jaxord.predict.trained_model.Finished.
      folder: made if need be.
      format, naming: as `export`.

    Returns:
      The function fold -> what a comparison with the run says.
    """
    clip = not run.config.model.image_tower
    format = format or ("hf" if clip else "torch")
    if format not in TORCH and format not in PROGRAMS:
        raise ValueError(f"format is {format!r}; it takes one of {sorted(TORCH | PROGRAMS)}")
    if format in TORCH and clip != (format == "hf"):
        raise ValueError(
            f"the image tower is {run.config.model.image_tower or 'CLIP'}, which --format={format} does not take; "
            f"expected --format={'hf' if clip else 'torch'}"
        )
    if naming not in ("hf", "open_clip") or (naming == "open_clip" and format != "hf"):
        raise ValueError(
            f"naming is {naming!r}; it takes 'hf', or with CLIP's image tower and --format=hf 'open_clip'"
        )
    if format in PROGRAMS:
        return write_program(run, folder, format)
    found, tensors = description.described(run)
    folder.mkdir(parents=True, exist_ok=True)
    uses = TORCH[format](run, folder)
    if naming == "open_clip":
        uses += "\n" + towers.write_open_clip(run, folder)
    write_json(folder / "ordinal.json", found)
    save_file(tensors, folder / "ordinal.safetensors", metadata={"format": "pt"})
    (folder / "predict.py").write_text(torch_program.program(found), encoding="utf-8")
    (folder / "README.md").write_text(towers.readme(run, found, uses), encoding="utf-8")
    return lambda fold: verify.torch(run, folder, fold)


def write_program(run, folder, format):
    """`write` of a key of PROGRAMS."""
    shapes = {"inputs": program.inputs_of(run), "outputs": program.outputs_of(run)}
    found = description.common(run) | {
        name: program.described(part) for name, part in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    call = PROGRAMS[format](run, folder)
    write_json(folder / "ordinal.json", found)
    if run.vocabulary:
        write_json(folder / "vocabulary.json", run.vocabulary)
    (folder / "README.md").write_text(program.readme(found, format), encoding="utf-8")
    return lambda fold: verify.program(run, call, format, fold)
