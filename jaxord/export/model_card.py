"""The model card of a finished run: data, scores with intervals, weak spots and limits.

N rows of predictions.csv.
"""

import json
import pathlib
import string

import numpy as np

from jaxord import metrics
from jaxord.binding import bind, lookup, needs
from jaxord.workdir import files, run_config
from jaxord.workdir.results import markdown, read_predictions

CARD = string.Template(pathlib.Path(__file__).with_suffix(".md").read_text("utf-8"))
RESAMPLES = 1000  # of the bootstrap; a fifth of them for more than MANY rows
MANY = 5000
LEAST = 5  # rows of a group that is judged
MOST = 20  # values of a column that makes groups
SHOWN = 3  # of the weakest
# By family of readers in jaxord.data.readers; from the limits that ConOrd's authors report.
QUALITY = " Known of such models: the lowest and the highest opinion scores are predicted worst."
LIMITS = {
    "faces": " Known of such models: older people with smooth skin are estimated too young, young "
    "faces in shadow too old.",
    "quality": QUALITY,
    "videos": QUALITY,
}


def card(config, ranks, folder, train_targets, done, fold=""):
    """The card as Markdown.

    Args:
      config: of the run's last stage.
      ranks: jaxord.targets.ranks.Ranks, or None with two angles.
      folder: of that stage; holds predictions.csv and run.json.
      train_targets: labels of the training split, f32[N] or [N, 2].
      done: content of DONE.json.
      fold: of the run, "" without folds.

    Raises:
      ValueError: no predictions.csv there.
    """
    test = read_predictions(folder, [rule["name"] for rule in config.rules])
    figures = [scores(config, ranks, test.values[rule], test.target) for rule in test.values]
    body = [[rule, *cells.values()] for rule, cells in zip(test.values, figures, strict=True)]
    error = np.abs(next(iter(test.values.values())) - test.target)
    # Readers of the card cannot see how the parameters were selected.
    notes = []
    if config.select == "test":
        notes.append(
            "**The parameters were selected on the test split**: the figures are too good."
        )
    if config.paper:
        notes.append(f"Published, {config.method}: {config.paper}")
    return CARD.substitute(
        data="\n".join(_data(config, folder, train_targets, len(error), done, fold)),
        figures="\n".join(markdown(["rule", *figures[0]], body)),
        notes="".join(f"\n{note}\n" for note in notes),
        weakest="\n".join(weak_ranks(ranks, error, test.target) + weak_groups(test.extra, error)),
        name=config.name,
        limits=LIMITS.get(config.data.reader.name.partition(".")[0], ""),
    )


def front_matter(folder):
    """The lines by which the hub links a model to the one it started from; "" without one."""
    start = _start(folder)
    return f"---\nbase_model: {start['id']}\n---\n\n" if start.get("commit") else ""


def _start(folder):
    """What run.json tells of the weights that the run started from; {} without any."""
    run = folder / "run.json"
    return files.read_json(run).get("weights") or {} if run.exists() else {}


def _data(config, folder, train_targets, test_size, done, fold):
    """Lines on data and training."""
    low, high = np.min(train_targets, axis=0), np.max(train_targets, axis=0)
    reader, run = run_config.plain(config.data.reader), folder / "run.json"
    sizes = files.read_json(run) if run.exists() else {}
    of_fold = f", fold {fold}" if fold else ""
    lines = [f"- data: `{config.name}`, read by `{reader.pop('name')}`{of_fold}"]
    if reader:
        settings = json.dumps(reader)
        lines.append(f"- settings of the reader, which splits the data: `{settings}`")
    lines.append(f"- training: {len(train_targets):,} examples, labels from {low} to {high}")
    # Only run.json knows the size of the validation split; old runs have none.
    if "val examples" in sizes:
        lines.append(f"- validation: {sizes['val examples']:,} examples")
    preset = f", preset `{config.preset}`" if config.preset else ""
    step = f"step {done['step']:,} of {done['steps']:,}"
    lines += [
        f"- test: {test_size:,} examples that were not trained on",
        f"- method: `{config.method}`{preset}, seed {config.seed}",
        f"- parameters: {done['selected']}, {step}",
    ]
    start = _start(folder)
    if start:
        commit = f", commit `{start['commit']}`" if start.get("commit") else ""
        lines.append(f"- started from: `{start['id']}`{commit}")
    if config.data.shots or config.data.shift.labels:
        reduced = "see `data.shots` and `data.shift` of the config"
        lines.append(f"- the training split is reduced on purpose, {reduced}")
    return lines


def scores(config, ranks, prediction, target):
    """{metric: "0.31 (0.29 - 0.33)"} of the metrics that compare predictions with labels."""
    arrays = {"prediction": prediction, "target": target}
    if ranks:
        arrays |= {"predicted_rank": ranks.index(prediction), "rank": ranks.index(target)}
    cells = {}
    for name in config.metrics:
        metric = lookup(metrics, name)
        if set(needs(metric)[0]) <= set(arrays):
            low, high = interval(metric, arrays)
            cells[name] = f"{bind(metric, arrays):.4g} ({low:.4g} - {high:.4g})"
    return cells


def interval(metric, arrays, seed=0):
    """The 2.5 % and 97.5 % quantiles of a metric over resamples of the rows."""
    size, values = len(arrays["target"]), []
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES if size <= MANY else RESAMPLES // 5):
        rows = generator.integers(size, size=size)
        values.append(bind(metric, {name: array[rows] for name, array in arrays.items()}))
    values = np.array(values)
    if np.isnan(values).all():
        return np.nan, np.nan
    return np.quantile(values[~np.isnan(values)], (0.025, 0.975))


def weak_ranks(ranks, error, target):
    """Lines on the ranks with the largest mean error f64[N]."""
    if ranks is None:
        return []
    rank = ranks.index(target)
    missing = [name for k, name in enumerate(ranks.names) if k not in rank]
    lines = _worst("rank", {ranks.names[k]: error[rank == k] for k in np.unique(rank)}, error)
    return lines + ([f"- ranks without a test example: {', '.join(missing)}"] if missing else [])


def weak_groups(columns, error):
    """Lines on the values of further columns (gender, race, ...) with the largest mean error."""
    error, lines = error.reshape(len(error), -1).mean(1), []
    for title, values in columns.items():
        names = np.unique(values)
        if 2 <= len(names) <= MOST:
            lines += _worst(title, {name: error[values == name] for name in names}, error)
    none = "- the data has no column of groups (gender, race, camera, ...) to divide errors by"
    return lines or [none]


def _worst(title, errors, overall):
    """A line on the groups with the largest mean absolute error; small ones are not judged."""
    judged = {name: group for name, group in errors.items() if len(group) >= LEAST}
    order = sorted(judged, key=lambda name: -judged[name].mean())[:SHOWN]
    texts = [f"{name} {judged[name].mean():.3g} (n = {len(judged[name])})" for name in order]
    few = len(errors) - len(judged)
    rest = f"; {few} with fewer than {LEAST} examples are not judged" if few else ""
    worst = f"worst first: {', '.join(texts) or '-'}; all {overall.mean():.3g}{rest}"
    return [f"- mean absolute error by {title}, {worst}"]
