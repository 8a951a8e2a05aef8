"""Sections from the workdir alone: what was run, and what came out.

Each takes the finished folds and what the model of the first one has seen, and gives the parts of
the page, or a sentence on why there is nothing to show.
"""

import json

import jax
import numpy as np

from jaxord import metrics
from jaxord.report import page, runs
from jaxord.report.figures import groups, predictions, training
from jaxord.targets import shots
from jaxord.workdir import files, layout

WANTED = ("command", "device", "versions", "seconds")  # of run.json
PANELS = 3  # rules beside each other
ORACLE = "true_expert"  # a rule that reads the label's group


def what(folds, seen):
    """Data, model and training."""
    fold, done = folds[0], folds[0].done
    c, data = fold.config, fold.config.data
    sizes = {
        "train": len(fold.train_targets),
        "val": len(seen.records["val"]) if "val" in seen.records else None,
        "test": len(fold.target),
    }
    total = [
        line
        for line in (fold.folder / "parameters.txt").read_text().splitlines()
        if line.startswith("Total")
    ]
    tower = c.model.image_tower or f"CLIP {c.model.variant}"
    pairs = [
        ("data", f"{c.name}, read by {data.reader['name']} from {data.root}"),
        ("folds", ", ".join(f.name for f in folds) if folds[0].name else "none: one split"),
        (
            "examples",
            ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size is not None),
        ),
        ("label", _label(fold)),
        ("method", c.method + (f", preset {c.preset}" if c.preset else "")),
        (
            "tower",
            f"{tower}, {'from scratch' if not (c.model.weights or c.model.image_weights) else c.model.weights}",
        ),
        (
            "prompt",
            " ".join(filter(None, [c.prompt.name, c.prompt.template])) or "none: no text side",
        ),
        ("heads", ", ".join(head["name"] for head in c.heads) or "none"),
        (
            "losses",
            ", ".join(f"{loss.get('weight', 1.0):g} x {loss['name']}" for loss in c.losses)
            or "none",
        ),
        ("rules", ", ".join(rule["name"] for rule in c.rules) + "; the first is the headline"),
        (
            "parameters",
            total[0].removeprefix("Total: ").replace(" --", ",").replace(".0", "")
            if total
            else "-",
        ),
        (
            "training",
            f"{c.train.duration}, batches of {data.batch}, {c.optim.name}, schedule {c.optim.schedule}",
        ),
        *(
            [("stages", ", ".join(folder.name for folder, _ in fold.stages))]
            if len(fold.stages) > 1
            else []
        ),
        (
            "parameters taken from",
            f"step {done['step']:,} of {done['steps']:,}: {done['selected']}",
        ),
        ("seed", c.seed),
        *(
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in fold.facts.items()
            if not name.endswith(" examples")
        ),
        ("this report", f"{layout.versions()}, on {jax.devices()[0].device_kind}"),
    ]
    parts = [page.facts(pairs)]
    missing = [name for name in WANTED if name not in fold.facts]
    if missing:
        parts.append(page.paragraph(f"The run has not stored: {', '.join(missing)}.", kind="note"))
    note = "All settings are in config.json; --mode=evaluate with this workdir computes the results below again."
    return [*parts, page.paragraph(note, kind="note")]


def _label(fold):
    if fold.ranks is None:
        return "two angles"
    values, names = fold.ranks.values, fold.ranks.names
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(values)} ranks from {values[0]:g} to {values[-1]:g}: {listed}"


def results(folds, seen):
    """The table of the test split, beside baselines and the paper."""
    c, rows = folds[0].config, folds[0].results["test"]
    whole = [
        row
        for row in rows
        if row != "model" and not row.endswith(tuple(f", {part}" for part in shots.SHOTS))
    ]
    names = [name for name in c.metrics if name in rows[whole[0]]]
    judged = next((name for name in names if name in metrics.LOWER_IS_BETTER), None)
    header = ["test split", *names] + ([f"{judged}, share of the constant's"] if judged else [])
    body = []
    for row in whole:
        line = [row, *(spread(runs.numbers_of(folds, row, name)) for name in names)]
        if judged:
            line.append(
                float(
                    np.mean(
                        runs.numbers_of(folds, row, judged)
                        / runs.numbers_of(folds, "constant", judged)
                    )
                )
            )
        body.append(line)
    over = f" Mean ± standard deviation over {len(folds)} folds." if len(folds) > 1 else ""
    looks = ORACLE in whole
    parts = [
        page.table(header, body, first=True),
        page.paragraph(
            "The first row is the headline. “constant” always answers the median of the training labels, “majority” their most "
            "frequent rank: neither looks at the input."
            + (f" “{ORACLE}” reads the true group and cannot predict." if looks else "")
            + over,
            kind="note",
        ),
    ]
    alone = rows.get("model", {})
    if alone:
        parts.append(
            page.facts([(name, spread(runs.numbers_of(folds, "model", name))) for name in alone])
        )
    if c.shots.kind:
        there = [
            part
            for part in shots.SHOTS
            if np.isfinite(runs.numbers_of(folds, f"constant, {part}", names[0])).any()
        ]
        body = [
            [
                f"{row}, {part}",
                *(spread(runs.numbers_of(folds, f"{row}, {part}", name)) for name in names),
            ]
            for row in whole
            for part in there
        ]
        parts += [
            page.heading("By how often the training split has the label"),
            page.table(["test split", *names], body),
        ]
    if len(folds) > 1:
        body = [
            [fold.name, *(float(runs.numbers_of([fold], whole[0], name)[0]) for name in names)]
            for fold in folds
        ]
        parts += [page.heading(f"Each fold, under {whole[0]}"), page.table(["fold", *names], body)]
    if c.select == "test":
        parts.append(
            page.paragraph(
                "SELECTED ON THE TEST SPLIT: comparable only with figures that were chosen so too."
            )
        )
    paper = (
        f"Published, {c.method}: {c.paper}."
        if c.paper
        else "The config names no published figures for this method here."
    )
    return [*parts, page.paragraph(paper, kind="note")]


def spread(numbers):
    """The number, or of several folds their mean ± standard deviation."""
    if len(numbers) == 1 or not np.isfinite(numbers).all():
        return float(np.mean(numbers))
    return f"{numbers.mean():.4g} ± {numbers.std(ddof=1):.2g}"


def learning(folds, seen):
    """Curves of each stage."""
    parts = []
    for k, (folder, _) in enumerate(folds[0].stages):
        each = [runs.curves(*fold.stages[k]) for fold in folds]
        panels = {
            panel: {
                line: _over_folds([one[panel].get(line) for one in each if panel in one])
                for line in lines
            }
            for panel, lines in each[0].items()
        }
        if not panels:
            continue
        caption = "The loss and the gradient norm of training batches; metrics on whole splits."
        if len(folds) > 1:
            caption += (
                " Lines are means over the folds, bands reach from the lowest to the highest."
            )
        parts += [page.heading(f"Stage {folder.name}")] if len(folds[0].stages) > 1 else []
        linear = [
            name
            for name in panels
            if name in folds[0].config.metrics and name not in metrics.LOWER_IS_BETTER
        ]
        parts.append(page.picture(training.curves(panels, linear=linear), caption))
    return parts or "the run has trained no step."


def _over_folds(series):
    """(steps, values [folds, n]) where all folds have the same steps, else those of the first."""
    steps = series[0][0]
    same = [one[1] for one in series if one is not None and np.array_equal(one[0], steps)]
    return steps, np.stack(same)


def pooled(folds, make):
    """make(fold) of all folds as one array."""
    return np.concatenate([make(fold) for fold in folds])


def same_ranks(folds):
    """The folds whose ranks are those of the first: only these can stand in one figure."""
    first = folds[0].ranks
    return [
        fold
        for fold in folds
        if fold.ranks.names == first.names and np.array_equal(fold.ranks.values, first.values)
    ]


def scatter(folds, seen):
    """Predicted against true."""
    target = pooled(folds, lambda fold: fold.target)
    first = folds[0].headline
    if target.ndim > 1:
        values = pooled(folds, lambda fold: fold.predictions[first])
        panels = {
            f"{first}, angle {k}": (values[:, k], target[:, k]) for k in range(target.shape[1])
        }
    else:
        rules = [rule for rule in folds[0].predictions if rule != ORACLE][:PANELS]
        panels = {
            rule: (pooled(folds, lambda fold, rule=rule: fold.predictions[rule]), target)
            for rule in rules
        }
    caption = f"{len(target):,} test samples. On the dashed line the prediction is the label."
    if len(target) <= predictions.MANY:
        caption += " Labels or predictions with few values are spread a little, so that points do not hide each other."
    return [page.picture(predictions.predicted_against_true(panels), caption)]


def confusion(folds, seen):
    """True against predicted ranks."""
    if folds[0].ranks is None:
        return "the labels are two angles and have no ranks."
    some = same_ranks(folds)
    rank = pooled(some, lambda fold: fold.ranks.index(fold.target))
    predicted = pooled(some, lambda fold: fold.ranks.index(fold.predictions[fold.headline]))
    hit = (rank == predicted).mean()
    caption = (
        f"Ranks of {folds[0].headline}, rounded to the nearest; {hit:.1%} are right and {_within(rank, predicted):.1%} "
        "at most one rank off. Each row adds up to 1."
    )
    if len(folds[0].ranks.names) > predictions.MOST_RANKS:
        caption += " Neighbouring ranks are taken together."
    return [page.picture(predictions.confusion(rank, predicted, folds[0].ranks.names), caption)]


def _within(rank, predicted):
    return (np.abs(rank.astype(int) - predicted) <= 1).mean()


def by_label(folds, seen):
    """Errors of each label."""
    if folds[0].ranks is None:
        return "the labels are two angles and have no ranks."
    some = same_ranks(folds)
    ranks = folds[0].ranks
    rank = pooled(some, lambda fold: fold.ranks.index(fold.target))
    count = sum(
        np.bincount(ranks.index(fold.train_targets), minlength=len(ranks.names)) for fold in some
    )
    part = pooled(some, lambda fold: fold.part) if folds[0].part is not None else None
    figure = predictions.error_by_rank(
        rank, pooled(some, lambda fold: fold.error), count, ranks.names, part
    )
    s = folds[0].config.shots
    bound = {
        "": "",
        "count": f" Many-shot labels have more than {s.many} training samples, few-shot ones fewer than {s.few}.",
        "stsb": " Many, median and few shot are the fixed lists of STS-B-DIR.",
    }[s.kind]
    return [
        page.picture(
            figure,
            f"Absolute error of {folds[0].headline} by true label, and how many samples each has.{bound}",
        )
    ]


def cumulative(folds, seen):
    """Share within a tolerance."""
    errors = {
        rule: pooled(
            folds, lambda fold, rule=rule: runs.distance(fold.predictions[rule], fold.target)
        )
        for rule in folds[0].predictions
        if rule != ORACLE
    }
    errors["constant"] = pooled(
        folds, lambda fold: runs.distance(np.median(fold.train_targets, axis=0), fold.target)
    )
    return [
        page.picture(
            predictions.cumulative_score(errors),
            "Share of the test samples that are predicted within t.",
        )
    ]


def of_groups(folds, seen):
    """How groups are predicted."""
    file = folds[0].folder / "groups.json"
    if not file.exists():
        return "the method has no groups."
    found = files.read_json(file)
    distance = np.array([np.nan if d is None else d for d in found["distance"]])
    first = f" Fold {folds[0].name}." if len(folds) > 1 else ""
    return [
        page.picture(
            groups.histograms({"test split": (found["true"], found["predicted"])}),
            f"Test samples of each group, truly and as predicted; the scale is logarithmic.{first}",
        ),
        page.picture(
            groups.distance({"": distance}, found["true"]),
            "How many groups the prediction is off, by true group; bars are the samples that it has.",
        ),
    ]


def by_column(folds, seen):
    """Errors by what else the data know."""
    parts, left = [], []
    error = pooled(folds, lambda fold: fold.error)
    for name in folds[0].further:
        values = _classes(pooled(folds, lambda fold, name=name: fold.further[name]))
        if values is None:
            left.append(name)
            continue
        words = f"Mean absolute error by {name}, with its 95 % interval and the number of test samples; dashed: that of all."
        parts += [
            page.heading(name),
            page.picture(predictions.error_by_column(error, values), words),
        ]
    if not parts:
        return "the data have no further column with classes."
    note = "Groups of people can differ in their errors; predictions about people are for decision support at most."
    return [
        *parts,
        page.paragraph(
            note
            + (f" Not shown, a value for nearly each sample: {', '.join(left)}." if left else ""),
            kind="note",
        ),
    ]


def _classes(values):
    """A column as texts of classes: numbers with many values in five equally large parts; None
    where each differs."""
    distinct = np.unique(values)
    if len(distinct) <= 30:
        return values
    try:
        numbers = values.astype(float)
    except ValueError:
        return values if len(distinct) < len(values) / 5 else None
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, 6)))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return np.array([f"{edges[k]:.3g} to {edges[k + 1]:.3g}" for k in place])


def elsewhere(folds, seen):
    """Results on other data, and how much worse they are."""
    found = sorted((folds[0].root / "evaluated").rglob("results.json"))
    if not found:
        return "the run was evaluated on no other data; --mode=evaluate --config=... does that."
    own, c = folds[0].results["test"][folds[0].headline], folds[0].config
    names, select = [name for name in c.metrics if name in own], c.select_metric
    body = [["its own test split", *(float(own[name]) for name in names), ""]]
    for file in found:
        test = files.read_numbers(file)["test"]
        there = next(iter(test.values()))
        change = there.get(select, np.nan) / own[select] - 1 if own.get(select) else np.nan
        where = str(file.parent.relative_to(folds[0].root / "evaluated"))
        body.append([where, *(float(there.get(name, np.nan)) for name in names), f"{change:+.1%}"])
    return [page.table(["evaluated on", *names, f"relative change of {select}"], body, first=True)]
