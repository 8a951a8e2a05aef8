"""Whether what was exported predicts what the run predicts, on examples of the test split or of
noise."""

import importlib.metadata
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
from PIL import Image

from jaxord.data import augment, decode, readers
from jaxord.data.inputs import input_kind
from jaxord.predict import predictor
from jaxord.workdir.files import write_json

EXAMPLES = 8  # that an export is verified on
GENERATED = "generated examples, for the run's data cannot be read ({})"


def chosen_examples(run, fold, scratch, motion=False):
    """(what they are, examples as `predict.py` takes them): of the test split where the data is
    there, else generated ones.

    Args:
      run, fold: as `torch`.
      scratch: folder for their files.
      motion: whether the model takes the motion of videos beside their frames.
    """
    try:
        records = readers.load(run.config.data, fold, run.config.seed)["test"]
    except ValueError as error:
        return GENERATED.format(str(error).splitlines()[0]), generated(run, scratch, motion)
    rows = range(min(EXAMPLES, len(records)))
    if "sentences" in records.inputs:
        return "test examples", [
            [
                ids[mask].tolist()
                for ids, mask in zip(
                    records.inputs["sentences"][row],
                    records.inputs["sentence_mask"][row],
                    strict=True,
                )
            ]
            for row in rows
        ]
    examples = []
    for row in rows:
        frames = [scratch / f"{row}-0.image"]
        if records.read is not None:
            frames[0].write_bytes(records.read(row))
        else:
            frames = [scratch / f"{row}-{i}.png" for i in range(len(records.inputs["frames"][row]))]
            height, width = records.inputs["size"][row]
            for file, frame in zip(frames, records.inputs["frames"][row], strict=True):
                Image.fromarray(frame[:height, :width]).save(file)
        examples.append([str(file) for file in frames])
    return "test examples", with_motion(
        examples, records.inputs["motion"], scratch
    ) if motion else examples


def with_motion(examples, motion, scratch):
    """Lists of frames as examples of a model that takes motion too, f16[B, M, F, h, w, C]."""
    files = [str(scratch / f"{row}.npy") for row in range(len(examples))]
    for row, file in enumerate(files):
        np.save(file, motion[row])
    return [
        {"frames": frames, "motion": file} for frames, file in zip(examples, files, strict=True)
    ]


def generated(run, scratch, motion=False):
    """Examples of noise, the same ones every time; arguments as of `chosen_examples`."""
    generator = np.random.default_rng(0)
    if run.config.model.image_tower == "BiLSTM":
        words = len(run.variables["params"]["sentence/embedding"])
        return [
            [generator.integers(words, size=n).tolist() for n in (3 + row, 5)]
            for row in range(EXAMPLES)
        ]
    files = [str(scratch / f"{row}.png") for row in range(EXAMPLES)]
    for row, file in enumerate(files):
        rough = generator.integers(256, size=(5 + row, 6, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((300, 260 + 10 * row), Image.Resampling.BICUBIC).save(file)
    if not motion:
        return [[file] for file in files]
    nothing = input_kind(run.config.data).placeholder
    maps = generator.normal(size=(EXAMPLES, *nothing["motion"].shape)).astype(
        nothing["motion"].dtype
    )
    return with_motion([[file] * len(nothing["frames"]) for file in files], maps, scratch)


def torch(run, folder, fold):
    """What the comparison of a folder for torch says, which needs torch in a process of its own.

    Raises:
      ValueError: see `verify`.
    """
    if importlib.util.find_spec("torch") is None:
        return "NOT VERIFIED: torch is not installed; pip install 'jaxord[torch]' and export again to compare"
    with tempfile.TemporaryDirectory() as scratch:
        facts = json.loads((folder / "ordinal.json").read_text())
        title, examples = chosen_examples(
            run, fold, pathlib.Path(scratch), facts["input"] == "videos"
        )
        rule, difference, (low, high) = verify(run, folder, examples)
    return (
        f"verified by torch {importlib.metadata.version('torch')} on {len(examples)} {title}: "
        f"the largest difference of {rule} is {difference.max():.2g} (predictions from {low:.4g} to {high:.4g})"
    )


def program(run, call, format, fold):
    """What the comparison of a program says.

    Args:
      run: in float32.
      call: the function {input: array [N, ...]} -> {output: array [N, ...]} of what was written;
        None where it cannot be run.
      format: of it.
      fold: of the run.

    Raises:
      ValueError: half of its predictions differ by more than a thousandth of their scale.
    """
    by = {"stablehlo": "jax", "onnx": "onnxruntime"}[format]
    if call is None:
        return f"NOT VERIFIED: {by} is not installed; pip install 'jaxord[{format}]' and export again to compare"
    title, given = batch(run, fold)
    ours, inputs = answers(run, given)
    theirs = call(inputs)
    difference = np.abs(ours["value"] - theirs["value"])
    agree(
        run, difference, f"the {format} program predicts {theirs['value'].tolist()}", ours["value"]
    )
    worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
    return (
        f"verified by {by} {importlib.metadata.version(by)} on {len(difference)} {title}: the largest difference of value "
        f"is {difference.max():.2g}, of all outputs {worst:.2g} (predictions from {theirs['value'].min():.4g} to "
        f"{theirs['value'].max():.4g})"
    )


def batch(run, fold):
    """(what they are, {name: array [N, ...]} as `jaxord.data.inputs` reads them): test examples,
    else noise."""
    nothing = input_kind(run.config.data, run.vocabulary).placeholder
    try:
        records = readers.load(run.config.data, fold, run.config.seed)["test"]
    except ValueError as error:
        generator = np.random.default_rng(0)

        def noise(name, array):
            shape = (EXAMPLES, *array.shape)
            if name == "size":
                return np.broadcast_to(array, shape)
            if array.dtype in (np.uint8, np.int32):
                return generator.integers(len(run.vocabulary) or 256, size=shape).astype(
                    array.dtype
                )
            return (
                np.ones(shape, bool)
                if array.dtype == bool
                else generator.normal(size=shape).astype(array.dtype)
            )

        return GENERATED.format(str(error).splitlines()[0]), {
            name: noise(name, array) for name, array in nothing.items()
        }
    rows = range(min(EXAMPLES, len(records)))
    if records.read is None:
        return "test examples", {
            name: np.asarray(array[rows.start : rows.stop])
            for name, array in records.inputs.items()
        }
    data = run.config.data
    decoded = [
        decode.decode_image(records.read(row), resize=data.resize, stored_size=data.stored_size)
        for row in rows
    ]
    stored, size = zip(*decoded, strict=True)
    return "test examples", {"stored": np.array(stored), "size": np.array(size, np.int32)}


def answers(run, given):
    """(what predict makes of such a batch by the names of a program's outputs, the program's
    inputs)."""

    @jax.jit
    def forward(variables, constants, given):
        inputs = run.inputs(given)
        return predictor.answers(run, variables, constants, inputs), inputs

    with jax.default_matmul_precision("highest"):
        found, inputs = jax.device_get(forward(run.variables, run.constants, given))
    rule, *others = [rule.name for rule in run.config.rules if rule.name in found]
    ours = {"value": found[rule], **{f"rule_{other}": found[other] for other in others}}
    ours |= {name: found[name] for name in ("probabilities", "neighbours") if name in found}
    if "image" in inputs:
        mean, std = augment.NORMALISATIONS[run.config.data.normalize]
        pixels = 255 * (inputs["image"].astype(np.float64) * std + mean)
        inputs["image"] = np.float32(pixels if pixels.shape[1] > 1 else pixels[:, 0])
    return ours, inputs


def agree(run, difference, what, ours):
    """Raises ValueError where half of the differences are more than a thousandth of the scale of
    the predictions `ours`.

    Rules that choose (argmax, neighbours) may differ in single examples that lie between two ranks.
    """
    scale = max(1e-6, float(np.ptp(run.ranks.values)) if run.ranks else float(np.abs(ours).max()))
    if not np.median(difference) <= 1e-3 * scale:
        raise ValueError(f"{what} and not, as the run does, {ours.tolist()}")


def verify(run, folder, examples):
    """Compares the run and the program of an exported folder, which runs in a process of its own.

    Returns:
      (the first rule's name, differences of its values, (lowest, highest) of them).

    Raises:
      ValueError: the program fails, or see `agree`.
    """
    ours = predicted(run, examples)
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "examples.json"
        write_json(file, examples)
        done = subprocess.run(
            [sys.executable, str(folder / "predict.py"), str(file)], capture_output=True, text=True
        )
    if done.returncode:
        raise ValueError(
            f"{folder / 'predict.py'} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    rule = json.loads((folder / "ordinal.json").read_text())["rules"][0]["name"]
    theirs = np.array([found["rules"][rule] for found in json.loads(done.stdout)])
    difference = np.abs(ours[rule] - theirs)
    agree(run, difference, f"{folder} predicts {rule} {theirs.tolist()}", ours[rule])
    return rule, difference, (theirs.min(), theirs.max())


def predicted(run, examples):
    """Each rule's values of the run itself, {rule: f32[B] or f32[B, 2]}."""
    if run.config.model.image_tower == "BiLSTM":
        longest = max(len(ids) for pair in examples for ids in pair)
        padded = [[ids + [-1] * (longest - len(ids)) for ids in pair] for pair in examples]
        sentences = np.array(padded, np.int32)  # [B, 2, T]
        arrays = {"sentences": np.maximum(sentences, 0), "sentence_mask": sentences >= 0}
    else:
        data = run.config.data
        form = {"resize": data.resize, "stored_size": data.stored_size}
        moving = [example for example in examples if isinstance(example, dict)]
        files = [example["frames"] for example in moving] or examples
        decoded = [
            [decode.decode_image(pathlib.Path(file).read_bytes(), **form) for file in frames]
            for frames in files
        ]
        stored = np.array([[image for image, _ in frames] for frames in decoded])  # [B, F, C, C, 3]
        arrays = {
            "stored": stored,
            "size": np.array([frames[0][1] for frames in decoded], np.int32),
        }
        if moving:
            arrays["motion"] = np.stack([np.load(example["motion"]) for example in moving])
    rules = [entry["name"] for entry in run.config.rules]

    @jax.jit
    def forward(variables, constants, arrays):
        outputs = run.outputs(variables, constants, run.inputs(arrays))
        return {rule: outputs[rule] for rule in rules if rule in outputs}

    with jax.default_matmul_precision("highest"):
        return jax.device_get(forward(run.variables, run.constants, arrays))
