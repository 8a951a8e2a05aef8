"""Compares an export's predictions with the run's, on test examples or on noise.

Examples are given as predict.py takes them; `arrays_of` reads them for the run itself.
"""

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
from jaxord.export import program
from jaxord.predict import predictor
from jaxord.shipped import install_hint
from jaxord.workdir.files import read_json, write_json

EXAMPLES = 8


def check_torch(run, folder, fold):
    """Compare a folder for torch with the run; returns a sentence on the result."""
    if importlib.util.find_spec("torch") is None:
        return not_verified("torch", "torch")
    motion = read_json(folder / "ordinal.json")["input"] == "videos"
    shapes = input_kind(run.config.data).placeholder if motion else {}
    with tempfile.TemporaryDirectory() as scratch:
        title, examples = choose_examples(run, fold, pathlib.Path(scratch), shapes)
        rule, difference, (low, high) = compare(run, folder, examples)
    version = importlib.metadata.version("torch")
    return (
        f"verified by torch {version} on {len(examples)} {title}: the largest difference of {rule} "
        f"is {difference.max():.2g} (predictions from {low:.4g} to {high:.4g})"
    )


def check_program(run, call, format, fold):
    """Compare a program with the run, which is in float32; returns a sentence on the result.

    call: {input: array [N, ...]} -> {output: array [N, ...]}; None if nothing can run it.
    """
    runner = {"stablehlo": "jax", "onnx": "onnxruntime"}[format]
    if call is None:
        return not_verified(runner, format)
    # Unlike predict.py, a program takes inputs of one shape only.
    shapes = input_kind(run.config.data, run.vocabulary).placeholder
    with tempfile.TemporaryDirectory() as scratch:
        title, examples = choose_examples(run, fold, pathlib.Path(scratch), shapes)
        ours, inputs = answers(run, arrays_of(run, examples, shapes))
    ours, theirs = program.named_outputs(run, ours), call(inputs)
    value = theirs["value"]
    difference = np.abs(ours["value"] - value)
    check_agreement(run, difference, f"the {format} program predicts {value}", ours["value"])
    worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
    return (
        f"verified by {runner} {importlib.metadata.version(runner)} on {len(difference)} {title}: "
        f"the largest difference of value is {difference.max():.2g}, of all outputs {worst:.2g} "
        f"(predictions from {value.min():.4g} to {value.max():.4g})"
    )


def not_verified(package, extra):
    remedy = f"{install_hint(extra)}, then export again to compare"
    return f"NOT VERIFIED: {package} is not installed; {remedy}"


def choose_examples(run, fold, scratch, shapes):
    """(title, examples) of the test split, or noise if its data cannot be read.

    scratch: folder for their files.
    shapes: {name: array} of one example (`InputKind.placeholder`), {} without motion.
    """
    try:
        records = readers.load(run.config.data, fold, run.config.seed, run.ranks)["test"]
    except ValueError as error:
        reason = str(error).splitlines()[0]
        title = f"generated examples, for the run's data cannot be read ({reason})"
        return title, generate(run, scratch, shapes)
    rows, inputs = range(min(EXAMPLES, len(records))), records.inputs
    if "sentences" in inputs:
        pairs = [zip(inputs["sentences"][i], inputs["sentence_mask"][i], strict=True) for i in rows]
        return "test examples", [[ids[mask].tolist() for ids, mask in pair] for pair in pairs]
    # Videos are stored as frames; images as the files they were.
    if records.read is None:
        files = [save_frames(inputs, row, scratch) for row in rows]
    else:
        files = [[str(scratch / f"{row}.image")] for row in rows]
        for row, (file,) in enumerate(files):
            pathlib.Path(file).write_bytes(records.read(row))
    if "motion" in shapes:
        return "test examples", with_motion(files, inputs["motion"], scratch)
    return "test examples", files


def save_frames(inputs, row, scratch):
    """Files of a video's frames."""
    height, width = inputs["size"][row]
    files = [str(scratch / f"{row}-{i}.png") for i in range(len(inputs["frames"][row]))]
    for file, frame in zip(files, inputs["frames"][row], strict=True):
        Image.fromarray(frame[:height, :width]).save(file)
    return files


def with_motion(videos, motion, scratch):
    """Lists of frames as examples of a model that also takes motion, f16[B, M, F, h, w, C]."""
    files = [str(scratch / f"{row}.npy") for row in range(len(videos))]
    for row, file in enumerate(files):
        np.save(file, motion[row])
    pairs = zip(videos, files, strict=True)
    return [{"frames": frames, "motion": file} for frames, file in pairs]


def generate(run, scratch, shapes):
    """Examples of noise, always the same ones; arguments as of `choose_examples`."""
    generator = np.random.default_rng(0)
    if run.config.model.image_tower == "BiLSTM":
        words = len(run.variables["params"]["sentence/embedding"])
        lengths = [(3 + row, 5) for row in range(EXAMPLES)]
        return [[generator.integers(words, size=n).tolist() for n in pair] for pair in lengths]
    files = [str(scratch / f"{row}.png") for row in range(EXAMPLES)]
    for row, file in enumerate(files):
        rough = generator.integers(256, size=(5 + row, 6, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((300, 260 + 10 * row), Image.Resampling.BICUBIC).save(file)
    videos = [[file] * len(shapes.get("frames", [0])) for file in files]
    if "motion" not in shapes:
        return videos
    maps = generator.normal(size=(EXAMPLES, *shapes["motion"].shape))
    return with_motion(videos, maps.astype(shapes["motion"].dtype), scratch)


def arrays_of(run, examples, shapes=None):
    """{name: array [B, ...]} for the run's `inputs`; sentences have the length of `shapes`."""
    if run.config.model.image_tower == "BiLSTM":
        longest = max(len(ids) for pair in examples for ids in pair)
        width = shapes["sentences"].shape[1] if shapes else longest
        cut = [[ids[:width] for ids in pair] for pair in examples]
        padded = [[ids + [-1] * (width - len(ids)) for ids in pair] for pair in cut]
        sentences = np.array(padded, np.int32)  # [B, 2, T]
        return {"sentences": np.maximum(sentences, 0), "sentence_mask": sentences >= 0}
    form = {name: run.config.data[name] for name in ("resize", "stored_size")}
    moving = [example for example in examples if isinstance(example, dict)]
    videos = [example["frames"] for example in moving] or examples
    stored, sizes = [], []
    for files in videos:
        frames = [decode.decode_image(pathlib.Path(file).read_bytes(), **form) for file in files]
        stored.append([image for image, _ in frames])
        sizes.append(frames[0][1])
    arrays = {"stored": np.array(stored), "size": np.array(sizes, np.int32)}  # [B, F, C, C, 3]
    if moving:
        arrays["motion"] = np.stack([np.load(example["motion"]) for example in moving])
    return arrays


def answers(run, arrays):
    """(`predictor.answers` of the run, the inputs of its exported program) for a batch."""

    @jax.jit
    def forward(variables, constants, arrays):
        inputs = run.inputs(arrays)
        return predictor.answers(run, variables, constants, inputs), inputs

    with jax.default_matmul_precision("highest"):
        ours, inputs = jax.device_get(forward(run.variables, run.constants, arrays))
    if "image" in inputs:
        # A program takes pixels and normalises them itself.
        mean, std = augment.NORMALISATIONS[run.config.data.normalize]
        pixels = 255 * (inputs["image"].astype(np.float64) * std + mean)
        inputs["image"] = np.float32(pixels if pixels.shape[1] > 1 else pixels[:, 0])
    return ours, inputs


def check_agreement(run, difference, found, ours):
    """Raise ValueError if the median difference exceeds a thousandth of the predictions' scale."""
    # Rules that choose (argmax, neighbours) may differ in single examples between two ranks.
    scale = float(np.ptp(run.ranks.values)) if run.ranks else float(np.abs(ours).max())
    if not np.median(difference) <= 1e-3 * max(1e-6, scale):
        raise ValueError(f"{found}, but the run predicts {ours}")


def compare(run, folder, examples):
    """Compare the run with a folder's predict.py: (rule, differences, (lowest, highest) value)."""
    ours, _ = answers(run, arrays_of(run, examples))
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "examples.json"
        write_json(file, examples)
        command = [sys.executable, str(folder / "predict.py"), str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last_line = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ValueError(f"{folder / 'predict.py'} failed: {last_line}")
    rule = read_json(folder / "ordinal.json")["rules"][0]["name"]
    theirs = np.array([result["rules"][rule] for result in json.loads(done.stdout)])
    difference = np.abs(ours[rule] - theirs)
    check_agreement(run, difference, f"{folder} predicts {rule} {theirs}", ours[rule])
    return rule, difference, (theirs.min(), theirs.max())
