"""What the workdir of a run says: its settings, results, predictions and curves, as numpy arrays.

N test samples, A numbers of a label.
"""

import csv
import dataclasses
import functools
import json
import pathlib

import numpy as np

from jaxord.targets import shots
from jaxord.targets.ranks import Ranks
from jaxord.workdir import files, layout


@dataclasses.dataclass(frozen=True)
class Fold:
    """The last stage of one fold, finished.

    Attributes:
      root: workdir of the run.
      name: of the fold; "" without folds.
      stages: [(folder, config)], of which the last one predicts.
      results: split -> row -> metric -> number.
      columns: name -> [N] texts of predictions.csv.
      predictions: rule -> f64[N] or [N, A]; the first is the headline.
      target: f64[N] or [N, A].
      ranks: of the task; None where a target is two angles.
      train_targets: labels of the training split.
      facts: name -> text, what run.json says; {} where there is none.
    """

    root: pathlib.Path
    name: str
    stages: list
    results: dict
    columns: dict
    predictions: dict
    target: np.ndarray
    ranks: Ranks | None
    train_targets: np.ndarray
    facts: dict

    @property
    def folder(self):
        return self.stages[-1][0]

    @property
    def config(self):
        return self.stages[-1][1]

    @property
    def headline(self):
        return next(iter(self.predictions))

    @property
    def done(self):
        return files.read_json(self.folder / "DONE.json")

    @functools.cached_property
    def error(self):
        """f64[N], absolute error of the headline; of several numbers a label their mean."""
        return distance(self.predictions[self.headline], self.target)

    @functools.cached_property
    def part(self):
        """[N] of "many", "median" and "few"; None where the config has no such partition."""
        return (
            shots.partition(self.config.shots, self.train_targets, self.target)
            if self.config.shots.kind
            else None
        )

    @functools.cached_property
    def further(self):
        """Columns of predictions.csv that are no path, label, rule or rank."""
        own = {"path", "rank", "rank_name", *_numbered("target", self.target)}
        own |= {
            column
            for rule, values in self.predictions.items()
            for column in _numbered(rule, values)
        }
        return {name: np.array(texts) for name, texts in self.columns.items() if name not in own}


def read(folder):
    """([Fold] that are finished, names of those that are not).

    Raises:
      ValueError: no run there, or nothing of it is finished.
    """
    folder = pathlib.Path(folder)
    config = layout.read_config(folder)
    names = layout.chosen_folds(config)
    done = [name for name in names if _is_done(layout.stages_of(config, folder, name))]
    if not done:
        raise ValueError(f"{folder} is not done; the command that began it goes on with it")
    return [_read_fold(folder, config, name) for name in done], [
        name for name in names if name not in done
    ]


def _is_done(stages):
    return all((folder / "DONE.json").exists() for folder, _ in stages)


def _read_fold(root, config, name):
    stages = layout.stages_of(config, root, name)
    folder, config = stages[-1]
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = {title: [row[k] for row in rows] for k, title in enumerate(header)}
    predictions = {rule["name"]: _numbers(columns, rule["name"]) for rule in config.rules}
    ranks, _, train_targets = layout.read_facts(folder)
    facts = files.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    results = files.read_numbers(folder / "results.json")
    return Fold(
        root,
        name,
        stages,
        results,
        columns,
        predictions,
        _numbers(columns, "target"),
        ranks,
        train_targets,
        facts,
    )


def _numbers(columns, name):
    if name in columns:
        return np.array(columns[name], float)
    several = [
        title
        for title in columns
        if title.rpartition("_")[0] == name and title.rpartition("_")[2].isdigit()
    ]
    return np.stack([np.array(columns[title], float) for title in several], 1)


def _numbered(name, values):
    return {name} if values.ndim == 1 else {f"{name}_{k}" for k in range(values.shape[1])}


def distance(prediction, target):
    """Absolute errors, f64[N]; of several numbers a label their mean."""
    error = np.abs(prediction - target)
    return error if error.ndim == 1 else error.mean(1)


def numbers_of(folds, row, metric, split="test"):
    """A metric of a row of results.json over the folds, f64[folds]; nan where it is not there."""
    return np.array(
        [fold.results.get(split, {}).get(row, {}).get(metric, np.nan) for fold in folds], float
    )


def curves(folder, config):
    """What metrics.jsonl holds: {panel: {line: (steps, values)}}, the loss first, then its terms,
    then the metrics.

    Args:
      folder: of a stage.
      config: of the stage.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [
        {key: np.nan if value is None else value for key, value in line.items()} for line in lines
    ]  # null: not defined
    first, *others = (rule["name"] for rule in config.rules)
    found = {}
    for line in lines:
        split, step = line.pop("split"), line.pop("step")
        for key, value in line.items():
            panel, name = _place(split, key, config.metrics, first if others else "")
            found.setdefault(panel, {}).setdefault(name, []).append((step, value))
    order = ["loss", "terms of the loss", "gradient norm", *config.metrics]
    panels = {
        panel: {name: _series(pairs) for name, pairs in found[panel].items()}
        for panel in order
        if panel in found
    }
    if len(panels.get("terms of the loss", ())) == 1:
        del panels["terms of the loss"]  # it is the loss
    return panels


def _place(split, key, metrics, headline):
    """(panel, line) of a value that was logged."""
    if split == "train":
        name = {"loss": "loss", "gradient_norm": "gradient norm", "skipped": "skipped"}.get(key)
        return (name, "training") if name else ("terms of the loss", key)
    split = {"train evaluated": "training split"}.get(split, split.removesuffix(" evaluated"))
    rule, _, metric = key.rpartition(" ")
    own = headline if metric not in ("ordinality_score", "group_accuracy", "group_distance") else ""
    return (metric if metric in metrics else key), ", ".join(filter(None, [split, rule or own]))


def _series(pairs):
    steps, values = zip(*pairs, strict=True)
    return np.array(steps), np.array(values, float)
