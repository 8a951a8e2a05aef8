"""Sections of an experiment's report, for one data set.

Each takes a Finished and gives the parts of the section, or the reason for having none.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from jaxord import metrics
from jaxord.report import page, rerun, runs
from jaxord.report import results as run_sections
from jaxord.report.figures import comparison, embeddings, groups, training
from jaxord.report.model_views import first_angle
from jaxord.workdir import files
from tools.sweeping import tables
from tools.sweeping.journal import last_begun
from tools.sweeping.results import DataSet, headline, number_of

LINES = 6  # of a figure of curves
PANELS = 3  # beside each other
MAPS = 9  # of features
SEVERITY = "severity"  # of damage, in names of evaluations
CLASSIFIERS = {
    "descending_soft_label": "soft labels",
    "cross_entropy": "cross-entropy",
    "logit_adjusted": "logit adjustment",
}
RULES = {"": "regression alone", "experts": "predicted group", "true_expert": "true group"}


@dataclasses.dataclass(frozen=True)
class Finished(DataSet):
    """A DataSet with its finished runs read.

    Attributes:
      folds: run -> [runs.Fold] of finished runs.
      claims: CLAIMS of the experiment.
      show: (figure, caption, name of its file) -> part of the page.
    """

    folds: dict
    claims: tuple
    show: Callable

    def first_fold(self, label):
        """The first fold of a label's first run."""
        return self.folds[self.labels[label][0]][0]


def settings(s):
    """Data, splits, seeds, training, command and machine."""
    every = [fold for some in s.folds.values() for fold in some]
    configs = [config for fold in every for _, config in fold.stages]
    sizes = {
        "train": [len(fold.train_targets) for fold in every],
        "test": [len(fold.test.target) for fold in every],
        "val": _facts(every, "val examples"),
    }
    training = (f"{c.train.duration}, batches of {c.data.batch}" for c in configs)
    # Runs from before run.json have no times.
    seconds, took = _facts(every, "seconds"), ""
    if seconds:
        took = f"{sum(seconds):,.0f} s in all, {np.mean(seconds):,.0f} s a run and fold"
    pairs = {
        "data": run_sections.source_of(every[0].config),
        "folds": ", ".join(dict.fromkeys(fold.name for fold in every)) or "none: one split",
        "examples": ", ".join(f"{name} {_range(some)}" for name, some in sizes.items() if some),
        "settings": f"{len(s.labels)}, {len(s.folds)} finished runs of {len(s.runs)}",
        "seeds": _distinct(sorted({run.seed for run in s.folds})),
        "image tower": _distinct(map(run_sections.tower_of, configs)),
        "weights": _distinct(map(run_sections.weights_of, configs)),
        "training": _distinct(training),
        "predicts with": _distinct(fold.done["selected"] for fold in every),
        "command": last_begun(s.folder / "journal.jsonl").get("command", "the journal has none"),
        "device": _distinct(_facts(every, "device")),
        "versions": _distinct(_facts(every, "versions")),
        "training took": took,
    }
    note = "All settings of a run are in its folder's config.json; its own report says more."
    return [page.facts((name, value) for name, value in pairs.items() if value), page.note(note)]


def _facts(folds, name):
    return [fold.facts[name] for fold in folds if name in fold.facts]


def _distinct(values):
    return "; ".join(dict.fromkeys(map(str, values)))


def _range(sizes):
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def claims(s):
    """The table of claims, and its intervals as a figure."""
    if not s.claims:
        return "the experiment has no CLAIMS."
    shown = []
    for claim in s.claims:
        first, second, *part = claim
        gains = tables.gains_of(claim, s)
        if len(gains) and np.isfinite(gains).all():
            text = ", ".join([f"{first} before {second}", *part])
            shown.append((text, *tables.interval(gains)))
    parts = page.blocks(tables.claims(s.claims, s))
    caption = (
        f"Mean gains with their {tables.LEVEL:.0%} intervals, paired as in the table. Filled blue "
        "dots: the first is better; orange: the second; open squares: within noise, or one run."
    )
    return [*parts, s.show(comparison.gains(shown), caption, "claims")] if shown else parts


def by_setting(s):
    """Dots of each metric."""
    rows, _ = tables.baselines(s, tables.common_ranks(s.done))
    columns, labels, parts = tables.columns_of(s.done), list(s.labels), []
    caption = (
        "Means and standard deviations over the seeds, small dots each seed; vertical lines do not "
        "look at the input, except for the nearest neighbour, which compares pixels."
    )
    # Labels are long: more panels would leave no room for dots.
    for first in range(0, len(columns), PANELS):
        panels, baselines = {}, {}
        for title, metric, part in columns[first : first + PANELS]:
            panels[title] = {label: s.numbers(label, metric, part) for label in labels}
            baselines[title] = {
                row.label: np.mean(
                    [number_of(r, r.rows, row.label + part, metric) for r in row.results]
                )
                for row in rows
            }
        figure = comparison.dots(labels, panels, baselines)
        parts.append(s.show(figure, caption, f"metrics-{1 + first // PANELS}"))
    return parts


def against_numbers(s):
    """Metrics over a temperature, a number of groups, a severity of damage, ..."""
    parts, select = [], s.done[0].config.select_metric
    columns = [column for column in tables.columns_of(s.done) if column[1] == select]
    if any("group_accuracy" in result.config.metrics for result in s.done):
        columns.append(("group accuracy", "group_accuracy", ""))
    against = "Means over the seeds against {key}, with standard deviations of several seeds."
    evaluated = (
        "Finished runs evaluated with {key}: means over the seeds, with standard deviations of "
        "several seeds."
    )
    axes = [("against", key, lines, columns) for key, lines in options(s.labels).items()]
    # Evaluations have the selecting metric alone, on the parts that they name.
    columns = [(select, select, "")]
    axes += [("evaluated", key, lines, columns) for key, lines in evaluations(s).items()]
    for kind, key, lines, columns in axes:
        panels = {
            title: {
                line: [(x, s.numbers(label, metric, part + end)) for x, label, part in points]
                for line, points in lines.items()
            }
            for title, metric, end in columns
        }
        caption = (against if kind == "against" else evaluated).format(key=key)
        if kind == "evaluated" and key == SEVERITY:
            caption += " The mean over the kinds of damage; 0 is the clean test split."
        parts.append(s.show(comparison.against_number(panels, key), caption, f"{kind}-{key}"))
    return parts or "no option of the labels and of their evaluations has three numbers."


def options(labels):
    """{key: {label without key: [(number, label, "")]}} of options with at least three numbers.

    "a,k=1", "a,k=2" and "a,k=3" become {"k": {"a": [(1.0, "a,k=1", ""), ...]}}.
    """
    lines = {}
    for label in labels:
        parts = label.split(",")
        for part in parts[1:]:
            key, _, value = part.partition("=")
            try:
                point = float(value), label, ""
            except ValueError:
                continue  # an option in words
            rest = ",".join(other for other in parts if other is not part)
            lines.setdefault(key, {}).setdefault(rest, []).append(point)
    return _with_three(lines)


def evaluations(s):
    """{key: {label: [(number, label, part)]}} of evaluations key=number, with at least three."""
    lines = {}
    for label, some in s.labels.items():
        result = s.results[some[0]]
        prefix = headline(result) + ", "
        for row in result.rows:
            key, is_number, value = row.removeprefix(prefix).partition("=")
            if row.startswith(prefix) and is_number and value.isdigit():
                clean = [(0, label, "")] if key == SEVERITY else []
                points = lines.setdefault(key, {}).setdefault(label, clean)
                points.append((int(value), label, f", {key}={value}"))
    return _with_three(lines)


def _with_three(lines):
    kept = {
        key: {name: sorted(points) for name, points in some.items() if len(points) > 2}
        for key, some in lines.items()
    }
    return {key: some for key, some in kept.items() if some}


def curves(s):
    """Loss, gradient norm and the selecting metric of each label, six to a figure."""
    labels, parts = list(s.labels), []
    caption = (
        "Means over the seeds, bands from the lowest to the highest; of runs in stages the last "
        "one. Losses of different methods are different functions: compare how they fall, not how "
        "low they are."
    )
    # More lines than colours cannot be told apart.
    for number, some in enumerate(np.array_split(labels, -(-len(labels) // LINES)), 1):
        panels, linear = {}, []
        for label in map(str, some):
            each = [runs.curves(*s.folds[run][0].stages[-1]) for run in s.labels[label]]
            select = s.first_fold(label).config.select_metric
            validated = f"{select} on validation"
            if select not in metrics.LOWER_IS_BETTER:
                linear.append(validated)
            titles = {"loss": "loss", "gradient norm": "gradient norm", select: validated}
            for panel, title in titles.items():
                lines = [next(iter(one[panel].values())) for one in each if panel in one]
                if lines:
                    panels.setdefault(title, {})[label] = runs.stacked(lines)
        if panels:
            figure = training.curves(panels, linear=linear)
            parts.append(s.show(figure, caption, f"curves-{number}"))
    return parts or "no run has logged a step."


def of_groups(s):
    """Group-DIR's Figures 2, 4, 5 and 3."""
    parts = []
    for count, lines in by_groups(s).items():
        histograms, distances = {}, {}
        for title, some in lines.items():
            each = [runs.read_groups(s.folds[run][0].folder) for run in some]
            true, predicted, distances[title] = np.mean(each, axis=0)
            histograms[title] = true, predicted
        caption = (
            f"Test samples of each of {count} groups, true and predicted, means over the seeds, on "
            "a logarithmic scale (Group-DIR Figures 2 and 4)."
        )
        parts.append(s.show(groups.histograms(histograms), caption, f"groups-{count}-histograms"))
        caption = (
            "Mean distance in groups between prediction and truth, by true group; bars are its "
            "samples (Group-DIR Figure 5)."
        )
        parts.append(s.show(groups.distance(distances, true), caption, f"groups-{count}-distance"))
        # Only runs that log each rule have these curves.
        panels = {title: _decomposed(s, some) for title, some in lines.items()}
        panels = {title: panel for title, panel in panels.items() if panel}
        if panels:
            metric = _group_error(s.folds[next(iter(lines.values()))[0]][0].config)
            caption = (
                f"{metric} over the epochs: one regression alone, the expert of the predicted "
                "group, and that of the true one, which reads the label (Group-DIR Figure 3). Runs "
                "with config.train.curves=('train',) have curves of the training split."
            )
            figure = training.curves(panels, x="epoch", logarithmic=True)
            parts.append(s.show(figure, caption, f"groups-{count}-decomposition"))
    return parts or "no run has groups."


def by_groups(s):
    """{G: {title: [run]}}; titles are classifiers of groups, or labels if two share one."""
    found = collections.defaultdict(list)
    for label, some in s.labels.items():
        fold = s.first_fold(label)
        sizes = runs.read_groups(fold.folder)
        if sizes:
            losses = [loss["name"] for loss in fold.config.losses]
            title = next((CLASSIFIERS[name] for name in losses if name in CLASSIFIERS), "")
            found[len(sizes[0])].append((title, label, some))
    named = {}
    for count, lines in found.items():
        titles = [title for title, _, _ in lines]
        named[count] = {
            title if titles.count(title) == 1 else label: some for title, label, some in lines
        }
    return named


def _group_error(config):
    """The error of Group-DIR's Figure 3: the mean squared one if it is measured."""
    return "mse" if "mse" in config.metrics else config.select_metric


def _decomposed(s, some):
    """{line: (epochs, [values])} of Group-DIR's Figure 3, with the runs of the label "mse"."""
    lines = collections.defaultdict(list)
    for run in [*s.labels.get("mse", ()), *some]:
        fold = s.folds[run][0]
        epochs = fold.config.data.batch / len(fold.train_targets)
        panel = runs.curves(*fold.stages[-1]).get(_group_error(fold.config), {})
        for line, (steps, values) in panel.items():
            split, _, rule = line.partition(", ")
            lines[f"{RULES.get(rule, rule)}, {split}"].append((steps * epochs, values))
    return {line: runs.stacked(each) for line, each in lines.items()}


def maps(s):
    """Maps and similarities of the features, of one run a label."""
    stored = {label: s.first_fold(label).folder / rerun.FEATURES for label in s.labels}
    found = [label for label, file in stored.items() if file.exists()]
    if not found:
        return "no run has kept its features; --runs writes their reports, which do."
    shown, parts = {label: files.read_arrays(stored[label]) for label in found[:MAPS]}, []
    placed, ordered, texts = {}, {}, {}
    for label, arrays in shown.items():
        target = first_angle(arrays["target"])
        if "places" in arrays:
            placed[label] = arrays["places"], target
        matrix, labels = embeddings.in_order(arrays["embeds"], target, 300)
        ordered[label] = matrix, embeddings.short(labels)
        if "text_embeds" in arrays:
            rows = embeddings.unit(arrays["text_embeds"])
            score = f"{label}: {100 * metrics.ordinality_score(rows):.1f} %"
            texts[score] = rows @ rows.T, range(len(rows))
    if placed:
        caption = "t-SNE of test features; only neighbourhood means something."
        parts.append(s.show(embeddings.points(placed, "label"), caption, "tsne"))
    caption = "Negative distance of unit features in the order of their labels; a band along the "
    caption += "diagonal means order."
    figure = embeddings.matrices(ordered, "− distance", "true label")
    parts.append(s.show(figure, caption, "similarity"))
    if texts:
        caption = "Cosine of the texts of the ranks, with the ordinality score."
        parts.append(s.show(embeddings.matrices(texts, "cosine", "rank"), caption, "texts"))
    # Labels without features.npz, and those beyond MAPS.
    left_out = [label for label in s.labels if label not in shown]
    return [*parts, page.note(f"Without: {', '.join(left_out)}.")] if left_out else parts


SECTIONS = {
    "Claims": claims,
    "Metrics by setting": by_setting,
    "Metrics against a number": against_numbers,
    "Learning curves": curves,
    "Groups": of_groups,
    "Features side by side": maps,
}
