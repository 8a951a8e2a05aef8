"""The finished folds of a workdir as numpy arrays: settings, scores, predictions and curves.

N test samples, A numbers of a label.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from jaxord.targets import shots
from jaxord.targets.ranks import Ranks
from jaxord.workdir import files, layout
from jaxord.workdir.results import Predictions, read_predictions, read_scores

OF_MODEL = ("ordinality_score", "group_accuracy", "group_distance")  # metrics that no rule changes


@dataclasses.dataclass(frozen=True)
class Fold:
    """The last stage of one finished fold.

    Attributes:
      root: workdir of the run.
      name: of the fold; "" without folds.
      stages: [(folder, config)]; the last one predicts.
      scores: row -> metric -> number on the test split.
      test: predictions.csv.
      ranks: of the task; None if a label is two angles.
      train_targets: labels of the training split.
      facts: content of run.json; {} if the run has none.
    """

    root: pathlib.Path
    name: str
    stages: list
    scores: dict
    test: Predictions
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
        return next(iter(self.test.values))

    @property
    def predicted(self):
        """The headline's values, f64[N] or f64[N, A]."""
        return self.test.values[self.headline]

    @property
    def done(self):
        return files.read_json(self.folder / "DONE.json")

    @functools.cached_property
    def error(self):
        """f64[N], absolute error of the headline."""
        return distance(self.predicted, self.test.target)

    @functools.cached_property
    def part(self):
        """[N] of "many", "median" and "few"; None if the config has no such partition."""
        kind = self.config.shots
        return shots.partition(kind, self.train_targets, self.test.target) if kind.kind else None


def read(folder):
    """Reads a workdir: ([Fold] of finished folds, names of the others).

    Raises:
      ValueError: no run there, or no fold of it is finished.
    """
    folder, folds, unfinished = pathlib.Path(folder), [], []
    config = layout.read_config(folder)
    for name in layout.chosen_folds(config):
        stages = layout.stages_of(config, folder, name)
        if all((stage / "DONE.json").exists() for stage, _ in stages):
            folds.append(_read_fold(folder, name, stages))
        else:
            unfinished.append(name)
    if not folds:
        raise ValueError(f"{folder} is not done; the command that began it goes on with it")
    return folds, unfinished


def _read_fold(root, name, stages):
    folder, config = stages[-1]
    test = read_predictions(folder, [rule["name"] for rule in config.rules])
    ranks, _, train_targets = layout.read_facts(folder)
    facts = files.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return Fold(root, name, stages, read_scores(folder), test, ranks, train_targets, facts)


def pooled(folds):
    """The predictions of several folds as one."""

    def join(parts):
        if isinstance(parts[0], dict):
            return {name: join([part[name] for part in parts]) for name in parts[0]}
        return np.concatenate(parts)

    names = [field.name for field in dataclasses.fields(Predictions)]
    return Predictions(*(join([getattr(fold.test, name) for fold in folds]) for name in names))


def distance(prediction, target):
    """Absolute errors, f64[N]; with several numbers a label their mean."""
    error = np.abs(prediction - target)
    return error if error.ndim == 1 else error.mean(1)


def stacked(lines):
    """Joins [(steps, values)]: (steps, [values]) of the lines with the first one's steps."""
    steps = lines[0][0]
    return steps, [values for others, values in lines if np.array_equal(others, steps)]


def read_groups(folder):
    """Reads groups.json: (true [G], predicted [G], distance [G]); None if the method has none."""
    file = folder / "groups.json"
    if not file.exists():
        return None
    groups = files.read_json(file)
    return [np.array(groups[name], float) for name in ("true", "predicted", "distance")]


def curves(folder, config):
    """Reads metrics.jsonl of a stage: {panel: {line: (steps, values)}}.

    The loss comes first, then its terms, then the metrics.
    """
    headline, *others = (rule["name"] for rule in config.rules)
    panels = {}
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        split, step = line.pop("split"), line.pop("step")
        for key, value in line.items():
            panel, label = _place(split, key, config.metrics, headline if others else "")
            points = panels.setdefault(panel, {}).setdefault(label, [])
            points.append((step, np.nan if value is None else value))
    order = ["loss", "terms of the loss", "gradient norm", *config.metrics]
    found = {
        panel: {label: tuple(np.array(points, float).T) for label, points in panels[panel].items()}
        for panel in order
        if panel in panels
    }
    # A single term is the loss itself.
    if len(found.get("terms of the loss", ())) == 1:
        del found["terms of the loss"]
    return found


def _place(split, key, metrics, headline):
    """(panel, line) of a logged value."""
    if split == "train":
        name = {"loss": "loss", "gradient_norm": "gradient norm", "skipped": "skipped"}.get(key)
        return (name, "training") if name else ("terms of the loss", key)
    split = {"train evaluated": "training split"}.get(split, split.removesuffix(" evaluated"))
    rule, _, metric = key.rpartition(" ")
    rule = rule or ("" if metric in OF_MODEL else headline)
    return metric if metric in metrics else key, ", ".join(filter(None, [split, rule]))
