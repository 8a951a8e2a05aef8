"""The table of an experiment, from what its runs have written, in Markdown.

    python tools/table.py experiments/photo_quality.py [--output=runs] [--all-rules]

Rows are the labels of the experiment under the headline rule of each (--all-rules: under every
rule), columns the metrics on the test split, mean or median and standard deviation over seeds and
folds, n of them. Beside them stand the figures of PAPER (experiments/published.py), methods that
are only quoted, two predictors that do not look at the image, and one that sees no more than
pixels: the label of the training image whose thumbnail is nearest. The best of ours that look at
the image is bold; on a part of the labels a constant can be right. Runs that are not done are
named, with what they lack.

A column "mae, few" is the metric on a part: few-shot labels, a category of folds, an evaluation
(tools/results.py).

Below stand the CLAIMS of the experiment: ("a", "b") says that a beats b on the metric that selects
  among checkpoints,
("a", "b", "few") that it does so on that part; differences are paired by seed and fold.

Where the experiment takes training data away, its FULL = {label: label with all data} gives a last
table: by how much the selecting metric is worse than with all data, as a share of it, paired
likewise, and what follows from the papers' figures.
"""

import argparse
import collections
import pathlib
import re
import sys

import numpy as np
from scipy import stats

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ and experiments/ lie beside tools/ and are not installed

from experiments import published
from jaxord import metrics
from jaxord.binding import lookup, needs
from jaxord.targets import shots
from tools.results import NEAREST, by_fold, headline, lacking, nearest, read_all, reason, values
from tools.sweeping import plan

BASELINES = ("constant", "majority", NEAREST)
LEVEL = 0.95  # of the intervals
SHOWN = 12  # names of runs

# A row of the table: its rule, how many runs it should have, those that are done, whether it may be
# the best.
Row = collections.namedtuple("Row", "label rule planned results may_be_best")


def columns_of(results):
    """[(title, metric, end of the row's name)]: the metrics, and the selecting one for many-,
    median- and few-shot labels."""
    if not results:
        return []
    names = dict.fromkeys(
        name for r in results for name in r.config.metrics if name in r.rows[headline(r)]
    )
    select, constant = results[0].config.select_metric, results[0].rows
    parts = [
        part
        for part in shots.SHOTS
        if np.isfinite(constant.get(f"constant, {part}", {}).get(select, np.nan))
    ]
    return [(name, name, "") for name in names] + [
        (f"{select}, {part}", select, f", {part}") for part in parts
    ]


def cell(numbers, summary="mean"):
    """mean ± sd of several, the number of one; "-" where one of them is not defined."""
    if not len(numbers) or not np.isfinite(numbers).all():
        return "-"
    return f"{getattr(np, summary)(numbers):.3f}" + (
        f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    )


def count(done, planned, folds):
    """ "3", "2 of 3", or "2 of 3 x 5 folds"."""
    runs = str(planned) if done == planned else f"{done} of {planned}"
    return f"{runs} x {folds} folds" if folds > 1 else runs


def some(names):
    """The first names."""
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def rows_of(runs, results, all_rules):
    """[Row] of the labels."""
    rows = []
    for label in dict.fromkeys(run.label for run in runs):
        of_label = [run for run in runs if run.label == label]
        found = [results[run] for run in of_label if results[run]]
        rules = [rule["name"] for rule in found[0].config.rules] if found else ["-"]
        rows += [
            Row(label, rule, len(of_label), found, rule == rules[0])
            for rule in (rules if all_rules else rules[:1])
        ]
    return rows


def draw(run):
    """What tells a run from the others of its label: seed, and fold where it has one alone."""
    return re.search(r"(-fold=.*)?-seed=-?\d+$", run.name)[0]


def baselines(runs, results, ranks, folder):
    """([Row] of the baselines, a run a seed and fold, of runs with these ranks; notes on what is
    not there)."""
    of_draw = {
        draw(run): results[run]
        for run in reversed(runs)
        if results[run] and results[run].ranks == ranks
    }
    found, notes = [of_draw[key] for key in sorted(of_draw)], []
    try:
        found = [r._replace(rows=r.rows | nearest(r, folder)) for r in found]
    except ValueError as error:
        notes.append(f"{NEAREST}: not computed, {str(error).splitlines()[0]}.")
    planned, names = (
        len({draw(run) for run in runs}),
        [name for name in BASELINES if found and name in found[0].rows],
    )
    return [Row(name, name, planned, found, name == NEAREST) for name in names], notes


def table(runs, results, folder, all_rules=False, paper=((), (), ())):
    """Lines of the table of one data set.

    Args:
      runs: [plan.Run] of the data set.
      results: run -> Result or None.
      folder: of the experiment.
      all_rules: a row for each rule.
      paper: of published.printed.
    """
    done, missing = [results[run] for run in runs if results[run]], collections.defaultdict(list)
    summary, (printed, titles, sources) = done[0].config.summary if done else "mean", paper
    for run in runs:
        if not results[run]:
            missing[reason(run, folder, done)].append(run.name)
    lines = [
        f"{len(done)} of {len(runs)} runs are done; {summary} ± standard deviation over seeds and folds, n of them."
    ]
    for why, names in missing.items():
        lines += ["", f"MISSING, {len(names)} runs: {some(names)}. Reason: {why}."]
    if not done and not printed:
        return lines
    columns = {title: (metric, part) for title, metric, part in columns_of(done)}
    columns |= {
        title: (title.split(", ")[0], title.removeprefix(title.split(", ")[0])) for title in titles
    }
    ranks = collections.Counter(r.ranks for r in done).most_common(1)[0][0] if done else ""
    of_ranks = {
        metric
        for metric, _ in columns.values()
        if done and "predicted_rank" in needs(lookup(metrics, metric))[0]
    }
    beside, notes = baselines(runs, results, ranks, folder)
    rows = rows_of(runs, results, all_rules)
    quoted = dict.fromkeys(name for name, _ in printed if name not in [row.label for row in rows])
    rows += [Row(name, "quoted", 0, [], False) for name in quoted] + beside
    body = []
    for row in rows:
        n = (
            count(
                len(row.results), row.planned, max([len(r.folds) for r in row.results], default=0)
            )
            if row.planned
            else "-"
        )
        body.append([row.label, row.rule if row.rule != row.label else "", n])
    header = ["", "rule", "n"]
    for title, (metric, part) in columns.items():
        means = []
        for line, row in zip(body, rows, strict=True):
            numbers = [
                number
                for r in row.results
                for number in by_fold(r, row.rule + part, metric).values()
            ]
            alike = metric not in of_ranks or all(r.ranks == ranks for r in row.results)
            line.append(cell(numbers, summary) + ("" if alike else "†"))
            worth = np.mean(numbers or [np.nan]) * (1 if metric in metrics.LOWER_IS_BETTER else -1)
            means.append(worth if alike and row.may_be_best else np.nan)
        best = np.nanmin([*means, np.inf])
        for line, mean in zip(body, means, strict=True):
            if mean == best:
                line[-1] = f"**{line[-1]}**"
        header.append(title)
        if title in [place[1] for place in printed]:
            header.append(f"{title}, paper")
            for line, row in zip(body, rows, strict=True):
                line.append(printed.get((row.label, title), "-"))
    if any(r.ranks != ranks for r in done):
        notes.append(
            f"† on other ranks than the rest, so {', '.join(sorted(of_ranks))} cannot be compared."
        )
    if any(r.config.select == "test" for r in done):
        notes.append(
            "SELECTED ON THE TEST SPLIT: comparable only with figures that were chosen so too."
        )
    if printed:
        numbered = ", ".join(f"[{k}] {source}" for k, source in enumerate(sources, 1))
        shares = (
            " Where that is in %, ours are shares."
            if any("%" in text for text in printed.values())
            else ""
        )
        notes.append(f"As printed: {numbered}.{shares}")
    lines += ["", *markdown(header, body)]
    return [*lines, "", *notes] if notes else lines


def claims(wanted, runs, results):
    """Lines of the table of claims of one data set; claims on labels that are not run on it are
    left out.

    Args:
      wanted: ((first, second) or (first, second, part), ...) of labels.
      runs: [plan.Run] of the data set.
      results: run -> Result or None.
    """
    body, folds = [], 0
    for first, second, *part in wanted:
        if not {first, second} <= {run.label for run in runs}:
            continue
        of_label = [
            {draw(run): results[run] for run in runs if run.label == label}
            for label in (first, second)
        ]
        plan = set(of_label[0]) & set(of_label[1])
        done = {key for key in plan if all(of_label[k][key] for k in (0, 1))}
        numbers = [
            {
                (key, fold): number
                for key, r in some.items()
                if r
                for fold, number in values(r, *part).items()
            }
            for some in of_label
        ]
        both = sorted(set(numbers[0]) & set(numbers[1]))
        a, b = (np.array([x[pair] for pair in both]) for x in numbers)
        metric = next(
            (r.config.select_metric for some in of_label for r in some.values() if r), "-"
        )
        gain, verdict = judge(a, b, metric in metrics.LOWER_IS_BETTER)
        folds = max(folds, len(both) // max(len(done), 1))
        n = count(len(done), len(plan), len(both) // max(len(done), 1))
        body.append([first, second, ", ".join([metric, *part]), cell(a), cell(b), gain, n, verdict])
    if not body:
        return []
    header = [
        "first",
        "before second",
        "metric",
        "of first",
        "of second",
        f"gain ({LEVEL:.0%} interval)",
        "n",
        "verdict",
    ]
    by = "Paired by seed"
    by += (
        " and fold; folds share training images, which makes the intervals too narrow."
        if folds > 1
        else "."
    )
    return [
        "",
        *markdown(header, body),
        "",
        f"{by} Of differences that are not there, one in {1 / (1 - LEVEL):.0f} leaves the noise by chance.",
    ]


def losses(full, runs, results, printed):
    """Lines of the table of relative losses of one data set: (m - m') / m', m' with all data;
    positive where m is worse.

    Args:
      full: {label: label with all data}.
      runs: [plan.Run] of the data set.
      results: run -> Result or None.
      printed: {(label, title of a column): text} of published.printed.
    """
    body, metric = [], next((r.config.select_metric for run in runs if (r := results[run])), "mae")
    sign = 1 if metric in metrics.LOWER_IS_BETTER else -1
    for label, whole in full.items():
        of_label = [
            {
                (draw(run), fold): number
                for run in runs
                if run.label == name and (r := results[run])
                for fold, number in values(r).items()
            }
            for name in (label, whole)
        ]
        both = sorted(set(of_label[0]) & set(of_label[1]))
        a, b = (np.array([x[pair] for pair in both]) for x in of_label)
        theirs = [re.match(r"[\d.]+", printed.get((name, metric), "")) for name in (label, whole)]
        paper = "-"
        if all(theirs):
            here, there = (float(found[0]) for found in theirs)
            paper = f"{100 * sign * (here - there) / there:+.1f} %"
        body.append(
            [label, whole, percent(sign * (a - b) / b) if both else "-", str(len(both)), paper]
        )
    if not body:
        return []
    said = f"By how much {metric} is worse than with all training data, as a share of that, paired by seed and fold."
    return [
        "",
        *markdown([f"relative loss of {metric}", "against", "ours", "n", "paper"], body),
        "",
        said,
    ]


def percent(shares):
    """mean ± sd of shares in percent; "-" where one of them is not defined."""
    if not np.isfinite(shares).all():
        return "-"
    return (
        f"{100 * np.mean(shares):+.1f}"
        + (f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else "")
        + " %"
    )


def value(result, part=""):
    """The selecting metric under the headline rule; of a part where one is named, nan where there
    is none."""
    row = headline(result) + (f", {part}" if part else "")
    return result.rows.get(row, {}).get(result.config.select_metric, np.nan)


def judge(first, second, lower_is_better):
    """(gain with its interval, verdict) of paired numbers f64[n] each.

    The gain is the mean difference, positive where the first is better; its interval mean -+ t(n -
    1) sd / sqrt(n).
    """
    gains = second - first if lower_is_better else first - second
    if not len(gains) or not np.isfinite(gains).all():
        return "-", "no figures" if not len(gains) else "not defined"
    mean = gains.mean()
    if len(gains) == 1:
        return f"{mean:+.3f}", "one run says nothing"
    half = stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    verdict = (
        "within noise"
        if abs(mean) <= half
        else "confirmed"
        if mean > 0
        else "not confirmed: the other way round"
    )
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})", verdict


def markdown(header, body):
    """Lines of a Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(texts):
        return (
            "| "
            + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True))
            + " |"
        )

    return [
        line(header),
        "|" + "|".join("-" * (width + 2) for width in widths) + "|",
        *map(line, body),
    ]


def report(experiment, folder, all_rules=False):
    """All tables of an experiment, as one text.

    Args:
      experiment: its module.
      folder: that holds the folders of its runs.
      all_rules: a row for each rule.

    Raises:
      ValueError: a claim or a relative loss of a label that no run has.
    """
    runs, paper, wanted = (
        plan.runs_of(experiment),
        getattr(experiment, "PAPER", ()),
        getattr(experiment, "CLAIMS", ()),
    )
    full = getattr(experiment, "FULL", {})
    for name, wants in (
        ("CLAIMS", {label for claim in wanted for label in claim[:2]}),
        ("FULL", {*full, *full.values()}),
    ):
        if unknown := sorted(wants - {run.label for run in runs}):
            raise ValueError(f"{name} has {unknown}, which the experiment does not run")
    evaluations, results = read_all(experiment, runs, folder)
    lines = []
    for data_set in dict.fromkeys([*(run.data_set for run in runs), *published.data_sets(paper)]):
        of_set = [run for run in runs if run.data_set == data_set]
        printed = published.printed(paper, data_set)
        lines += [
            f"### {folder.name}: {data_set}",
            "",
            *table(of_set, results, folder, all_rules, printed),
        ]
        left = [
            f"{run.name} {name}"
            for run in of_set
            if results[run]
            for name in lacking(folder / run.name, evaluations[run.name])
        ]
        if left:
            lines += ["", f"NOT EVALUATED, {len(left)} times: {some(left)}."]
        lines += [*claims(wanted, of_set, results), *losses(full, of_set, results, printed[0]), ""]
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan.arguments_of(parser)
    parser.add_argument(
        "--all-rules",
        action="store_true",
        help="every inference rule of a method, not the first alone",
    )
    given = parser.parse_args(arguments)
    folder = (given.output / given.experiment.stem).resolve()
    try:
        print(report(plan.load(given.experiment), folder, given.all_rules))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
