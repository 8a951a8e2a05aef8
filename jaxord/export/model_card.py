"""The model card of a finished run: what it was trained on, how good it is and how surely, where it
is weakest, its limits.

N rows of predictions.csv, R resamples.
"""

import csv
import json

import numpy as np

from jaxord import metrics
from jaxord.binding import bind, lookup, needs
from jaxord.workdir import files, run_config

RESAMPLES, MANY = (
    1000,
    5000,
)  # of the bootstrap; a fifth of them where there are more rows than that
LEAST, MOST = 5, 20  # rows of a group that is judged; values of a column that makes groups
SHOWN = 3  # of the weakest
BOOTSTRAP = (
    "In brackets: 95 % intervals by bootstrap over the examples, as if all of them were independent; where a person or a scene "
    "gives several, the truth is wider."
)
USE = (
    "Research on ordinal regression, and estimates of the label of `{name}` that a person looks at. Not for decisions about "
    "people."
)
GENERAL = (
    "The model was fitted to the photographs and raters of one data set. Other cameras, scenes, people and raters are outside "
    "of what was measured here; evaluate it on labelled examples of your own first (`--mode=evaluate --config=...`)."
)
ETHICS = (
    "The papers behind these methods warn of surveillance, of breaches of privacy and of bias between groups of people. They "
    "ask that predictions about people support a decision and never make it, after a fair evaluation of every group that is "
    "concerned. Do not use this model to identify, watch or rank people, or to refuse them anything."
)
# Of what a family of readers in jaxord.data gives; from the limits that ConOrd's authors report
LIMITS = {
    "faces": "Known of such models: older people with smooth skin are estimated too young, young faces in shadow too old.",
    "quality": "Known of such models: the lowest and the highest opinion scores are predicted worst.",
    "videos": "Known of such models: the lowest and the highest opinion scores are predicted worst.",
}


def card(config, ranks, folder, train_targets, done, fold=""):
    """The card as Markdown.

    Args:
      config: of the run's last stage.
      ranks: jaxord.targets.ranks.Ranks, or None with two angles.
      folder: of that stage; holds predictions.csv, and run.json.
      train_targets: labels of the training split, f32[N] or [N, 2].
      done: content of DONE.json.
      fold: of the run, "" without folds.

    Raises:
      ValueError: no predictions.csv there.
    """
    table = read(folder / "predictions.csv")
    rules = [rule["name"] for rule in config.rules if numbers(table, rule["name"]) is not None]
    target, first = numbers(table, "target"), numbers(table, rules[0])
    low, high = np.min(train_targets, axis=0), np.max(train_targets, axis=0)
    reader, run = run_config.plain(config.data.reader), folder / "run.json"
    sizes = files.read_json(run) if run.exists() else {}
    data = [
        f"- data: `{config.name}`, read by `{reader.pop('name')}`"
        + (f", fold {fold}" if fold else ""),
        *(
            [f"- settings of the reader, which splits the data: `{json.dumps(reader)}`"]
            if reader
            else []
        ),
        f"- training: {len(train_targets):,} examples, labels from {low} to {high}",
        *([f"- validation: {sizes['val examples']:,} examples"] if "val examples" in sizes else []),
        f"- test: {len(target):,} examples that were not trained on",
        f"- method: `{config.method}`"
        + (f", preset `{config.preset}`" if config.preset else "")
        + f", seed {config.seed}",
        f"- parameters: {done['selected']}, step {done['step']:,} of {done['steps']:,}",
    ]
    if config.data.shots or config.data.shift.labels:
        data.append(
            "- the training split is reduced on purpose, see `data.shots` and `data.shift` of the config"
        )
    figures = [row(config, ranks, rule, numbers(table, rule), target) for rule in rules]
    weakest = weak_ranks(ranks, first, target) + weak_groups(
        table, first, target, known=(*rules, "target")
    )
    notes = [BOOTSTRAP]
    if config.select == "test":
        notes.append(
            "**The parameters were selected on the test split**: the figures are too good."
        )
    if config.paper:
        notes.append(f"Published, {config.method}: {config.paper}")
    limits = [
        text for family, text in LIMITS.items() if config.data.reader.name.startswith(f"{family}.")
    ]
    sections = {
        "Data": "\n".join(data),
        "Figures on the test split": "\n\n".join(["\n".join(markdown(figures)), *notes]),
        "Where it is weakest": "\n".join(weakest),
        "Intended use": USE.format(name=config.name),
        "Limits": "\n\n".join([" ".join([GENERAL, *limits]), ETHICS]),
    }
    return "# Model card\n\n" + "".join(
        f"## {title}\n\n{text}\n\n" for title, text in sections.items()
    )


def read(file):
    """predictions.csv as {column: list of texts}."""
    if not file.exists():
        raise ValueError(f"{file.parent} has no predictions.csv; --mode=evaluate writes it again")
    with open(file, newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def numbers(table, name):
    """The column f64[N], or of two angles [N, 2]; None where there is neither."""
    if name in table:
        return np.array(table[name], np.float64)
    parts = [table[f"{name}_{i}"] for i in range(2) if f"{name}_{i}" in table]
    return np.array(parts, np.float64).T if parts else None


def row(config, ranks, rule, prediction, target):
    """{"rule": name, metric: "0.31 (0.29 - 0.33)"} of the metrics that compare predictions with
    labels."""
    facts = {"prediction": prediction, "target": target}
    if ranks:
        facts |= {"predicted_rank": ranks.index(prediction), "rank": ranks.index(target)}
    found = {"rule": rule}
    for name in config.metrics:
        metric = lookup(metrics, name)
        if set(needs(metric)[0]) <= set(facts):
            low, high = interval(metric, facts)
            found[name] = f"{bind(metric, facts):.4g} ({low:.4g} - {high:.4g})"
    return found


def interval(metric, facts, seed=0):
    """The 2.5 % and 97.5 % quantiles of a metric over resamples of the rows; resamples where it is
    not defined are left out."""
    size = len(facts["target"])
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES if size <= MANY else RESAMPLES // 5):
        rows = generator.integers(size, size=size)
        values.append(bind(metric, {name: array[rows] for name, array in facts.items()}))
    values = np.array(values)
    return (
        np.quantile(values[~np.isnan(values)], (0.025, 0.975))
        if not np.isnan(values).all()
        else (np.nan, np.nan)
    )


def weak_ranks(ranks, prediction, target):
    """Lines on the ranks with the largest mean error."""
    if ranks is None:
        return []
    error, rank = np.abs(prediction - target), ranks.index(target)
    found = {ranks.names[k]: error[rank == k] for k in np.unique(rank)}
    missing = [name for name in ranks.names if name not in found]
    return worst("rank", found, error) + (
        [f"- ranks without a test example: {', '.join(missing)}"] if missing else []
    )


def weak_groups(table, prediction, target, known):
    """Lines on the values of further columns of the data (gender, race, kind of distortion) with
    the largest mean error."""
    own = {
        "path",
        "rank",
        "rank_name",
        *known,
        *(f"{name}_{i}" for name in known for i in range(2)),
    }
    error, lines = np.abs(prediction - target).reshape(len(target), -1).mean(1), []
    for column in table:
        values = np.array(table[column])
        found = (
            {value: error[values == value] for value in sorted(set(table[column]))}
            if column not in own
            else {}
        )
        if 2 <= len(found) <= MOST:
            lines += worst(column, found, error)
    return lines or [
        "- the data has no column of groups (gender, race, camera, ...) by which errors could be broken down"
    ]


def worst(title, errors, every):
    """Lines on the groups with the largest mean absolute error; small ones are not judged."""
    judged = {name: group for name, group in errors.items() if len(group) >= LEAST}
    order = sorted(judged, key=lambda name: -judged[name].mean())[:SHOWN]
    texts = [f"{name} {judged[name].mean():.3g} (n = {len(judged[name])})" for name in order]
    few = len(errors) - len(judged)
    rest = f"; {few} with fewer than {LEAST} examples are not judged" if few else ""
    return [
        f"- mean absolute error by {title}, worst first: {', '.join(texts) or '-'}; all {every.mean():.3g}{rest}"
    ]


def markdown(rows):
    """Rows of a table as Markdown."""
    columns = list(rows[0])
    lines = [
        columns,
        ["---"] * len(columns),
        *([str(found[column]) for column in columns] for found in rows),
    ]
    return ["| " + " | ".join(line) + " |" for line in lines]
