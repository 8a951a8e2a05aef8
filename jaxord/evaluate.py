"""Predictions of a whole split, the rules' values, the metrics over them, and the baselines beside them.

Shapes: N records of a split.
"""

import csv
import dataclasses

import jax
import numpy as np

from jaxord import assemble, metrics, sharding, trees
from jaxord.binding import bind, lookup, needs
from jaxord.data import pipeline
from jaxord.step import make_forward


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A split's predictions and what they are worth.

    Attributes:
      predictions: rule -> f32[N], in the order of the records; the first rule is the headline.
      scores: rule -> metric -> number; the baselines `constant` and `majority` are rows too.
    """

    predictions: dict
    scores: dict


def make_evaluate(task):
    """Builds evaluate(parameters, split name) -> Evaluation for a task; compiles once.

    Every record counts once, whatever the batch. Metrics are computed over the whole split, never averaged over batches.
    """
    rules = assemble.rules(task.config)
    scorers = {name: lookup(metrics, name) for name in task.config.metrics}
    wanted = {renames.get(name, name) for rule, renames in rules.values() for names in needs(rule) for name in names}
    forward = make_forward(task.model, task.prepare(train=False), wanted, sharding.replicated(task.mesh))
    target_of_train = task.splits["train"].records.targets

    def evaluate(parameters, name):
        split, labels = task.splits[name], task.labels[name]
        constants = dict(task.constants)
        if "prompt_tokens" in constants and "text_embeds" not in constants:
            constants["text_embeds"] = assemble.text_embeds(task.model, parameters, constants)
        nested, parts = trees.unflatten(parameters), []
        for batch in pipeline.eval_batches(split, batch=task.config.data.eval_batch):
            valid = batch.pop("valid")
            outputs = jax.device_get(forward(nested, batch, labels, constants))
            parts.append({key: value[valid] for key, value in outputs.items()})
        gathered = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts[0] else {}
        arrays = {**constants, **gathered}
        predictions = {rule: np.asarray(bind(function, arrays, renames)) for rule, (function, renames) in rules.items()}

        target, rank_of = split.records.targets, task.ranks.index
        shown = {rule: (values, rank_of(values)) for rule, values in predictions.items()}
        constant = np.full(len(target), np.median(target_of_train), np.float32)
        ranks, counts = np.unique(rank_of(target_of_train), return_counts=True)
        commonest = np.full(len(target), ranks[counts.argmax()])
        shown["constant"] = constant, rank_of(constant)
        shown["majority"] = task.ranks.values[commonest], commonest
        facts = {"target": target, "rank": rank_of(target), "rank_values": task.ranks.values}
        if "text_embeds" in constants:
            facts["text_embeds"] = np.asarray(constants["text_embeds"])
        scores = {
            row: {
                metric: float(bind(scorer, {**facts, "prediction": values, "predicted_rank": ranks}))
                for metric, scorer in scorers.items()
            }
            for row, (values, ranks) in shown.items()
        }
        return Evaluation(predictions, scores)

    return evaluate


def write_predictions(path, task, name, predictions):
    """predictions.csv: path, target, each rule's value, the headline's rank and its name, further columns of the data."""
    records = task.splits[name].records
    headline = task.ranks.index(next(iter(predictions.values())))
    columns = {
        "path": records.paths,
        "target": [f"{value:g}" for value in records.targets],
        **{rule: [f"{value:.6g}" for value in values] for rule, values in predictions.items()},
        "rank": headline,
        "rank_name": [task.ranks.names[rank] for rank in headline],
        **{column: values for column, values in records.columns.items() if column not in ("path", "target")},
    }
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
