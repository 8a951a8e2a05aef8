"""Sections from the workdir alone: settings of the run, its scores and its learning curves.

Each takes the finished folds and the first one's model, run again (rerun.Rerun), and gives the
parts of the section, or the reason for having none.
"""

import json

import jax
import numpy as np

from jaxord import metrics
from jaxord.report import page, runs
from jaxord.report.figures import training
from jaxord.targets import shots
from jaxord.workdir import layout
from jaxord.workdir.results import SELECTED_ON_TEST, numbers_of, read_scores, with_sd

IN_RUN_JSON = ("command", "device", "versions", "seconds")
ORACLE = "true_expert"  # a rule that reads the label's group
BASELINES = (
    "The first row is the headline. “constant” always answers the median of the training labels, "
    "“majority” their most frequent rank: neither looks at the input."
)
RERUN = "All settings are in config.json; --mode=evaluate with this workdir repeats the results."


def settings(folds, model):
    """Data, model and training."""
    fold = folds[0]
    pairs = [*_of_data(folds, model), *_of_model(fold), *_of_training(fold)]
    for name, value in fold.facts.items():
        if not name.endswith(" examples"):
            pairs.append((name, value if isinstance(value, str) else json.dumps(value)))
    pairs.append(("this report", f"{layout.versions()}, on {jax.devices()[0].device_kind}"))
    parts = [page.facts(pairs)]
    missing = [name for name in IN_RUN_JSON if name not in fold.facts]
    if missing:
        parts.append(page.note(f"The run has not stored: {', '.join(missing)}."))
    return [*parts, page.note(RERUN)]


def source_of(config):
    """Name, reader and place of the data."""
    data = config.data
    return f"{config.name}, read by {data.reader['name']} from {data.root}"


def tower_of(config):
    """Name of the image tower."""
    return config.model.image_tower or f"CLIP {config.model.variant}"


def weights_of(config):
    """Where the towers' weights come from."""
    return config.model.weights or config.model.image_weights or "from scratch"


def _of_data(folds, model):
    fold = folds[0]
    sizes = {"train": len(fold.train_targets)}
    # The workdir does not keep the size of the validation split, the data do.
    if "val" in model.records:
        sizes["val"] = len(model.records["val"])
    sizes["test"] = len(fold.test.target)
    label = "two angles"
    if fold.ranks:
        names, low, high = fold.ranks.names, fold.ranks.values[0], fold.ranks.values[-1]
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        label = f"{len(names)} ranks from {low:g} to {high:g}: {listed}"
    return [
        ("data", source_of(fold.config)),
        ("folds", ", ".join(f.name for f in folds) if fold.name else "none: one split"),
        ("examples", ", ".join(f"{name} {size:,}" for name, size in sizes.items())),
        ("label", label),
    ]


def _of_model(fold):
    c = fold.config
    losses = [f"{loss.get('weight', 1.0):g} x {loss['name']}" for loss in c.losses]
    prompt = filter(None, [c.prompt.name, c.prompt.template])
    lines = (fold.folder / "parameters.txt").read_text().splitlines()
    total = next((line for line in lines if line.startswith("Total: ")), "Total: -")
    count = total.removeprefix("Total: ").replace(" --", ",").replace(".0", "")
    return [
        ("method", c.method + (f", preset {c.preset}" if c.preset else "")),
        ("tower", f"{tower_of(c)}, {weights_of(c)}"),
        ("prompt", " ".join(prompt) or "none: no text side"),
        ("heads", ", ".join(head["name"] for head in c.heads) or "none"),
        ("losses", ", ".join(losses) or "none"),
        ("rules", ", ".join(rule["name"] for rule in c.rules) + "; the first is the headline"),
        ("parameters", count),
    ]


def _of_training(fold):
    c, done = fold.config, fold.done
    schedule = f"{c.optim.name}, schedule {c.optim.schedule}"
    stages = ", ".join(folder.name for folder, _ in fold.stages)
    selected = f"step {done['step']:,} of {done['steps']:,}: {done['selected']}"
    return [
        ("training", f"{c.train.duration}, batches of {c.data.batch}, {schedule}"),
        *([("stages", stages)] if len(fold.stages) > 1 else []),
        ("parameters taken from", selected),
        ("seed", c.seed),
    ]


def scores(folds, model):
    """The scores of the test split, beside baselines and the paper."""
    config, results = folds[0].config, [fold.scores for fold in folds]
    of_shots = tuple(f", {part}" for part in shots.SHOTS)
    rows = [row for row in results[0] if row != "model" and not row.endswith(of_shots)]
    names = [name for name in config.metrics if name in results[0][rows[0]]]

    def cells(row):
        return [_mean(results, row, name) for name in names]

    # Readers mistake baselines and oracles for methods.
    note = BASELINES
    if ORACLE in rows:
        note += f" “{ORACLE}” reads the true group and cannot predict."
    if len(folds) > 1:
        note += f" Mean ± standard deviation over {len(folds)} folds."
    parts = [_beside_constant(results, rows, names, cells), page.note(note)]
    of_model = results[0].get("model")
    if of_model:
        parts.append(page.facts((name, _mean(results, "model", name)) for name in of_model))
    if config.shots.kind:
        parts.append(page.heading("By how often the training split has the label"))
        parts.append(_by_shots(results, rows, names, cells))
    if len(folds) > 1:
        header, folded = ["fold", *names], [(fold.name, fold.scores[rows[0]]) for fold in folds]
        body = [[fold, *(row.get(name, np.nan) for name in names)] for fold, row in folded]
        parts += [page.heading(f"Each fold, under {rows[0]}"), page.table(header, body)]
    if config.select == "test":
        parts.append(page.paragraph(SELECTED_ON_TEST))
    paper = "The config names no published figures for this method here."
    if config.paper:
        paper = f"Published, {config.method}: {config.paper}."
    return [*parts, page.note(paper)]


def _mean(results, row, metric):
    return with_sd(numbers_of(results, row, metric), "{:.4g} ± {:.2g}")


def _beside_constant(results, rows, names, cells):
    """All rows; the last column relates the first error to that of the constant baseline."""
    header, body = ["test split", *names], [[row, *cells(row)] for row in rows]
    error = next((name for name in names if name in metrics.LOWER_IS_BETTER), None)
    if error:
        header.append(f"{error}, share of the constant's")
        constant = numbers_of(results, "constant", error)
        for line in body:
            line.append(float(np.mean(numbers_of(results, line[0], error) / constant)))
    return page.table(header, body, first=True)


def _by_shots(results, rows, names, cells):
    def is_filled(part):
        return np.isfinite(numbers_of(results, f"constant, {part}", names[0])).any()

    parts = [part for part in shots.SHOTS if is_filled(part)]
    labels = [f"{row}, {part}" for row in rows for part in parts]
    return page.table(["test split", *names], [[label, *cells(label)] for label in labels])


def learning(folds, model):
    """Curves of each stage."""
    parts = []
    for k, (folder, config) in enumerate(folds[0].stages):
        each = [runs.curves(*fold.stages[k]) for fold in folds]
        panels = {}
        # Folds of other sizes log at other steps and have no common mean.
        for panel, lines in each[0].items():
            have = {
                line: [one[panel][line] for one in each if line in one.get(panel, {})]
                for line in lines
            }
            panels[panel] = {line: runs.stacked(some) for line, some in have.items()}
        if not panels:
            continue
        caption = "Loss and gradient norm of training batches; metrics on whole splits."
        if len(folds) > 1:
            caption += " Means over the folds; bands reach from the lowest to the highest."
        if len(folds[0].stages) > 1:
            parts.append(page.heading(f"Stage {folder.name}"))
        linear = set(config.metrics) - set(metrics.LOWER_IS_BETTER)
        parts.append(page.picture(training.curves(panels, linear=linear), caption))
    return parts or "the run has trained no step."


def elsewhere(folds, model):
    """Results on other data, and their change."""
    config, evaluated = folds[0].config, folds[0].root / "evaluated"
    found = sorted(evaluated.rglob("results.json"))
    if not found:
        return "the run was evaluated on no other data; --mode=evaluate --config=... does that."
    here, select = folds[0].scores[folds[0].headline], config.select_metric
    names = [name for name in config.metrics if name in here]
    body = [["its own test split", *(float(here[name]) for name in names), ""]]
    for file in found:
        other = next(iter(read_scores(file.parent).values()))
        change = other.get(select, np.nan) / here[select] - 1 if here.get(select) else np.nan
        cells = (float(other.get(name, np.nan)) for name in names)
        body.append([str(file.parent.relative_to(evaluated)), *cells, f"{change:+.1%}"])
    return [page.table(["evaluated on", *names, f"relative change of {select}"], body, first=True)]
