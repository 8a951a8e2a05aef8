"""What the finished runs of an experiment have written, and why others have not.

A row is a rule, "value", or a rule on a part of the test split or on something else: "value, few"
on few-shot labels; "value, nature" over the folds of a category (nature-0, nature-1, ...); "value,
konvid" by an evaluation of the finished run, under evaluated/konvid in its folder, the mean where
that holds several.
"""

import collections
import copy
import json
import os
import types

import numpy as np
from huggingface_hub.constants import HF_HUB_CACHE

from jaxord import evaluate, metrics
from jaxord.binding import lookup
from jaxord.data import readers, storage
from jaxord.targets.ranks import build
from jaxord.task import data_of, rank_names
from jaxord.workdir import layout, run_config
from jaxord.workdir.files import read_numbers, write_json
from tools.sweeping import plan

NEAREST, THUMBNAIL = "1-nearest neighbour", 16  # pixels

# A finished run: config of its last stage, text of its ranks.json, row -> metric -> number of the
# test split over the folds, and fold -> the same of each.
Result = collections.namedtuple("Result", "config ranks rows folds", defaults=({},))


def lacking(folder, evaluations):
    """Those of a run's evaluations that are not there."""
    return [
        name
        for name in evaluations
        if not any((folder / "evaluated" / name).glob("**/results.json"))
    ]


def read(folder, evaluations=()):
    """Result of a run, over its folds; None where it is not done. A part that lacks one of the
    evaluations is left out."""
    if not (folder / "config.json").exists():
        return None
    config = run_config.from_json((folder / "config.json").read_text())
    ends = {
        fold: layout.stages_of(config, folder, fold)[-1] for fold in layout.chosen_folds(config)
    }
    if not all((end / "DONE.json").exists() for end, _ in ends.values()):
        return None
    folds, parts = (
        {fold: tested(end) for fold, (end, _) in ends.items()},
        collections.defaultdict(list),
    )
    for fold in folds if len(folds) > 1 else ():
        parts[fold.partition("-")[0]].append(folds[fold])
    for file in sorted(folder.glob("evaluated/**/results.json")):
        parts[file.relative_to(folder / "evaluated").parts[0]].append(tested(file.parent))
    for name in lacking(folder, evaluations):
        parts.pop(name.split("/")[0], None)
    rows = over_folds(list(folds.values()), config.summary)
    for part, some in parts.items():
        rows |= {f"{row}, {part}": scores for row, scores in over_folds(some).items()}
    ranks = [
        (end / "ranks.json").read_text()
        for end, _ in ends.values()
        if (end / "ranks.json").exists()
    ]
    return Result(next(iter(ends.values()))[1], "".join(ranks), rows, folds)


def read_all(experiment, runs, folder):
    """({name of a run: names of its evaluations}, {run: Result or None}) of an experiment."""
    evaluations = {run.name: [] for run in runs}
    for evaluation in plan.evaluations_of(experiment, runs):
        evaluations[evaluation.of].append(evaluation.name.partition("/evaluated/")[2])
    return evaluations, {run: read(folder / run.name, evaluations[run.name]) for run in runs}


def tested(folder):
    return read_numbers(folder / "results.json")["test"]


def over_folds(folds, summary="mean"):
    """row -> metric -> mean or median over the folds."""
    return {
        row: {
            name: float(getattr(np, summary)([fold[row][name] for fold in folds]))
            for name in folds[0][row]
        }
        for row in folds[0]
    }


def headline(result):
    """Name of the first rule."""
    return result.config.rules[0]["name"]


def by_fold(result, row, metric):
    """{fold: number} of a row, {"": number} where the row is of no single fold; to a rule belong
    the model's own metrics."""

    def number(rows):
        own = rows.get("model", {}) if row in [rule["name"] for rule in result.config.rules] else {}
        return {**own, **rows.get(row, {})}.get(metric, np.nan)

    return {fold: number(rows) for fold, rows in result.folds.items() if row in rows} or {
        "": number(result.rows)
    }


def values(result, part=""):
    """{fold: the selecting metric under the headline rule}; of a part where one is named."""
    return by_fold(
        result, headline(result) + (f", {part}" if part else ""), result.config.select_metric
    )


def reason(run, folder, done):
    """Why a run is not done: what it lacks, or how far it is.

    Args:
      run: plan.Run.
      folder: that holds the folders of the runs.
      done: [Result] of finished runs of the same data set, which know where the data lie.
    """
    config = plan.config_of(run)
    root, weights = (done[0].config if done else config).data.root, config.model.weights
    lacks = []
    if not config.data.reader["name"].startswith("demo.") and not os.path.isdir(
        root
    ):  # a demo makes its own
        lacks.append(f"no data in {root}")
    if weights and not any(
        map(os.path.isdir, (weights, f"{HF_HUB_CACHE}/models--{weights.replace('/', '--')}"))
    ):
        lacks.append(f"no weights {weights}")
    return ", ".join(lacks) or ("begun" if (folder / f"{run.name}.log").exists() else "not run")


def nearest(result, folder):
    """Rows of the nearest thumbnail for the split of a run, kept in nearest.json.

    Images are decoded as for training, but to 16 x 16 pixels; the distance is the Euclidean one of
    all their bytes.

    Raises:
      ValueError: the data are not there, or they are no images.
    """
    c = copy.deepcopy(result.config).unlock()
    c.data.update(
        {
            "resize": "square",
            "stored_size": THUMBNAIL,
            "image_size": THUMBNAIL,
            "tier": "cached",
            "cache": "",
        }
    )
    scorers = {metric: lookup(metrics, metric) for metric in result.rows["constant"]}
    source = {
        field: run_config.plain(c.data[field])
        for field in ("reader", "root", "table", "shots", "shift", "corruption")
    }
    key = json.dumps(
        [source, run_config.plain(c.shots), c.fold, c.seed, sorted(scorers), result.ranks]
    )
    file = folder / "nearest.json"
    kept = read_numbers(file) if file.exists() else {}
    if key not in kept:
        folds = []
        for fold in layout.chosen_folds(c):
            records = readers.load(c.data, fold, c.seed)
            if records["train"].read is None:
                raise ValueError(f"{c.name} has no images")
            splits = {
                name: storage.decode_split(records[name], data_of(c, name), None)
                for name in ("train", "test")
            }
            train, test = (
                split.images.reshape(len(split.images), -1).astype(np.float64)
                for split in splits.values()
            )
            squares = (train**2).sum(1)
            closest = [
                np.argmin(squares - 2 * train @ image) for image in test
            ]  # |train - image|^2 without |image|^2
            prediction, target = (
                splits["train"].records.targets[closest],
                splits["test"].records.targets,
            )
            ranks = None
            if result.ranks:
                ranks = build(
                    c.ranks, splits["train"].records.targets, rank_names(records["train"])
                )
            task = types.SimpleNamespace(config=c, splits=splits, ranks=ranks)
            folds.append(evaluate.score(task, scorers, {}, {NEAREST: prediction}, target))
        kept[key] = over_folds(folds)
        write_json(file, kept)
    return {row: scores for row, scores in kept[key].items() if row.startswith(NEAREST)}
