"""The report of an experiment, one page that needs no other file, from what its runs have written.

    python tools/sweep_report.py experiments/stsb.py [--output=runs] [--figures=experiments/figures]
    [--runs]

The page, <output>/<experiment>/report.html, holds for each data set what was run, the tables and
the claims of tools/table.py, each metric by setting, metrics against a number among the settings or
the evaluations, curves of training, Group-DIR's figures where runs have groups, and maps of
features side by side. Each figure is a PNG file too, in the folder of --figures or in
<output>/<experiment>/figures. Maps come from the features.npz that a run's own report keeps; --runs
writes the reports of all finished runs first.
"""

import argparse
import collections
import pathlib
import sys

import numpy as np
from scipy import stats

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ and experiments/ lie beside tools/ and are not installed

from experiments import published
from jaxord import metrics, report
from jaxord.report import page
from jaxord.report import runs as folders
from jaxord.report.figures import comparison, embeddings, groups, style, training
from jaxord.workdir import files
from tools import table
from tools.results import read, read_all
from tools.sweeping import plan
from tools.sweeping.journal import last_begun

LINES = 6  # of a figure of curves
PANELS = 3  # beside each other
MAPS = 9  # of features
SEVERITY = "severity"  # of damage, in names of evaluations
CLASSIFIERS = {
    "descending_soft_label": "soft labels",
    "cross_entropy": "cross-entropy",
    "logit_adjusted": "logit adjustment",
}

# The runs of one data set: [plan.Run], run -> table.Result or None, run -> [files.Fold] of finished
# ones, CLAIMS, folder of the experiment, and the function (figure, caption, name) -> part of the
# page.
Set = collections.namedtuple("Set", "runs results folds claims folder show")


def labels_of(s):
    """The labels of finished runs, in the experiment's order, with their runs."""
    found = {}
    for run in s.runs:
        if s.results[run]:
            found.setdefault(run.label, []).append(run)
    return found


def numbers(s, label, metric, part=""):
    """A metric of the headline on a part of the labels, or of the model, over the seeds: f64[n]."""
    rows = [
        (s.results[run].rows, table.headline(s.results[run]) + part) for run in labels_of(s)[label]
    ]
    return np.array(
        [
            rows[row].get(metric, rows.get("model", {}).get(metric, np.nan))
            if row in rows
            else np.nan
            for rows, row in rows
        ]
    )


def what(s, folder):
    """What was run: data, splits, seeds, training, command, machine."""
    runs = list(s.folds)
    every = [fold for run in runs for fold in s.folds[run]]
    c, of_stages = every[0].config, [config for fold in every for _, config in fold.stages]
    sizes = {
        "train": [len(fold.train_targets) for fold in every],
        "test": [len(fold.target) for fold in every],
        "val": [fold.facts["val examples"] for fold in every if "val examples" in fold.facts],
    }
    names = list(dict.fromkeys(fold.name for fold in every if fold.name))
    seconds = [fold.facts["seconds"] for fold in every if "seconds" in fold.facts]
    towers = [config.model.image_tower or f"CLIP {config.model.variant}" for config in of_stages]
    pairs = [
        ("data", f"{c.name}, read by {c.data.reader['name']} from {c.data.root}"),
        ("folds", ", ".join(names) or "none: one split"),
        ("examples", ", ".join(f"{name} {span(found)}" for name, found in sizes.items() if found)),
        ("settings", f"{len(labels_of(s))}, {len(runs)} finished runs of {len(s.runs)}"),
        ("seeds", listed(sorted({run.seed for run in runs}))),
        ("image tower", listed(towers)),
        (
            "weights",
            listed(
                config.model.weights or config.model.image_weights or "from scratch"
                for config in of_stages
            ),
        ),
        (
            "training",
            listed(
                f"{config.train.duration}, batches of {config.data.batch}" for config in of_stages
            ),
        ),
        ("predicts with", listed(fold.done["selected"] for fold in every)),
        ("command", last_begun(folder / "journal.jsonl").get("command", "the journal has none")),
        *(
            (name, listed(fold.facts[name] for fold in every if name in fold.facts))
            for name in ("device", "versions")
        ),
        (
            "training took",
            f"{sum(seconds):,.0f} s in all, {np.mean(seconds):,.0f} s a run and fold"
            if seconds
            else "",
        ),
    ]
    note = "All settings of a run are in the config.json of its folder, and its own report says more of it."
    return [
        page.facts([(name, value) for name, value in pairs if value]),
        page.paragraph(note, kind="note"),
    ]


def listed(values):
    """The values that there are, each once."""
    return "; ".join(dict.fromkeys(map(str, values)))


def span(sizes):
    return f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"


def by_setting(s):
    """Dots of each metric."""
    done = [result for result in s.results.values() if result]
    ranks = collections.Counter(result.ranks for result in done).most_common(1)[0][0]
    lines, _ = table.baselines(s.runs, s.results, ranks, s.folder)
    columns, labels, parts = table.columns_of(done), list(labels_of(s)), []
    for first in range(0, len(columns), PANELS):
        some = columns[first : first + PANELS]
        panels = {
            title: {label: numbers(s, label, metric, part) for label in labels}
            for title, metric, part in some
        }
        baselines = {
            title: {
                row.label: np.mean(
                    [r.rows.get(row.label + part, {}).get(metric, np.nan) for r in row.results]
                )
                for row in lines
            }
            for title, metric, part in some
        }
        words = (
            "Means and standard deviations over the seeds, small dots each seed; vertical lines do not look at the "
            "input, but for the nearest neighbour, which compares pixels."
        )
        parts.append(
            s.show(
                comparison.dots(labels, panels, baselines), words, f"metrics-{1 + first // PANELS}"
            )
        )
    return parts


def numbered(labels):
    """Options of labels that are numbers: {key: {label without it: [(number, label)]}}, where one
    has three values."""
    found = {}
    for label in labels:
        options = label.split(",")
        for option in options[1:]:
            key, _, value = option.partition("=")
            try:
                rest = ",".join(other for other in options if other is not option)
                found.setdefault(key, {}).setdefault(rest, []).append((float(value), label))
            except ValueError:
                continue  # an option in words
    lines = {
        key: {rest: sorted(pairs) for rest, pairs in of.items() if len(pairs) > 2}
        for key, of in found.items()
    }
    return {key: of for key, of in lines.items() if of}


def against_numbers(s):
    """Metrics over a temperature, a number of groups, a severity of damage, ..."""
    done = [result for result in s.results.values() if result]
    columns = table.columns_of(done)
    select = done[0].config.select_metric
    wanted = [column for column in columns if column[1] == select]
    if any("group_accuracy" in result.config.metrics for result in done):
        wanted.append(("group accuracy", "group_accuracy", ""))
    parts = []
    for key, lines in numbered(labels_of(s)).items():
        panels = {}
        for title, metric, part in wanted:
            panels[title] = {}
            for rest, pairs in lines.items():
                seeds = [numbers(s, label, metric, part) for _, label in pairs]
                spread = [x.std(ddof=1) if len(x) > 1 else 0.0 for x in seeds]
                panels[title][rest] = [x for x, _ in pairs], [x.mean() for x in seeds], spread
        words = f"Means over the seeds against {key}, with standard deviations where there are several seeds."
        parts.append(s.show(comparison.against_number(panels, key), words, f"against-{key}"))
    for key, lines in evaluated(s).items():
        panels = {select: {}}
        for label, pairs in lines.items():
            seeds = [numbers(s, label, select, part) for _, part in pairs]
            spread = [x.std(ddof=1) if len(x) > 1 else 0.0 for x in seeds]
            panels[select][label] = [x for x, _ in pairs], [x.mean() for x in seeds], spread
        words = f"Finished runs evaluated with {key}: means over the seeds, with standard deviations where there are several."
        words += (
            " Of a severity the mean over the kinds of damage; 0 is the clean test split."
            if key == SEVERITY
            else ""
        )
        parts.append(s.show(comparison.against_number(panels, key), words, f"evaluated-{key}"))
    return parts or "no option of the labels and of their evaluations has three numbers."


def evaluated(s):
    """Evaluations whose name is a number: {key: {label: [(number, part of the table)]}}, where a
    label has three."""
    found = {}
    for label, runs in labels_of(s).items():
        rule = table.headline(s.results[runs[0]]) + ", "
        for row in s.results[runs[0]].rows:
            key, is_number, value = row.removeprefix(rule).partition("=")
            if row.startswith(rule) and is_number and value.isdigit():
                clean = [(0, "")] if key == SEVERITY else []
                found.setdefault(key, {}).setdefault(label, clean).append(
                    (int(value), f", {key}={value}")
                )
    lines = {
        key: {label: sorted(pairs) for label, pairs in of.items() if len(pairs) > 2}
        for key, of in found.items()
    }
    return {key: of for key, of in lines.items() if of}


def curves(s):
    """Loss, gradient norm and the selecting metric of each label, six to a figure."""
    labels, parts = list(labels_of(s)), []
    for number, some in enumerate(np.array_split(labels, -(-len(labels) // LINES)), 1):
        panels = {}
        for label in map(str, some):
            each = [folders.curves(*s.folds[run][0].stages[-1]) for run in labels_of(s)[label]]
            select = s.folds[labels_of(s)[label][0]][0].config.select_metric
            for panel in ("loss", "gradient norm", select):
                lines = [next(iter(one[panel].values())) for one in each if panel in one]
                same = [values for steps, values in lines if np.array_equal(steps, lines[0][0])]
                if same:
                    panels.setdefault(panel if panel != select else f"{select} on validation", {})[
                        label
                    ] = lines[0][0], same
        words = (
            "Means over the seeds, bands from the lowest to the highest; of runs in stages the last one. Losses of "
            "different methods are different functions: compare how they fall, not how low they are."
        )
        if panels:
            linear = [
                panel
                for panel in panels
                if panel.endswith(" on validation") and select not in metrics.LOWER_IS_BETTER
            ]
            parts.append(s.show(training.curves(panels, linear=linear), words, f"curves-{number}"))
    return parts or "no run has logged a step."


def classifier(config):
    """How a run classifies its groups, in words; "" where it does not."""
    return next(
        (CLASSIFIERS[loss["name"]] for loss in config.losses if loss["name"] in CLASSIFIERS), ""
    )


def by_groups(s):
    """{G: {title: [run]}} of the runs with groups; titles are the classifiers, or the labels where
    two share one."""
    found = {}
    for label, runs in labels_of(s).items():
        fold = s.folds[runs[0]][0]
        if (fold.folder / "groups.json").exists():
            count = len(files.read_json(fold.folder / "groups.json")["true"])
            found.setdefault(count, []).append((classifier(fold.config), label, runs))
    return {
        count: {
            (title if [t for t, _, _ in some].count(title) == 1 else label): runs
            for title, label, runs in some
        }
        for count, some in found.items()
    }


def group_figures(s):
    """Group-DIR's Figures 2, 4, 5 and 3."""
    parts = []
    for count, lines in by_groups(s).items():
        hits, off, true = {}, {}, None
        for title, runs in lines.items():
            read = [files.read_json(s.folds[run][0].folder / "groups.json") for run in runs]
            true = np.mean([one["true"] for one in read], axis=0)
            hits[title] = true, np.mean([one["predicted"] for one in read], axis=0)
            off[title] = np.mean(
                [[np.nan if d is None else d for d in one["distance"]] for one in read], axis=0
            )
        words = (
            f"Test samples of each of {count} groups, truly and as predicted, means over the seeds; the scale is "
            "logarithmic (Group-DIR Figures 2 and 4)."
        )
        parts.append(s.show(groups.histograms(hits), words, f"groups-{count}-histograms"))
        words = "How many groups the prediction is off, by true group; bars are the samples that it has (Group-DIR Figure 5)."
        parts.append(s.show(groups.distance(off, true), words, f"groups-{count}-distance"))
        panels = {title: decomposed(s, runs) for title, runs in lines.items()}
        panels = {title: found for title, found in panels.items() if found}
        if panels:
            metric = error_of(s.folds[next(iter(lines.values()))[0]][0].config)
            words = (
                f"{metric} over the epochs: one regression alone, the expert of the predicted group, and that of the "
                "true one, which reads the label (Group-DIR Figure 3). Curves of the training split are there for runs "
                "with config.train.curves=('train',)."
            )
            figure = training.curves(panels, x="epoch", logarithmic=True)
            parts.append(s.show(figure, words, f"groups-{count}-decomposition"))
    return parts or "no run has groups."


def error_of(config):
    """The error of Group-DIR's Figure 3: the mean squared one where it is measured."""
    return "mse" if "mse" in config.metrics else config.select_metric


def decomposed(s, runs):
    """{line: (epochs, values [seeds, n])} of Group-DIR's Figure 3 for runs with groups and those of
    the label "mse"."""
    names = {"": "regression alone", "experts": "predicted group", "true_expert": "true group"}
    found = {}
    for run in [*labels_of(s).get("mse", ()), *runs]:
        fold = s.folds[run][0]
        epochs = fold.config.data.batch / len(fold.train_targets)
        for line, (steps, values) in (
            folders.curves(*fold.stages[-1]).get(error_of(fold.config), {}).items()
        ):
            split, _, rule = line.partition(", ")
            found.setdefault(f"{names.get(rule, rule)}, {split}", []).append(
                (steps * epochs, values)
            )
    return {
        line: (each[0][0], [values for steps, values in each if np.array_equal(steps, each[0][0])])
        for line, each in found.items()
    }


def maps(s):
    """Maps and similarities of the features, of one run a label."""
    found, left = {}, []
    for label, runs in labels_of(s).items():
        file = s.folds[runs[0]][0].folder / "features.npz"
        if file.exists():
            found[label] = files.read_arrays(file)
        else:
            left.append(label)
    if not found:
        return "no run has kept its features; --runs writes their reports, which do."
    first, parts = list(found)[:MAPS], []
    left += list(found)[MAPS:]
    labels = {label: found[label]["target"] for label in first}
    plain = {
        label: target if target.ndim == 1 else target[:, 0] for label, target in labels.items()
    }
    placed = {
        label: (found[label]["places"], plain[label]) for label in first if "places" in found[label]
    }
    if placed:
        words = "t-SNE of test features; only who is near whom means something."
        parts.append(s.show(embeddings.points(placed, "label"), words, "tsne"))
    ordered = {
        label: embeddings.in_order(found[label]["embeds"], plain[label], 300) for label in first
    }
    panels = {
        label: (matrix, [f"{y:.3g}" for y in target]) for label, (matrix, target) in ordered.items()
    }
    words = "Negative distance of unit features in the order of their labels; a band along the diagonal means order."
    parts.append(
        s.show(embeddings.matrices(panels, "− distance", "true label"), words, "similarity")
    )
    texts = {
        label: embeddings.unit(found[label]["text_embeds"])
        for label in first
        if "text_embeds" in found[label]
    }
    if texts:
        panels = {
            f"{label}: {100 * metrics.ordinality_score(rows):.1f} %": (
                rows @ rows.T,
                range(len(rows)),
            )
            for label, rows in texts.items()
        }
        words = "Cosine of the texts of the ranks, with the ordinality score."
        parts.append(s.show(embeddings.matrices(panels, "cosine", "rank"), words, "texts"))
    return [*parts, page.paragraph(f"Without: {', '.join(left)}.", kind="note")] if left else parts


def claims(s):
    """The table of tools/table.py and its intervals as a figure."""
    if not s.claims:
        return "the experiment has no CLAIMS."
    shown = []
    for first, second, *part in s.claims:
        value = [
            {run.seed: table.value(s.results[run], *part) for run in labels_of(s).get(label, ())}
            for label in (first, second)
        ]
        seeds = sorted(set(value[0]) & set(value[1]))
        if not seeds:
            continue
        metric = s.results[labels_of(s)[first][0]].config.select_metric
        gain = np.array([value[1][seed] - value[0][seed] for seed in seeds])
        gain = gain if metric in metrics.LOWER_IS_BETTER else -gain
        half = np.nan
        if len(gain) > 1:
            half = (
                stats.t.ppf((1 + table.LEVEL) / 2, len(gain) - 1)
                * gain.std(ddof=1)
                / len(gain) ** 0.5
            )
        if np.isfinite(gain).all():
            shown.append((", ".join([f"{first} before {second}", *part]), gain.mean(), half))
    parts = page.markdown(table.claims(s.claims, s.runs, s.results))
    words = (
        f"Mean gains with their {table.LEVEL:.0%} intervals, paired by seed. Filled blue dots: the first is better; "
        "orange: the second; open squares: within noise, or one run alone."
    )
    return [*parts, s.show(comparison.gains(shown), words, "claims")] if shown else parts


SECTIONS = {
    "Claims": claims,
    "Metrics by setting": by_setting,
    "Metrics against a number": against_numbers,
    "Learning curves": curves,
    "Groups": group_figures,
    "Features side by side": maps,
}


def write(experiment, folder, figures, name):
    """Writes report.html into the folder of an experiment and its figures as PNG into another.

    Args:
      experiment: its module.
      folder: that holds the folders of its runs.
      figures: folder.
      name: of the experiment; files of figures begin with it.

    Returns:
      Path of the page.
    """
    planned = plan.runs_of(experiment)
    paper = getattr(experiment, "PAPER", ())
    sets, content, missing = list(dict.fromkeys(run.data_set for run in planned)), {}, []
    figures.mkdir(parents=True, exist_ok=True)
    lead = []
    for data_set in sets:
        runs = [run for run in planned if run.data_set == data_set]
        _, results = read_all(experiment, runs, folder)
        folds = {run: folders.read(folder / run.name)[0] for run in runs if results[run]}
        prefix = "-".join([name, data_set] if len(sets) > 1 else [name])

        def show(figure, caption, title, prefix=prefix):
            style.write_png(figure, figures / f"{prefix}-{title}.png")
            return page.picture(figure, caption)

        s = Set(runs, results, folds, getattr(experiment, "CLAIMS", ()), folder, show)
        lead.append(f"{data_set}: {len(folds)} of {len(runs)} runs are done")
        before = f"{data_set}: " if len(sets) > 1 else ""
        printed = published.printed(paper, data_set)
        if folds:
            content[f"{before}What was run"] = what(s, folder)
        lost = table.losses(getattr(experiment, "FULL", {}), runs, results, printed[0])
        content[f"{before}Results"] = page.markdown(
            [*table.table(runs, results, folder, paper=printed), *lost]
        )
        if not folds:
            continue
        for title, make in SECTIONS.items():
            parts = make(s)
            if isinstance(parts, str):
                missing.append(f"{before}{title}: {parts}")
            else:
                content[before + title] = parts
    if missing:
        content["What is not here"] = [page.bullets(missing)]
    about = (experiment.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    file = folder / "report.html"
    file.write_text(
        page.document(f"Experiment: {name}", f"{about} {'; '.join(lead)}.".strip(), content),
        encoding="utf-8",
    )
    return file


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan.arguments_of(parser)
    parser.add_argument("--figures", type=pathlib.Path, help="folder of the PNG files")
    parser.add_argument(
        "--runs", action="store_true", help="write the report of each finished run first"
    )
    given = parser.parse_args(arguments)
    folder = (given.output / given.experiment.stem).resolve()
    figures = (given.figures or folder / "figures").resolve()
    try:
        experiment = plan.load(given.experiment)
        for run in plan.runs_of(experiment) if given.runs else ():
            if read(folder / run.name):
                print(report.write(folder / run.name), flush=True)
        print(write(experiment, folder, figures, given.experiment.stem))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
