"""Predictions of a whole split of N records, their metrics, and the baselines beside them."""

import dataclasses
import functools
import pathlib
import time

import jax
import numpy as np

from jaxord import metrics, vectors
from jaxord.binding import bind, lookup, needs
from jaxord.data.batches import outputs
from jaxord.runtime import devices, hosts, memory
from jaxord.step import make_forward
from jaxord.targets import shots
from jaxord.task import configured_rules, gallery_of, make_task, text_embeds, understood
from jaxord.workdir import files, layout, run_config
from jaxord.workdir.results import summarise, write_predictions, write_scores


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A split's predictions and how good they are.

    Attributes:
      predictions: rule -> f32[N] (or [N, 2]) on the label's scale, in the order of the records; the
        first is the headline.
      scores: row -> metric -> number. Rows are the rules and the baselines `constant` and
        `majority`; with config.shots each again for many-, median- and few-shot labels ("value,
        few"); and `model` for metrics of the model alone.
      groups: {} or the lists [G] of jaxord.targets.shots.histogram.
      gallery: {} or the neighbours that rules searched, {"embeds": f32[M, D], "targets": f32[M]}.
    """

    predictions: dict
    scores: dict
    groups: dict
    gallery: dict


def make_gather(task, names):
    """Builds gather(variables, split) -> {name: numpy array [N, ...]}, in the records' order."""
    replicated = devices.replicated(task.mesh)
    forward = make_forward(task.model, task.prepare(train=False), names, replicated)

    def gather(variables, split):
        size, constants, call = task.config.data.eval_batch, with_text(task, variables), []

        def run(arrays):
            call[:] = variables, arrays, task.labels[split], constants
            return forward(*call)

        needed = functools.partial(call_size, forward, call)
        with memory.explained("an evaluation", f"data.eval_batch={size}", needed):
            return outputs(task.splits[split], run, batch=size)

    return gather


def call_size(program, arguments):
    """Text on the memory that a jitted program takes with these arguments, [] before a call."""
    return memory.of_program(program, *arguments) if arguments else "the batch was not placed yet"


def with_text(task, variables):
    """The constants of the run, with text_embeds, the same for every image, if texts are used."""
    if "prompt_tokens" not in task.constants or "text_embeds" in task.constants:
        return task.constants
    parameters = jax.device_put(variables["params"], devices.replicated(task.mesh))
    return {**task.constants, "text_embeds": text_embeds(task.model, parameters, task.constants)}


def make_evaluate(task, gathering=make_gather):
    """Builds evaluate(variables, split, gallery=None) -> Evaluation for a task.

    Metrics are computed over the whole split, never averaged over batches. For a rule that takes
    `gallery_embeds` the training split is embedded first, under the evaluation's transform, unless
    a gallery is given. `gathering` is `make_gather` or a function like it.
    """
    config, scale = task.config, task.config.data.target_scale
    rules = configured_rules(config)
    scorers = {name: lookup(metrics, name) for name in config.metrics}
    # One pass over a split gathers all arrays that rules and metrics name.
    names, searched = set(), {}
    for name, (rule, renames) in rules.items():
        required, optional = needs(rule)
        names |= {renames.get(array, array) for array in required + optional}
        if "gallery_embeds" in required:
            searched[name] = gallery_of(renames)
    names |= {array for scorer in scorers.values() for array in needs(scorer)[0]}
    gather = gathering(task, names | ({"logits"} if "probabilities" in names else set()))
    gather_gallery = gathering(task, set(searched.values())) if searched else None
    if len(set(searched.values())) > 1:
        raise ValueError(f"a run keeps one gallery; the rules {searched} need to search one array")

    def evaluate(variables, split, gallery=None):
        targets = task.splits[split].records.targets
        arrays = {**jax.device_get(with_text(task, variables)), **gather(variables, split)}
        if searched:
            if not gallery:
                (embeds,) = gather_gallery(variables, "train").values()
                gallery = {"embeds": embeds, "targets": task.splits["train"].records.targets}
            arrays["gallery_embeds"] = gallery["embeds"]
            arrays["gallery_targets"] = gallery["targets"] / np.float32(scale)
        predictions = {name: bind(rule, arrays, renames) for name, (rule, renames) in rules.items()}
        predictions = {name: scale * np.asarray(values) for name, values in predictions.items()}
        scores = score(task, scorers, arrays, predictions, targets)
        return Evaluation(predictions, scores, groups_of(arrays), gallery or {})

    return evaluate


def score(task, scorers, arrays, predictions, targets):
    """Evaluation.scores of predictions {row: [N]} and of the baselines.

    `scorers` are the metrics by name, `arrays` what they may name beside predictions and targets.
    """
    train_targets, ranks = task.splits["train"].records.targets, task.ranks
    median = np.median(train_targets, axis=0)
    rows = {**predictions, "constant": np.broadcast_to(median, targets.shape)}
    labels, facts = {"target": targets}, dict(arrays)
    if "logits" in arrays:
        facts["probabilities"] = np.asarray(jax.nn.softmax(arrays["logits"], axis=-1))
    if ranks:
        # A label that no rank stands for is a rank of its own, which no prediction has.
        beyond = ranks.beyond(targets)
        scale = np.union1d(ranks.values, targets[beyond])
        place = np.searchsorted(scale, ranks.values).astype(np.int32)
        if beyond.any() and "probabilities" in facts:
            padded = np.zeros((len(targets), len(scale)), facts["probabilities"].dtype)
            padded[:, place] = facts["probabilities"]
            facts["probabilities"] = padded
        seen, counts = np.unique(ranks.index(train_targets), return_counts=True)
        rows["majority"] = np.full(len(targets), ranks.values[seen[counts.argmax()]])
        labels["rank"] = place[ranks.index(targets)]
        labels["rank"][beyond] = np.searchsorted(scale, targets[beyond])
    facts |= labels
    # Metrics that take no prediction describe the model alone.
    of_rows, alone = {}, {}
    for name, scorer in scorers.items():
        of_row = {"prediction", "predicted_rank"} & set(needs(scorer)[0])
        (of_rows if of_row else alone)[name] = scorer

    def apply(functions, own):
        return {name: float(bind(f, {**facts, **own})) for name, f in functions.items()}

    settings, shot = task.config.shots, None
    if settings.kind:
        shot = shots.partition(settings, train_targets, targets)
    scores = {}
    for row, values in rows.items():
        own = {"prediction": values, **labels}
        if ranks:
            own["predicted_rank"] = place[ranks.index(values)]
        scores[row] = apply(of_rows, own)
        for part in shots.SHOTS if shot is not None else ():
            some = {name: array[shot == part] for name, array in own.items()}
            undefined = dict.fromkeys(of_rows, float("nan"))
            scores[f"{row}, {part}"] = apply(of_rows, some) if len(some["target"]) else undefined
    return {**scores, "model": apply(alone, {})} if alone else scores


def groups_of(arrays):
    """Evaluation.groups."""
    if not {"group", "group_logits"} <= set(arrays):
        return {}
    logits = arrays["group_logits"]
    histogram = shots.histogram(arrays["group"], logits.argmax(1), logits.shape[1])
    names = "true", "predicted", "distance"
    return {name: counts.tolist() for name, counts in zip(names, histogram, strict=True)}


def placed_references(task, variables, gathering=make_gather):
    """Reference points at the mean unit embedding of their training samples, {path: points}.

    {} without a ReferencePoints head of initial="mean". Labels between two points count for the
    nearer; a point without samples starts at zero.
    """
    heads = task.config.heads
    if not any(h["name"] == "ReferencePoints" and h.get("initial") == "mean" for h in heads):
        return {}
    path = next(path for path in variables["params"] if path.startswith("reference_points/"))
    embeds = gathering(task, {"image_embeds"})(variables, "train")["image_embeds"]
    embeds = np.asarray(vectors.unit(embeds))
    reference = np.rint(np.asarray(task.labels["train"]["reference"])).astype(int)
    points = np.zeros(variables["params"][path].shape, np.float32)
    np.add.at(points, reference, embeds)
    points /= np.maximum(np.bincount(reference, minlength=len(points)), 1)[:, None]
    points = {path: points}
    return devices.put(points, devices.by_size(points, task.mesh, task.config.model.fsdp))


def evaluate_and_write(task, evaluate, variables, folder, gallery=None):
    """Evaluates validation and test split, and writes the results; a given gallery is on disk."""
    results, stored = {}, gallery is not None
    for split in ("val", "test"):
        if split in task.splits:
            evaluation = evaluate(variables, split, gallery)
            # The same parameters give the test split the same gallery.
            gallery = evaluation.gallery
            results[split] = evaluation.scores
    if stored:
        evaluation = dataclasses.replace(evaluation, gallery={})
    write_results(folder, task, evaluation, results)


@hosts.first
def write_results(folder, task, evaluation, results):
    """Writes the scores of all splits, and predictions, groups and gallery of the test split."""
    write_predictions(folder / "predictions.csv", task, "test", evaluation.predictions)
    if evaluation.groups:
        files.write_json(folder / "groups.json", evaluation.groups)
    if evaluation.gallery:
        with files.replacing(folder / "gallery.npz", "wb") as file:
            np.savez(file, **evaluation.gallery)
    # Predicting needs the words beside the parameters.
    vocabulary = task.splits["test"].records.vocabulary
    if vocabulary:
        files.write_json(folder / "vocabulary.json", vocabulary)
    write_scores(folder, results)


def finish(folder, task, began, step, total, selected):
    """Writes run.json and DONE.json of a stage that `began` at that time.monotonic()."""
    sizes = {name: len(split.records) for name, split in task.splits.items()}
    layout.write_run(folder, time.monotonic() - began, sizes, task.weights)
    done = {"step": step, "steps": total, "selected": selected}
    hosts.first(files.write_json)(folder / "DONE.json", done)


def evaluate_run(workdir, config=None, output=""):
    """Evaluates the selected parameters of a finished run again and prints the table.

    Args:
      workdir: of the run.
      config: gives other data, rules, metrics or corruption; None is the run's own. The transform
        and the gallery of neighbours stay those of the training.
      output: folder of the results; "" is the run's own, or `<workdir>/evaluated/<config's name>`.

    Raises:
      ValueError: no finished run there, or folds that do not pair up.
    """
    workdir = pathlib.Path(workdir)
    trained = layout.read_config(workdir)
    pairs = fold_pairs(layout.chosen_folds(trained), layout.chosen_folds(config or trained))
    target = workdir / "evaluated" / config.name if config else None
    target = pathlib.Path(output) if output else target
    folders = []
    for fold, data_fold in pairs:
        source, stage = layout.stages_of(trained, workdir, fold)[-1]
        folder = (target / f"fold_{data_fold}" if data_fold else target) if target else source
        # Ranks and constants are those of the training, whatever labels the data have.
        variables, facts = layout.selected(source), layout.read_facts(source)
        task = make_task(run_config.evaluated(stage, config), data_fold, variables, facts)
        if config:
            hosts.first(print)("\n".join(understood(task, facts[2])), flush=True)
        placed = devices.put(variables, devices.by_size(variables, task.mesh, stage.model.fsdp))
        if target:
            start_over(target)
            start_over(folder)
        file = source / "gallery.npz"
        gallery = files.read_arrays(file) if file.exists() else None
        evaluate_and_write(task, make_evaluate(task), placed, folder, gallery)
        if target:
            hosts.first(files.write_json)(folder / "DONE.json", layout.read_done(source))
        folders.append(folder)
    if target and target not in folders:
        done = {"folds": [fold for _, fold in pairs]}
        hosts.first(files.write_json)(target / "DONE.json", done)
    summarise(config or trained, folders)


def fold_pairs(trained, data):
    """[(fold of the run, fold of the data)]; a run of one fold takes all folds of the data."""
    if len(trained) == 1:
        return [(trained[0], fold) for fold in data]
    if not set(trained) <= set(data):
        words = f"the run has the folds {trained}, the data {data}"
        raise ValueError(f"{words}; evaluate one fold with --config=...:fold=")
    return [(fold, fold) for fold in trained]


@hosts.first
def start_over(folder):
    """Makes the folder of an evaluation; removes DONE.json first, so a kill leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DONE.json").unlink(missing_ok=True)
