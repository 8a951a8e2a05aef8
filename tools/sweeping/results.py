"""Scores of an experiment's finished runs, and the reasons why others have none.

A row is a rule, "value", or a rule on a part of the test split or on other data: "value, few" on
few-shot labels; "value, nature" over the folds of a category (nature-0, nature-1, ...); "value,
konvid" from an evaluation of the finished run, under evaluated/konvid in its folder, the mean if
that holds several.
"""

import collections
import copy
import dataclasses
import functools
import json
import os
import pathlib
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
from jaxord.workdir.results import over_folds, read_scores
from tools.sweeping import plan

NEAREST = "1-nearest neighbour"
THUMBNAIL = 16  # pixels
ALIKE = ("reader", "root", "table", "shots", "shift", "corruption")  # fields of config.data

# A finished run: config of its last stage, text of its ranks.json, row -> metric -> number of the
# test split over the folds, and fold -> the same of each.
Result = collections.namedtuple("Result", "config ranks rows folds", defaults=({},))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The runs of an experiment on one data set.

    Attributes:
      runs: [plan.Run].
      results: run -> Result or None.
      folder: of the experiment.
    """

    runs: list
    results: dict
    folder: pathlib.Path

    @property
    def done(self):
        """[Result] of finished runs."""
        return [self.results[run] for run in self.runs if self.results[run]]

    @functools.cached_property
    def labels(self):
        """label -> its finished runs, in the experiment's order."""
        labels = {}
        for run in self.runs:
            if self.results[run]:
                labels.setdefault(run.label, []).append(run)
        return labels

    def numbers(self, label, metric, part=""):
        """f64[n], a metric of the headline on a part of the labels, over the seeds."""
        results = [self.results[run] for run in self.labels[label]]
        return np.array([number_of(r, r.rows, headline(r) + part, metric) for r in results])


def lacking(folder, evaluations):
    """The evaluations of a run that are missing."""
    found = folder / "evaluated"
    return [name for name in evaluations if not any((found / name).glob("**/results.json"))]


def read(folder, evaluations=()):
    """Reads a Result; None if the run is not done. Leaves out parts that lack an evaluation."""
    if not (folder / "config.json").exists():
        return None
    config = run_config.from_json((folder / "config.json").read_text())
    chosen = layout.chosen_folds(config)
    ends = {name: layout.stages_of(config, folder, name)[-1] for name in chosen}
    if not all((end / "DONE.json").exists() for end, _ in ends.values()):
        return None
    folds = {name: read_scores(end) for name, (end, _) in ends.items()}
    parts = collections.defaultdict(list)
    for name in folds if len(folds) > 1 else ():
        parts[name.partition("-")[0]].append(folds[name])
    for file in sorted(folder.glob("evaluated/**/results.json")):
        part = file.relative_to(folder / "evaluated").parts[0]
        parts[part].append(read_scores(file.parent))
    # A mean over some of the evaluations would not compare with complete ones.
    for name in lacking(folder, evaluations):
        parts.pop(name.split("/")[0], None)
    rows = over_folds(list(folds.values()), config.summary)
    for part, some in parts.items():
        rows |= {f"{row}, {part}": scores for row, scores in over_folds(some).items()}
    files = [end / "ranks.json" for end, _ in ends.values()]
    ranks = "".join(file.read_text() for file in files if file.exists())
    return Result(next(iter(ends.values()))[1], ranks, rows, folds)


def read_all(experiment, runs, folder):
    """({name of a run: names of its evaluations}, {run: Result or None}) of an experiment."""
    evaluations = {run.name: [] for run in runs}
    for evaluation in plan.evaluations_of(experiment, runs):
        evaluations[evaluation.of].append(evaluation.name.partition("/evaluated/")[2])
    return evaluations, {run: read(folder / run.name, evaluations[run.name]) for run in runs}


def headline(result, part=""):
    """The row of the first rule, on a part of the test split if one is named."""
    return result.config.rules[0]["name"] + (f", {part}" if part else "")


def number_of(result, rows, row, metric):
    """A metric of a row, nan if undefined; a rule has the model's metrics too."""
    is_rule = row in [rule["name"] for rule in result.config.rules]
    of_model = rows.get("model", {}) if is_rule else {}
    return {**of_model, **rows.get(row, {})}.get(metric, np.nan)


def by_fold(result, row, metric):
    """{fold: number} of a row; {"": number} if the row is of no single fold."""
    folds = {fold: rows for fold, rows in result.folds.items() if row in rows}
    folds = folds or {"": result.rows}
    return {fold: number_of(result, rows, row, metric) for fold, rows in folds.items()}


def values(result, part=""):
    """{fold: the selecting metric under the headline rule}."""
    return by_fold(result, headline(result, part), result.config.select_metric)


def reason(run, folder, done):
    """Says what an unfinished run lacks, or how far it is.

    Args:
      run: plan.Run.
      folder: that holds the folders of the runs.
      done: [Result] of finished runs on the same data set, which know where the data are.
    """
    config = plan.config_of(run)
    root, weights = (done[0].config if done else config).data.root, config.model.weights
    lacks = []
    # A demo makes its own data.
    if not config.data.reader["name"].startswith("demo.") and not os.path.isdir(root):
        lacks.append(f"no data in {root}")
    cached = f"{HF_HUB_CACHE}/models--{weights.replace('/', '--')}"
    if weights and not os.path.isdir(weights) and not os.path.isdir(cached):
        lacks.append(f"no weights {weights}")
    return ", ".join(lacks) or ("begun" if (folder / f"{run.name}.log").exists() else "not run")


def nearest(result, folder):
    """Scores of the nearest training thumbnail on a run's splits, kept in nearest.json.

    Images are decoded as for training, but to 16 x 16 pixels; the distance is the Euclidean one
    over all bytes.

    Raises:
      ValueError: the data are missing, or they are no images.
    """
    c = copy.deepcopy(result.config).unlock()
    c.data.update({"resize": "square", "stored_size": THUMBNAIL, "image_size": THUMBNAIL})
    c.data.update({"tier": "cached", "cache": ""})
    scorers = {metric: lookup(metrics, metric) for metric in result.rows["constant"]}
    source = {field: run_config.plain(c.data[field]) for field in ALIKE}
    parts = [source, run_config.plain(c.shots), c.fold, c.seed, sorted(scorers), result.ranks]
    key, file = json.dumps(parts), folder / "nearest.json"
    kept = read_numbers(file) if file.exists() else {}
    if key not in kept:
        names = layout.chosen_folds(c)
        kept[key] = over_folds([_nearest(c, fold, scorers, result.ranks) for fold in names])
        write_json(file, kept)
    return {row: scores for row, scores in kept[key].items() if row.startswith(NEAREST)}


def _nearest(c, fold, scorers, has_ranks):
    """row -> metric -> number of one fold."""
    records = readers.load(c.data, fold, c.seed, c.ranks)
    if records["train"].read is None:
        raise ValueError(f"{c.name} has no images")
    splits = {
        name: storage.decode_split(records[name], data_of(c, name), None)
        for name in ("train", "test")
    }
    train, test = (
        split.images.reshape(len(split.images), -1).astype(np.float64) for split in splits.values()
    )
    targets = splits["train"].records.targets
    # |train - image|^2 without |image|^2.
    squares = (train**2).sum(1)
    closest = [np.argmin(squares - 2 * train @ image) for image in test]
    ranks = build(c.ranks, targets, rank_names(records["train"])) if has_ranks else None
    task = types.SimpleNamespace(config=c, splits=splits, ranks=ranks)
    predictions = {NEAREST: targets[closest]}
    return evaluate.score(task, scorers, {}, predictions, splits["test"].records.targets)
