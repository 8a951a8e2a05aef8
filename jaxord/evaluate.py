"""Predictions of a whole split, the rules' values, the metrics over them, and the baselines beside
them.

Shapes: N records of a split.
"""

import csv
import dataclasses
import pathlib

import jax
import numpy as np

from jaxord import metrics, vectors
from jaxord.binding import bind, lookup, needs
from jaxord.data.batches import outputs
from jaxord.runtime import devices, hosts, memory
from jaxord.step import make_forward
from jaxord.targets import shots
from jaxord.task import configured_rules, gallery_of, make_task, text_embeds
from jaxord.workdir import files, run_config
from jaxord.workdir.layout import (
    chosen_folds,
    read_config,
    read_done,
    read_facts,
    selected,
    stages_of,
)
from jaxord.workdir.results import summarise


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A split's predictions and what they are worth.

    Attributes:
      predictions: rule -> f32[N] (or [N, 2]) on the label's scale, in the order of the records; the
        first is the headline.
      scores: row -> metric -> number. Rows are the rules, the baselines `constant` and `majority`,
        each again for many-, median- and few-shot labels where config.shots says what they are
        ("value, few"), and `model` for metrics of the model alone. A row has the metrics that are
        defined for it.
      groups: where there are groups: how many samples each truly has and is predicted to have, and
        how far its samples miss (jaxord.targets.shots.histogram), each a list [G]; else {}.
      gallery: what rules with neighbours searched: {"embeds": f32[M, D], "targets": f32[M]}, else
        {}.
    """

    predictions: dict
    scores: dict
    groups: dict
    gallery: dict


def make_gather(task, names):
    """Builds gather(variables, split name) -> {name: numpy array [N, ...]} of outputs or batch
    arrays; compiles once.

    Every record counts once, in the order of the records, whatever the batch.
    """
    forward = make_forward(
        task.model, task.prepare(train=False), names, devices.replicated(task.mesh)
    )

    def gather(variables, name):
        size, constants, batch = task.config.data.eval_batch, with_text(task, variables), {}

        def takes():
            return (
                memory.of_program(forward, variables, batch, task.labels[name], constants)
                if batch
                else "none is there yet"
            )

        def run(arrays):
            batch.update(arrays)
            return forward(variables, arrays, task.labels[name], constants)

        with memory.explained("an evaluation", f"data.eval_batch={size}", takes):
            return outputs(task.splits[name], run, batch=size)

    return gather


def with_text(task, variables):
    """The constants of the run, with text_embeds where the model has a text side: they are the same
    for every image."""
    if "prompt_tokens" not in task.constants or "text_embeds" in task.constants:
        return task.constants
    whole = jax.device_put(variables["params"], devices.replicated(task.mesh))
    return {**task.constants, "text_embeds": text_embeds(task.model, whole, task.constants)}


def make_evaluate(task, gathering=make_gather):
    """Builds evaluate(variables, split name, gallery=None) -> Evaluation for a task; `gathering` is
    as `make_gather`.

    Metrics are computed over the whole split, never averaged over batches. A rule that takes
    `gallery_embeds` makes the training split be embedded first, under the evaluation's transform,
    unless a gallery is given.
    """
    config, scale = task.config, task.config.data.target_scale
    rules = configured_rules(config)
    scorers = {name: lookup(metrics, name) for name in config.metrics}
    wanted = {
        renames.get(name, name)
        for rule, renames in rules.values()
        for names in needs(rule)
        for name in names
    }
    wanted |= {name for scorer in scorers.values() for name in needs(scorer)[0]}
    gather = gathering(task, wanted | ({"logits"} if "probabilities" in wanted else set()))
    target_of_train = task.splits["train"].records.targets
    by_rule = {
        rule: gallery_of(renames)
        for rule, (function, renames) in rules.items()
        if "gallery_embeds" in needs(function)[0]
    }
    gather_gallery = gathering(task, set(by_rule.values())) if by_rule else None
    if len(set(by_rule.values())) > 1:
        raise ValueError(
            f"the rules compare with neighbours by {by_rule}; a run keeps one gallery, so take one array"
        )

    def evaluate(variables, name, gallery=None):
        target = task.splits[name].records.targets
        arrays = {**jax.device_get(with_text(task, variables)), **gather(variables, name)}
        if by_rule:
            gallery = gallery or {
                "embeds": gather_gallery(variables, "train").popitem()[1],
                "targets": target_of_train,
            }
            arrays |= {
                "gallery_embeds": gallery["embeds"],
                "gallery_targets": gallery["targets"] / np.float32(scale),
            }
        predictions = {
            rule: scale * np.asarray(bind(function, arrays, renames))
            for rule, (function, renames) in rules.items()
        }
        scores = score(task, scorers, arrays, predictions, target)
        return Evaluation(predictions, scores, groups_of(arrays), gallery or {})

    return evaluate


def score(task, scorers, arrays, predictions, target):
    """row -> metric -> number, see Evaluation."""
    target_of_train, ranks = task.splits["train"].records.targets, task.ranks
    shown = {
        **predictions,
        "constant": np.broadcast_to(np.median(target_of_train, axis=0), target.shape),
    }
    facts = {**arrays, "target": target}
    if "logits" in arrays:
        facts["probabilities"] = np.asarray(jax.nn.softmax(arrays["logits"], axis=-1))
    predicted = {}
    if ranks:
        found, counts = np.unique(ranks.index(target_of_train), return_counts=True)
        shown["majority"] = np.full(len(target), ranks.values[found[counts.argmax()]])
        facts |= {"rank": ranks.index(target)}
        predicted = {row: {"predicted_rank": ranks.index(values)} for row, values in shown.items()}
    of_rows = {
        name: scorer
        for name, scorer in scorers.items()
        if set(needs(scorer)[0]) & {"prediction", "predicted_rank"}
    }
    shot = (
        shots.partition(task.config.shots, target_of_train, target)
        if task.config.shots.kind
        else None
    )
    scores = {}
    for row, values in shown.items():
        own = {
            "prediction": values,
            **predicted.get(row, {}),
            **{k: facts[k] for k in ("target", "rank") if k in facts},
        }
        scores[row] = {
            name: float(bind(scorer, {**facts, **own})) for name, scorer in of_rows.items()
        }
        for part in shots.SHOTS if shot is not None else ():
            some = {name: array[shot == part] for name, array in own.items()}
            scores[f"{row}, {part}"] = {
                name: float(bind(scorer, {**facts, **some}))
                if len(some["target"])
                else float("nan")
                for name, scorer in of_rows.items()
            }
    alone = {
        name: float(bind(scorer, facts)) for name, scorer in scorers.items() if name not in of_rows
    }
    return {**scores, **({"model": alone} if alone else {})}


def groups_of(arrays):
    """Evaluation.groups."""
    if not {"group", "group_logits"} <= set(arrays):
        return {}
    predicted = arrays["group_logits"].argmax(1)
    true, hit, distance = shots.histogram(
        arrays["group"], predicted, arrays["group_logits"].shape[1]
    )
    return {"true": true.tolist(), "predicted": hit.tolist(), "distance": distance.tolist()}


def placed_references(task, variables, gathering=make_gather):
    """{path: points} at the mean unit embedding of each one's training samples, where a
    ReferencePoints head starts so.

    A point without samples starts at zero; `gathering` is as `make_gather`. Labels between two
    points count for the nearer.
    """
    if not any(
        entry["name"] == "ReferencePoints" and entry.get("initial") == "mean"
        for entry in task.config.heads
    ):
        return {}
    path = next(path for path in variables["params"] if path.startswith("reference_points/"))
    embeds = np.asarray(
        vectors.unit(gathering(task, {"image_embeds"})(variables, "train")["image_embeds"])
    )
    reference = np.rint(np.asarray(task.labels["train"]["reference"])).astype(int)
    points = np.zeros(variables["params"][path].shape, np.float32)
    np.add.at(points, reference, embeds)
    points /= np.maximum(np.bincount(reference, minlength=len(points)), 1)[:, None]
    points = {path: points}
    return devices.put(points, devices.by_size(points, task.mesh, task.config.model.fsdp))


def write_predictions(path, task, name, predictions):
    """predictions.csv: path, target, each rule's value, the headline's rank and its name, further
    columns of the data."""
    records, headline = task.splits[name].records, next(iter(predictions.values()))
    columns = {"path": records.paths, **numbered("target", records.targets)}
    for rule, values in predictions.items():
        columns |= numbered(rule, values)
    if task.ranks:
        ranks = task.ranks.index(headline)
        columns |= {"rank": ranks, "rank_name": [task.ranks.names[rank] for rank in ranks]}
    own = {*columns, "rank", "rank_name"}  # the data's own rank_name is that of the target
    columns |= {column: values for column, values in records.columns.items() if column not in own}
    with files.replacing(path, newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def numbered(name, values):
    """{column name: texts}; of several numbers a row each has its own column, name_0, name_1."""
    if values.ndim == 1:
        return {name: [f"{value:.6g}" for value in values]}
    return {
        f"{name}_{i}": [f"{value:.6g}" for value in column] for i, column in enumerate(values.T)
    }


def report(task, evaluate, variables, folder, gallery=None):
    """Evaluates validation and test split, and writes what it found, predictions and groups of the
    test split.

    A gallery that is given lies on disk already.
    """
    results, made = {}, gallery is None
    for name in ("val", "test"):
        if name in task.splits:
            evaluation = evaluate(variables, name, gallery)
            gallery = evaluation.gallery  # the same parameters made it: once is enough
            results[name] = evaluation.scores
    write(
        folder, task, evaluation if made else dataclasses.replace(evaluation, gallery={}), results
    )


@hosts.first
def write(folder, task, evaluation, results):
    """Writes predictions.csv, groups.json, the gallery and the vocabulary of an evaluation of the
    test split; results.json."""
    write_predictions(folder / "predictions.csv", task, "test", evaluation.predictions)
    if evaluation.groups:
        files.write_json(folder / "groups.json", evaluation.groups)
    if evaluation.gallery:
        with files.replacing(folder / "gallery.npz", "wb") as file:
            np.savez(file, **evaluation.gallery)
    vocabulary = task.splits["test"].records.vocabulary
    if vocabulary:  # what predicting needs beside the parameters
        files.write_json(folder / "vocabulary.json", vocabulary)
    files.write_json(folder / "results.json", results)


@hosts.first
def begin(folder):
    """Makes the folder of an evaluation. One that was done is not done any more: a kill may leave
    some files of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DONE.json").unlink(missing_ok=True)


def evaluate_run(workdir, config=None, output=""):
    """Evaluates the selected parameters of a finished run again and prints the table; nothing is
    trained.

    Args:
      workdir: of the run.
      config: what to evaluate it on: data, rules and metrics of this config under the run's own
        transform, so that another data set, another k or data.corruption is another config; None is
        the run's own. The gallery of neighbours stays that of the training.
      output: folder of the results; "" with a config is <workdir>/evaluated/<name of the config>,
        without one the run's own.

    Raises:
      ValueError: no finished run there, or folds that do not pair up.
    """
    workdir = pathlib.Path(workdir)
    trained = read_config(workdir)
    own = chosen_folds(trained)
    wanted = chosen_folds(config) if config else own
    pairs = [(own[0], fold) for fold in wanted] if len(own) == 1 else [(fold, fold) for fold in own]
    if not {fold for _, fold in pairs} <= set(wanted):
        raise ValueError(
            f"the run has the folds {own}, the data {wanted}; evaluate one fold with --config=...:fold="
        )
    target = (
        pathlib.Path(output) if output else workdir / "evaluated" / config.name if config else None
    )
    folders = []
    for fold, other in pairs:
        source, stage = stages_of(trained, workdir, fold)[-1]
        folder = source
        if target:
            folder = target / f"fold_{other}" if other else target
        variables = selected(source)
        task = make_task(run_config.evaluated(stage, config), other, variables, read_facts(source))
        placed = devices.put(variables, devices.by_size(variables, task.mesh, stage.model.fsdp))
        if target:
            begin(target)
            begin(folder)
        gallery = source / "gallery.npz"
        report(
            task,
            make_evaluate(task),
            placed,
            folder,
            files.read_arrays(gallery) if gallery.exists() else None,
        )
        if target:
            hosts.first(files.write_json)(folder / "DONE.json", read_done(source))
        folders.append(folder)
    if target and target not in folders:
        hosts.first(files.write_json)(target / "DONE.json", {"folds": [fold for _, fold in pairs]})
    summarise(config or trained, folders)
