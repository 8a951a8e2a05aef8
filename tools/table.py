"""The table of an experiment, from what its runs have written, in Markdown.

    python tools/table.py experiments/photo_quality.py [--output=runs] [--all-rules]

Rows are the labels of the experiment under the headline rule of each (--all-rules: under every rule), columns the metrics on
the test split, mean and standard deviation over the seeds, n of them. Beside them stand two predictors that do not look at the
image, and one that sees no more than pixels: the label of the training image whose thumbnail is nearest. The best of those
that look at the image is bold; on a part of the labels a constant can be right.

Below stand the CLAIMS of the experiment: ("a", "b") says that a beats b on the metric that selects among checkpoints,
("a", "b", "few") that it does so on few-shot labels; differences are paired by seed. Runs that are not done are named.
"""

import argparse
import collections
import copy
import json
import os
import pathlib
import sys
import types

import numpy as np
from scipy import stats

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # configs/ and experiments/ lie beside tools/ and are not installed

from jaxord import assemble, evaluate, metrics, settings, shots, workdir  # noqa: E402
from jaxord.binding import lookup, needs  # noqa: E402
from jaxord.checkpoint import write_json  # noqa: E402
from jaxord.data import load, tiers  # noqa: E402
from jaxord.ranks import build  # noqa: E402
from tools import sweep  # noqa: E402

NEAREST, THUMBNAIL = "1-nearest neighbour", 16  # pixels
BASELINES = ("constant", "majority", NEAREST)
LEVEL = 0.95  # of the intervals

# A finished run: config of its last stage, text of its ranks.json, row -> metric -> number of the test split.
Result = collections.namedtuple("Result", "config ranks rows")
# A row of the table: its rule, how many runs it should have, those that are done, whether it may be the best.
Row = collections.namedtuple("Row", "label rule planned results may_be_best")


def read(folder):
    """Result of a run, averaged over its folds; None where it is not done."""
    if not (folder / "config.json").exists():
        return None
    config = settings.from_json((folder / "config.json").read_text())
    ends = [workdir.stages_of(config, folder, fold)[-1] for fold in workdir.chosen_folds(config)]
    if not all((end / "DONE.json").exists() for end, _ in ends):
        return None
    rows = over_folds([json.loads((end / "results.json").read_text())["test"] for end, _ in ends])
    ranks = [(end / "ranks.json").read_text() for end, _ in ends if (end / "ranks.json").exists()]
    return Result(ends[0][1], "".join(ranks), rows)


def over_folds(folds):
    """row -> metric -> mean over the folds."""
    return {row: {name: float(np.mean([fold[row][name] for fold in folds])) for name in folds[0][row]} for row in folds[0]}


def headline(result):
    """Name of the first rule."""
    return result.config.rules[0]["name"]


def nearest(result, folder):
    """Rows of the nearest thumbnail for the split of a run, kept in nearest.json.

    Images are decoded as for training, but to 16 x 16 pixels; the distance is the Euclidean one of all their bytes.

    Raises:
      ValueError: the data are not there, or they are no images.
    """
    c = copy.deepcopy(result.config).unlock()
    c.data.update({"resize": "square", "stored_size": THUMBNAIL, "image_size": THUMBNAIL, "tier": "cached", "cache": ""})
    scorers = {metric: lookup(metrics, metric) for metric in result.rows["constant"]}
    source = {field: settings.plain(c.data[field]) for field in ("reader", "root", "table", "shots", "shift", "corruption")}
    key = json.dumps([source, settings.plain(c.shots), c.fold, c.seed, sorted(scorers), result.ranks])
    file = folder / "nearest.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    if key not in kept:
        folds = []
        for fold in workdir.chosen_folds(c):
            records = load.load(c.data, fold, c.seed)
            if records["train"].read is None:
                raise ValueError(f"{c.name} has no images")
            splits = {name: tiers.decode_split(records[name], assemble.data_of(c, name), None) for name in ("train", "test")}
            train, test = (split.images.reshape(len(split.images), -1).astype(np.float64) for split in splits.values())
            squares = (train**2).sum(1)
            closest = [np.argmin(squares - 2 * train @ image) for image in test]  # |train - image|^2 without |image|^2
            prediction, target = splits["train"].records.targets[closest], splits["test"].records.targets
            ranks = None
            if result.ranks:
                ranks = build(c.ranks, splits["train"].records.targets, assemble.rank_names(records["train"]))
            task = types.SimpleNamespace(config=c, splits=splits, ranks=ranks)
            folds.append(evaluate.score(task, scorers, {}, {NEAREST: prediction}, target))
        kept[key] = over_folds(folds)
        write_json(file, kept)
    return {row: scores for row, scores in kept[key].items() if row.startswith(NEAREST)}


def columns_of(results):
    """[(title, metric, end of the row's name)]: the metrics, and the selecting one for many-, median- and few-shot labels."""
    names = dict.fromkeys(name for r in results for name in r.config.metrics if name in r.rows[headline(r)])
    select, constant = results[0].config.select_metric, results[0].rows
    parts = [part for part in shots.SHOTS if np.isfinite(constant.get(f"constant, {part}", {}).get(select, np.nan))]
    return [(name, name, "") for name in names] + [(f"{select}, {part}", select, f", {part}") for part in parts]


def cell(numbers):
    """mean ± sd of several, the number of one; "-" where one of them is not defined."""
    if not len(numbers) or not np.isfinite(numbers).all():
        return "-"
    return f"{np.mean(numbers):.3f}" + (f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else "")


def rows_of(runs, results, all_rules):
    """[Row] of the labels."""
    rows = []
    for label in dict.fromkeys(run.label for run in runs):
        of_label = [run for run in runs if run.label == label]
        found = [results[run] for run in of_label if results[run]]
        rules = [rule["name"] for rule in found[0].config.rules] if found else ["-"]
        rows += [Row(label, rule, len(of_label), found, rule == rules[0]) for rule in (rules if all_rules else rules[:1])]
    return rows


def baselines(runs, results, ranks, folder):
    """([Row] of the baselines, a run a seed, of runs with these ranks; notes on what is not there)."""
    of_seed = {run.seed: results[run] for run in reversed(runs) if results[run] and results[run].ranks == ranks}
    found, notes = [of_seed[seed] for seed in sorted(of_seed)], []
    try:
        found = [r._replace(rows=r.rows | nearest(r, folder)) for r in found]
    except ValueError as error:
        notes.append(f"{NEAREST}: not computed, {str(error).splitlines()[0]}.")
    planned = len({run.seed for run in runs})
    return [Row(name, name, planned, found, name == NEAREST) for name in BASELINES if name in found[0].rows], notes


def table(runs, results, folder, all_rules=False):
    """Lines of the table of one data set.

    Args:
      runs: [sweep.Run] of the data set.
      results: run -> Result or None.
      folder: of the experiment.
      all_rules: a row for each rule.
    """
    done = [results[run] for run in runs if results[run]]
    missing = [run.name for run in runs if not results[run]]
    lines = [f"{len(done)} of {len(runs)} runs are done; mean ± standard deviation over the seeds, n of them."]
    if missing:
        lines += ["", f"MISSING, {len(missing)} runs: {', '.join(missing)}."]
    if not done:
        return lines
    columns = columns_of(done)
    ranks = collections.Counter(r.ranks for r in done).most_common(1)[0][0]
    of_ranks = {metric for _, metric, _ in columns if "predicted_rank" in needs(lookup(metrics, metric))[0]}
    beside, notes = baselines(runs, results, ranks, folder)
    rows = rows_of(runs, results, all_rules) + beside
    body = []
    for row in rows:
        n = str(row.planned) if len(row.results) == row.planned else f"{len(row.results)} of {row.planned}"
        body.append([row.label, row.rule if row.rule != row.label else "", n])
    for _, metric, part in columns:
        means = []
        for line, row in zip(body, rows, strict=True):
            numbers = [r.rows.get(row.rule + part, {}).get(metric, np.nan) for r in row.results]
            alike = metric not in of_ranks or all(r.ranks == ranks for r in row.results)
            line.append(cell(numbers) + ("" if alike else "†"))
            worth = np.mean(numbers or [np.nan]) * (1 if metric in metrics.LOWER_IS_BETTER else -1)
            means.append(worth if alike and row.may_be_best else np.nan)
        best = np.nanmin([*means, np.inf])
        for line, mean in zip(body, means, strict=True):
            if mean == best:
                line[-1] = f"**{line[-1]}**"
    if any(r.ranks != ranks for r in done):
        notes.append(f"† on other ranks than the rest, so {', '.join(sorted(of_ranks))} cannot be compared.")
    if any(r.config.select == "test" for r in done):
        notes.append("SELECTED ON THE TEST SPLIT: comparable only with figures that were chosen so too.")
    lines += ["", *markdown(["", "rule", "n", *(title for title, _, _ in columns)], body)]
    return [*lines, "", *notes] if notes else lines


def claims(wanted, runs, results):
    """Lines of the table of claims of one data set.

    Args:
      wanted: ((first, second) or (first, second, "few"), ...) of labels.
      runs: [sweep.Run] of the data set.
      results: run -> Result or None.

    Raises:
      ValueError: a label that the experiment does not run.
    """
    body = []
    for first, second, *part in wanted:
        numbers, planned = [], [{run.seed for run in runs if run.label == label} for label in (first, second)]
        for label, seeds in zip((first, second), planned, strict=True):
            if not seeds:
                raise ValueError(f"CLAIMS has {label!r}, which the experiment does not run")
            of_seed = {run.seed: results[run] for run in runs if run.label == label and results[run]}
            numbers.append({seed: value(r, *part) for seed, r in of_seed.items()})
            metric = next((r.config.select_metric for r in of_seed.values()), "-")
        both, plan = sorted(set(numbers[0]) & set(numbers[1])), len(planned[0] & planned[1])
        a, b = (np.array([x[seed] for seed in both]) for x in numbers)
        gain, verdict = judge(a, b, metric in metrics.LOWER_IS_BETTER)
        n = str(plan) if len(both) == plan else f"{len(both)} of {plan}"
        body.append([first, second, ", ".join([metric, *part]), cell(a), cell(b), gain, n, verdict])
    header = ["first", "before second", "metric", "of first", "of second", f"gain ({LEVEL:.0%} interval)", "n", "verdict"]
    return ["", *markdown(header, body), "",
            f"Paired by seed. Of differences that are not there, one in {1 / (1 - LEVEL):.0f} leaves the noise by chance."]


def value(result, part=""):
    """The selecting metric under the headline rule; of a part of the labels where one is named, nan where there is none."""
    row = headline(result) + (f", {part}" if part else "")
    return result.rows.get(row, {}).get(result.config.select_metric, np.nan)


def judge(first, second, lower_is_better):
    """(gain with its interval, verdict) of paired numbers f64[n] each.

    The gain is the mean difference, positive where the first is better; its interval mean -+ t(n - 1) sd / sqrt(n).
    """
    gains = second - first if lower_is_better else first - second
    if not len(gains) or not np.isfinite(gains).all():
        return "-", "no figures" if not len(gains) else "not defined"
    mean = gains.mean()
    if len(gains) == 1:
        return f"{mean:+.3f}", "one run says nothing"
    half = stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    verdict = "within noise" if abs(mean) <= half else "confirmed" if mean > 0 else "not confirmed: the other way round"
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})", verdict


def markdown(header, body):
    """Lines of a Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(texts):
        return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, body)]


def report(experiment, folder, all_rules=False):
    """All tables of an experiment, as one text.

    Args:
      experiment: its module.
      folder: that holds the folders of its runs.
      all_rules: a row for each rule.
    """
    runs = sweep.runs_of(experiment)
    results = {run: read(folder / run.name) for run in runs}
    lines = []
    for data_set in dict.fromkeys(run.data_set for run in runs):
        of_set = [run for run in runs if run.data_set == data_set]
        lines += [f"### {folder.name}: {data_set}", "", *table(of_set, results, folder, all_rules)]
        if getattr(experiment, "CLAIMS", ()):
            lines += claims(experiment.CLAIMS, of_set, results)
        lines.append("")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sweep.arguments_of(parser)
    parser.add_argument("--all-rules", action="store_true", help="every inference rule of a method, not the first alone")
    given = parser.parse_args(arguments)
    file, folder = given.experiment.resolve(), (given.output / given.experiment.stem).resolve()
    os.chdir(sweep.ROOT)  # paths of the data are relative to the repository, as for the runs
    try:
        print(report(sweep.load(file), folder, given.all_rules))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
