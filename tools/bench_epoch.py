"""An epoch of several methods, and the time from an image file to its prediction.

    python tools/bench_epoch.py [--config=configs/freshness.py] [--methods=supcon,rnc,conord]
    [--steps=20] [--output=epoch.json]

Measures ConOrd's Tables 21-25. Each method is the config with method=... and its own recipe: SupCon
and RnC train on two augmentations of each image, so their epoch has twice the rows. Of a method
with stages the first is timed. Epochs take turns, without compiling; --steps times that many steps
instead and scales them to the epoch. "wait %" is the share in which the loop waited for data.

The latency is that of one image at a time in the form that predicts: read, decoded, resized,
through the model and the rule (k-NN has the whole training split as its gallery), the number back
on the host. Mean and standard deviation are over the images.
"""

import pathlib
import sys
import time
import types

import jax
import numpy as np

from jaxord import evaluate, shipped
from jaxord.binding import needs
from jaxord.data import storage
from jaxord.predict import trained_model
from jaxord.task import configured_rules, gallery_of, make_task
from jaxord.workdir.layout import chosen_folds

shipped.make_importable()
from tools.benching import measure, training

SETTINGS = {
    "methods": ("supcon,rnc,conord", "by commas"),
    "steps": (0, "of a turn; 0 is a whole epoch"),
    "images": (100, "of the latency, at least 2"),
}


def start(config):
    """A method ready to be timed: task, compiled step, state, source of batches."""
    task = make_task(config, chosen_folds(config)[0])
    if not task.splits["test"].records.read:
        raise ValueError(f"{config.name} has no images; the latency is that of an image file")
    source, labels, per_call = training.batches(task, task.splits["train"])
    state, step, *_ = training.begin(task, per_call > 1)
    rest = labels, task.constants
    run, seconds, temporary = measure.compiled(step, state, next(source), *rest)
    m = types.SimpleNamespace(task=task, run=run, state=state, rest=rest, per_call=per_call)
    m.draw, m.epochs, m.waits = lambda: next(source), [], []
    m.steps = len(task.splits["train"].records) / config.data.batch
    m.costs = {"compile s": seconds, "MiB": temporary / measure.MIB}
    return m


def epochs(methods, steps, rounds):
    """Rows of the epochs of {name: method of `start`}, whose states go on."""
    # Turn -1, of two steps or one call, is not counted.
    for turn in range(-1, rounds):
        for m in methods.values():
            calls = -(-(2 if turn < 0 else steps or round(m.steps)) // m.per_call)
            m.state, took, waited = training.run_calls(m.run, m.state, m.draw, calls, *m.rest)
            if turn >= 0:
                m.epochs.append(took * m.steps / (calls * m.per_call))
                m.waits.append(100 * waited / took)
    rows, (first, *_) = [], methods
    for name, m in methods.items():
        data, parameters = m.task.config.data, (*m.task.trained.values(), *m.task.frozen.values())
        row = {"method": name, "parameters": sum(array.size for array in parameters)}
        row |= {"rows a step": data.batch * data.copies, "steps": round(m.steps)}
        row |= measure.spread("epoch s", m.epochs) | measure.spread("wait %", m.waits)
        shares = measure.ratios(m.epochs, methods[first].epochs)
        rows.append(row | measure.spread(f"of {first}", shares) | m.costs)
    return rows


def predictor(task, variables):
    """A function: row of the test split -> (seconds to decode, seconds in all) of a prediction."""
    config, constants = task.config, evaluate.with_text(task, variables)
    galleries = {
        gallery_of(renames)
        for function, renames in configured_rules(config).values()
        if "gallery_embeds" in needs(function)[0]
    }
    if galleries:
        embeds = evaluate.make_gather(task, galleries)(variables, "train").popitem()[1]
        targets = task.splits["train"].records.targets / np.float32(config.data.target_scale)
        constants = {**constants, "gallery_embeds": embeds, "gallery_targets": targets}
    constants, variables = jax.device_get((constants, variables))
    model = task.ranks, task.model, constants, variables
    forward = trained_model.make_forward(trained_model.TrainedModel(pathlib.Path(), config, *model))
    headline, records = config.rules[0]["name"], task.splits["test"].records

    def predict(row):
        begun = time.perf_counter()
        stored, size = storage.decode_row(records, row, config.data)
        decoded = time.perf_counter()
        np.asarray(forward(stored[None], size[None])[headline])
        return decoded - begun, time.perf_counter() - begun

    return predict


def latencies(methods, images):
    """Rows of the latencies, image by image in turns."""
    predictors = {name: predictor(m.task, m.state.variables) for name, m in methods.items()}
    samples = {name: [] for name in methods}
    # The first two are not counted: one of them compiles.
    for row in range(-2, images):
        for name, predict in predictors.items():
            pair = predict(abs(row) % len(methods[name].task.splits["test"].records))
            samples[name] += [pair] if row >= 0 else []
    rows = []
    for name, pairs in samples.items():
        decoding, total = 1000 * np.array(pairs).T
        gallery = len(methods[name].task.splits["train"].records)
        row = {"method": name, "images": images, "gallery": gallery}
        row |= {"mean ms": float(total.mean()), "deviation ms": float(total.std(ddof=1))}
        row |= {"median ms": float(np.median(total)), "decoding ms": float(decoding.mean())}
        rows.append(row)
    return rows


def bench(flags):
    """Times epochs and latencies of the methods."""
    names = flags.methods.split(",")
    path = flags.config + ("," if ":" in flags.config else ":")
    configs = [training.config_of(f"{path}method={name}", flags.set) for name in names]
    methods = dict(zip(names, map(start, configs), strict=True))
    rows = epochs(methods, flags.steps, flags.rounds)
    latency = latencies(methods, max(flags.images, 2))
    first = f"of {names[0]}"
    columns = ["method", "parameters", "rows a step", "steps", "epoch s", "epoch s range"]
    columns += [first, f"{first} range", "wait %", "compile s", "MiB"]
    tables = {"An epoch": (rows, columns)}
    tables["From an image file to its prediction"] = latency, list(latency[0])
    notes = [f"Epochs are scaled from {flags.steps} steps."] if flags.steps else []
    return f"Methods on {flags.config}", tables, notes


main = measure.command(__doc__, bench, SETTINGS, rounds=3, config="configs/quickstart.py")


if __name__ == "__main__":
    sys.exit(main())
