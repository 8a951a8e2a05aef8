"""A finished run as a folder that runs without jaxord: in torch, or as one program.

In torch, by the formats "hf" (CLIP's towers) and "torch" (the others):

    model.safetensors      the towers: a CLIP by Hugging Face's names, with config.json and
                           preprocessor_config.json; a ResNet or VGG by torchvision's; a BiLSTM
                           by torch.nn.LSTM's behind `lstm.`, with its table `embedding`
    ordinal.json           ranks, rules, heads, and how an example becomes the model's input
    ordinal.safetensors    features of the rank sentences, parameters of heads, the gallery
    predict.py             all of it in torch: a copy of predict_torch.py
    README.md              how to use the folder, and the model card

By the formats "stablehlo" and "onnx" the whole model is one file (`jaxord.export.program`), beside
ordinal.json and README.md.
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

from jaxord.export import description, model_card, program, readme, towers, verify
from jaxord.models import ordinal
from jaxord.predict import trained_model
from jaxord.task import text_embeds
from jaxord.workdir import layout
from jaxord.workdir.files import write_json

TORCH = {"hf": towers.write_hf, "torch": towers.write_torch}
PROGRAMS = {"stablehlo": program.stablehlo, "onnx": program.onnx}
PREDICT = pathlib.Path(__file__).with_name("predict_torch.py")


def export(folder, output, *, format="", naming="hf", fold=""):
    """Export a finished run, compare the export with the run if possible, and print the result.

    Until then it is called `.<output>.unfinished`; after a kill the same command starts again.

    Args:
      folder: workdir of the run.
      output: new or empty folder.
      format: "hf", "torch", "stablehlo" or "onnx"; "" takes "hf" or "torch" by the image tower.
      naming: "open_clip" adds CLIP's towers by OpenCLIP's names, see `jaxord.weights.open_clip`.
      fold: required if the run has several.

    Raises:
      ValueError: the run is not finished or not exportable, format or naming do not fit it, the
        folder is not empty, a converter is missing, or the export predicts something else.
    """
    run = in_float32(trained_model.load(folder, fold))
    output = pathlib.Path(output)
    fold = fold or layout.chosen_folds(run.config)[0]
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty; remove it, or give another --output")
    # The final name appears only once all files are written and compared.
    unfinished = output.absolute().with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    compare = write(run, unfinished, format, naming)
    _, _, targets = layout.read_facts(run.folder)
    done = layout.read_done(run.folder)
    card = model_card.card(run.config, run.ranks, run.folder, targets, done, fold)
    page = unfinished / "README.md"
    usage = page.read_text(encoding="utf-8")
    page.write_text(f"{model_card.front_matter(run.folder)}{usage}\n{card}", encoding="utf-8")
    report = compare(fold)
    os.replace(unfinished, output)
    print(f"{output}: {', '.join(sorted(file.name for file in output.iterdir()))}\n{report}")


def in_float32(run):
    """The run with activations and rank sentences in float32, whatever it was trained in."""
    config = copy.deepcopy(run.config).unlock()
    config.model.dtype = "float32"
    constants = dict(run.constants)
    params, slots = run.variables["params"], constants.get("prompt_slots")
    table = params.get("sentence/embedding", np.zeros((0, 0)))
    model = ordinal.build(config, run.model.settings, jnp.float32, slots, table.shape)
    if "text_embeds" in constants:
        with jax.default_matmul_precision("highest"):
            constants["text_embeds"] = np.asarray(text_embeds(model, params, constants))
    return dataclasses.replace(run, config=config.lock(), model=model, constants=constants)


def write(run, folder, format="", naming="hf"):
    """Write all but the model card; returns the function fold -> a sentence on the comparison."""
    tower = run.config.model.image_tower
    expected = "torch" if tower else "hf"
    format = format or expected
    if format not in TORCH | PROGRAMS:
        raise ValueError(f"format is {format!r}; it takes one of {sorted(TORCH | PROGRAMS)}")
    if format in TORCH and format != expected:
        raise ValueError(
            f"the image tower is {tower or 'CLIP'}, which --format={format} does not take; "
            f"expected --format={expected}"
        )
    if naming != "hf" and (naming != "open_clip" or format != "hf"):
        raise ValueError(
            f"naming is {naming!r}; it takes 'hf', or with CLIP's image tower and --format=hf "
            "'open_clip'"
        )
    if format in PROGRAMS:
        return write_program(run, folder, format)
    content, tensors = description.describe(run)
    # Errors of the description leave no folder behind.
    folder.mkdir(parents=True, exist_ok=True)
    loading = TORCH[format](run, folder)
    if naming == "open_clip":
        loading += "\n" + towers.write_open_clip(run, folder)
    write_json(folder / "ordinal.json", content)
    save_file(tensors, folder / "ordinal.safetensors", metadata={"format": "pt"})
    shutil.copyfile(PREDICT, folder / "predict.py")
    (folder / "README.md").write_text(readme.for_torch(content, loading), encoding="utf-8")
    return lambda fold: verify.check_torch(run, folder, fold)


def write_program(run, folder, format):
    """`write` for a key of PROGRAMS."""
    content = description.common(run)
    content["inputs"] = program.describe(program.inputs_of(run))
    content["outputs"] = program.describe(program.outputs_of(run))
    folder.mkdir(parents=True, exist_ok=True)
    call = PROGRAMS[format](run, folder)
    write_json(folder / "ordinal.json", content)
    if run.vocabulary:
        write_json(folder / "vocabulary.json", run.vocabulary)
    (folder / "README.md").write_text(readme.for_program(content, format), encoding="utf-8")
    return lambda fold: verify.check_program(run, call, format, fold)
