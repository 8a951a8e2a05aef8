"""An epoch of several methods on one data set, and the time from an image file to its prediction
(ConOrd's Tables 21-25).

    python tools/bench_epoch.py [--config=configs/freshness.py] [--methods=supcon,rnc,conord]
    [--steps=20] [--output=epoch.json]

Every method is the config with method=... and its own recipe: SupCon and RnC train on two
augmentations of each image, so that an epoch of theirs has twice the rows. Of a method with stages
the first is timed. Epochs are taken in turns and without what is compiled; --steps times that many
steps instead and scales them to the epoch. "wait %" is the share in which the loop waited for data.

The latency is that of one image at a time in the form that predicts: read, decoded, resized,
through the model and the rule (of k-NN with the whole training split as its gallery), the number
back on the host. Mean and standard deviation over the images.
"""

import pathlib
import statistics
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tools/ is not installed

from jaxord import evaluate
from jaxord.binding import needs
from jaxord.data import storage
from jaxord.predict import trained_model
from jaxord.task import configured_rules, gallery_of, make_task
from jaxord.workdir.layout import chosen_folds, stages_of
from tools import measure


def start(config):
    """A method ready to be timed: {"task", "run", "state", "draw", "rest", "a call", "compile s",
    "MiB"}; updates of a call."""
    task = make_task(config, chosen_folds(config)[0])
    if not task.splits["test"].records.read:
        raise ValueError(f"{config.name} has no images; the latency is that of an image file")
    batches, labels, most = measure.batches(task, task.splits["train"])
    state, step, *_ = measure.begin(task, most > 1)
    rest = labels, task.constants
    run, seconds, temporary = measure.compiled(step, state, next(batches), *rest)
    return {
        "task": task,
        "run": run,
        "state": state,
        "draw": lambda: next(batches),
        "rest": rest,
        "a call": most,
        "compile s": seconds,
        "MiB": temporary / measure.MIB,
    }


def epochs(found, steps, rounds):
    """Rows of the epochs, and the states after them in `found`."""
    whole = {
        name: len(each["task"].splits["train"].records) / each["task"].config.data.batch
        for name, each in found.items()
    }
    samples, waits = {name: [] for name in found}, {name: [] for name in found}
    for turn in range(-1, rounds):  # turn -1, of two steps or one call, is not counted
        for name, each in found.items():
            calls = -(-(2 if turn < 0 else steps or round(whole[name])) // each["a call"])
            each["state"], took, waited = measure.train(
                each["run"], each["state"], each["draw"], calls, *each["rest"]
            )
            if turn >= 0:
                samples[name].append(took * whole[name] / (calls * each["a call"]))
                waits[name].append(100 * waited / took)
    rows = []
    for name, each in found.items():
        task, data = each["task"], each["task"].config.data
        size = sum(array.size for array in (*task.trained.values(), *task.frozen.values()))
        row = {
            "method": name,
            "parameters": size,
            "rows a step": data.batch * data.copies,
            "steps": round(whole[name]),
        }
        row |= measure.spread("epoch s", samples[name]) | measure.spread("wait %", waits[name])
        row |= measure.spread(
            f"of {next(iter(found))}", measure.ratios(samples[name], next(iter(samples.values())))
        )
        rows.append(row | {key: each[key] for key in ("compile s", "MiB")})
    return rows


def predictor(task, variables):
    """The function row of the test split -> (seconds to decode, seconds in all) of the form that
    predicts."""
    config, constants = task.config, evaluate.with_text(task, variables)
    wanted = {
        gallery_of(renames)
        for function, renames in configured_rules(config).values()
        if "gallery_embeds" in needs(function)[0]
    }
    if wanted:
        embeds = evaluate.make_gather(task, wanted)(variables, "train").popitem()[1]
        targets = task.splits["train"].records.targets / np.float32(config.data.target_scale)
        constants = {**constants, "gallery_embeds": embeds, "gallery_targets": targets}
    constants, variables = jax.device_get((constants, variables))
    run = trained_model.TrainedModel(
        pathlib.Path(), config, task.ranks, task.model, constants, variables
    )
    forward, headline, records = (
        trained_model.make_forward(run),
        config.rules[0]["name"],
        task.splits["test"].records,
    )

    def predict(row):
        begun = time.perf_counter()
        stored, size = storage.decode_row(records, row, config.data)
        decoded = time.perf_counter()
        np.asarray(forward(stored[None], size[None])[headline])
        return decoded - begun, time.perf_counter() - begun

    return predict


def latencies(found, images):
    """Rows of the latencies, image by image in turns."""
    predictors = {
        name: predictor(each["task"], each["state"].variables) for name, each in found.items()
    }
    samples = {name: [] for name in found}
    for row in range(
        -2, images
    ):  # the first two, among them the one that compiles, are not counted
        for name, predict in predictors.items():
            both = predict(abs(row) % len(found[name]["task"].splits["test"].records))
            samples[name] += [both] if row >= 0 else []
    rows = []
    for name, pairs in samples.items():
        decode, whole = (np.array(part) * 1000 for part in zip(*pairs, strict=True))
        gallery = len(found[name]["task"].splits["train"].records)
        rows.append(
            {
                "method": name,
                "images": images,
                "gallery": gallery,
                "mean ms": float(whole.mean()),
                "deviation ms": statistics.stdev(whole.tolist()),
                "median ms": float(np.median(whole)),
                "decoding ms": float(decode.mean()),
            }
        )
    return rows


def main(arguments=None):
    parser = measure.options(__doc__, rounds=3, config="configs/quickstart.py")
    parser.add_argument("--methods", default="supcon,rnc,conord", help="by commas (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=0, help="of a turn; 0 is a whole epoch (%(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=100, help="of the latency, at least 2 (%(default)s)"
    )
    given = parser.parse_args(arguments)
    facts, methods = measure.header(), given.methods.split(",")
    path = given.config + ("," if ":" in given.config else ":")
    try:
        configs = {name: measure.config_of(f"{path}method={name}", given.set) for name in methods}
        found = {
            name: start(stages_of(config, pathlib.Path(), "")[0][1])
            for name, config in configs.items()
        }
        rows, latency = (
            epochs(found, given.steps, given.rounds),
            latencies(found, max(given.images, 2)),
        )
    except ValueError as error:
        return f"error: {error}"
    first = f"of {methods[0]}"
    columns = [
        "method",
        "parameters",
        "rows a step",
        "steps",
        "epoch s",
        "epoch s range",
        first,
        f"{first} range",
        "wait %",
        "compile s",
        "MiB",
    ]
    tables = {
        "An epoch": (measure.ranged(rows, "epoch s", first), columns),
        "From an image file to its prediction": (latency, list(latency[0])),
    }
    notes = [f"Epochs are scaled from {given.steps} steps."] if given.steps else []
    measure.report(f"Methods on {given.config}", facts, tables, notes, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
