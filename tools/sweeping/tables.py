"""Tables of an experiment: scores beside the papers', claims, and losses from less data.

A part of a table or page is a text or a Table.
"""

import collections
import re

import numpy as np
from scipy import stats

from jaxord import metrics
from jaxord.binding import lookup, needs
from jaxord.targets import shots
from jaxord.workdir import results as workdir_results
from jaxord.workdir.results import SELECTED_ON_TEST, center_and_sd, with_sd
from tools.sweeping.results import NEAREST, by_fold, headline, nearest, reason, values

BASELINES = ("constant", "majority", NEAREST)
LEVEL = 0.95  # of the intervals
SHOWN = 12  # names of runs
GAIN = f"gain ({LEVEL:.0%} interval)"
CLAIMS = ["first", "before second", "metric", "of first", "of second", GAIN, "n", "verdict"]

Table = collections.namedtuple("Table", "header body")
# A row of the table of scores: its rule, how many runs it should have, the finished ones, and
# whether it competes for the best.
Row = collections.namedtuple("Row", "label rule planned results may_be_best")


def markdown(parts):
    """Parts as one Markdown text."""
    return "\n\n".join(
        part if isinstance(part, str) else "\n".join(workdir_results.markdown(*part))
        for part in parts
    )


def columns_of(results):
    """[(title, metric, end of the row's name)]: metrics, and the selecting one for each shot."""
    if not results:
        return []
    measured = [[n for n in r.config.metrics if n in r.rows[headline(r)]] for r in results]
    names = dict.fromkeys(name for some in measured for name in some)
    select, rows = results[0].config.select_metric, results[0].rows

    def is_filled(part):
        return np.isfinite(rows.get(f"constant, {part}", {}).get(select, np.nan))

    parts = [part for part in shots.SHOTS if is_filled(part)]
    by_shots = [(f"{select}, {part}", select, f", {part}") for part in parts]
    return [(name, name, "") for name in names] + by_shots


def cell(numbers, summary="mean"):
    """mean ± sd of several, the number of one; "-" if one is undefined."""
    text = with_sd(numbers, summary=summary)
    return text if isinstance(text, str) else "-" if np.isnan(text) else f"{text:.3f}"


def count(done, planned, folds):
    """ "3", "2 of 3", or "2 of 3 x 5 folds"."""
    runs = str(planned) if done == planned else f"{done} of {planned}"
    return f"{runs} x {folds} folds" if folds > 1 else runs


def some(names):
    """The first names."""
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def common_ranks(results):
    """The ranks that most runs have."""
    return collections.Counter(r.ranks for r in results).most_common(1)[0][0] if results else ""


def rows_of(s, all_rules):
    """[Row] of the labels."""
    rows = []
    for label, planned in collections.Counter(run.label for run in s.runs).items():
        done = [s.results[run] for run in s.labels.get(label, ())]
        rules = [rule["name"] for rule in done[0].config.rules] if done else ["-"]
        for rule in rules if all_rules else rules[:1]:
            rows.append(Row(label, rule, planned, done, rule == rules[0]))
    return rows


def draw(run):
    """The end of a run's name, which differs within a label: its seed, and its fold if chosen."""
    return re.search(r"(-fold=.*)?-seed=-?\d+$", run.name)[0]


def baselines(s, ranks):
    """([Row] of the baselines, one run for each draw, of runs with these ranks; notes)."""
    runs = [run for run in s.runs if s.results[run] and s.results[run].ranks == ranks]
    results = {draw(run): s.results[run] for run in reversed(runs)}
    found, notes = [results[key] for key in sorted(results)], []
    try:
        found = [result._replace(rows=result.rows | nearest(result, s.folder)) for result in found]
    except ValueError as error:
        notes.append(f"{NEAREST}: not computed, {str(error).splitlines()[0]}.")
    planned = len({draw(run) for run in s.runs})
    names = [name for name in BASELINES if found and name in found[0].rows]
    return [Row(name, name, planned, found, name == NEAREST) for name in names], notes


def scores(s, all_rules=False, paper=((), (), ())):
    """Parts of the table of scores of a DataSet; `paper` is of published.printed."""
    done, (printed, titles, sources) = s.done, paper
    summary = done[0].config.summary if done else "mean"
    of = f"{summary} ± standard deviation over seeds and folds, n of them"
    parts = [f"{len(done)} of {len(s.runs)} runs are done; {of}.", *_missing(s)]
    if not done and not printed:
        return parts
    ranks = common_ranks(done)
    beside, notes = baselines(s, ranks)
    rows = rows_of(s, all_rules)
    labels = [row.label for row in rows]
    # The papers compare with methods that the experiment does not run.
    quoted = dict.fromkeys(name for name, _ in printed if name not in labels)
    rows += [Row(name, "quoted", 0, [], False) for name in quoted] + beside
    columns = {title: (metric, part) for title, metric, part in columns_of(done)}
    for title in titles:
        metric, comma, part = title.partition(", ")
        columns[title] = metric, comma + part
    table = {
        "": [row.label for row in rows],
        "rule": [row.rule if row.rule != row.label else "" for row in rows],
        "n": [_size(row) for row in rows],
    }
    for title, (metric, part) in columns.items():
        table[title] = _cells(rows, metric, part, ranks, summary)
        if title in [place[1] for place in printed]:
            table[f"{title}, paper"] = [printed.get((row.label, title), "-") for row in rows]
    notes += _notes(done, ranks, {metric for metric, _ in columns.values()}, printed, sources)
    parts.append(Table(list(table), list(zip(*table.values(), strict=True))))
    return [*parts, "\n".join(notes)] if notes else parts


def _missing(s):
    """Texts on runs that are not done, by reason."""
    reasons = {}
    for run in s.runs:
        if not s.results[run]:
            reasons.setdefault(reason(run, s.folder, s.done), []).append(run.name)
    return [f"MISSING, {len(x)} runs: {some(x)}. Reason: {why}." for why, x in reasons.items()]


def _size(row):
    folds = max([len(result.folds) for result in row.results], default=0)
    return count(len(row.results), row.planned, folds) if row.planned else "-"


def _needs_ranks(metric):
    return "predicted_rank" in needs(lookup(metrics, metric))[0]


def _cells(rows, metric, part, ranks, summary):
    """Cells of a metric: the best row is bold, † marks rows on other ranks."""
    sign = 1 if metric in metrics.LOWER_IS_BETTER else -1
    cells, worth = [], []
    for row in rows:
        folds = [by_fold(result, row.rule + part, metric) for result in row.results]
        numbers = [number for fold in folds for number in fold.values()]
        is_alike = all(r.ranks == ranks for r in row.results) or not _needs_ranks(metric)
        cells.append(cell(numbers, summary) + ("" if is_alike else "†"))
        competes = numbers and is_alike and row.may_be_best
        worth.append(sign * np.mean(numbers) if competes else np.nan)
    best = np.nanmin([*worth, np.inf])
    return [f"**{cell}**" if x == best else cell for cell, x in zip(cells, worth, strict=True)]


def _notes(done, ranks, measured, printed, sources):
    """Lines below the table of scores."""
    notes = []
    if any(result.ranks != ranks for result in done):
        names = ", ".join(sorted(filter(_needs_ranks, measured)))
        notes.append(f"† on other ranks than the rest, so {names} cannot be compared.")
    if any(result.config.select == "test" for result in done):
        notes.append(SELECTED_ON_TEST)
    if printed:
        numbered = ", ".join(f"[{k}] {source}" for k, source in enumerate(sources, 1))
        is_percent = any("%" in text for text in printed.values())
        shares = " Beside figures in %, ours are shares." if is_percent else ""
        notes.append(f"As printed: {numbered}.{shares}")
    return notes


def paired(labels, s, part=""):
    """Two labels' selecting metric, f64[n] each, for the draws and folds that both have."""
    numbers = [
        {
            (draw(run), fold): number
            for run in s.labels.get(label, ())
            for fold, number in values(s.results[run], part).items()
        }
        for label in labels
    ]
    both = sorted(set(numbers[0]) & set(numbers[1]))
    return [np.array([of_label[pair] for pair in both]) for of_label in numbers]


def selecting_metric(labels, s):
    """The metric that selects among checkpoints in the first finished run; "" without one."""
    done = [s.results[run] for label in labels for run in s.labels.get(label, ())]
    return done[0].config.select_metric if done else ""


def gains_of(claim, s):
    """f64[n], by how much the first label of a claim is better than the second, pair by pair."""
    first, second = paired(claim[:2], s, *claim[2:])
    is_error = selecting_metric(claim[:2], s) in metrics.LOWER_IS_BETTER
    return second - first if is_error else first - second


def claims(wanted, s):
    """Parts of the table of claims of a DataSet, without claims on labels that it does not run.

    Args:
      wanted: ((first, second) or (first, second, part), ...) of labels.
      s: DataSet.
    """
    body, folds = [], 0
    for claim in wanted:
        labels, part = claim[:2], claim[2:]
        draws = [{draw(run) for run in s.runs if run.label == label} for label in labels]
        # Another data set of the experiment may run these labels.
        if not all(draws):
            continue
        finished = [{draw(run) for run in s.labels.get(label, ())} for label in labels]
        done, planned = (len(set.intersection(*some)) for some in (finished, draws))
        numbers = paired(labels, s, *part)
        each = len(numbers[0]) // max(done, 1)
        folds = max(folds, each)
        title = ", ".join([selecting_metric(labels, s) or "-", *part])
        gain, verdict = judge(gains_of(claim, s))
        n = count(done, planned, each)
        body.append([*labels, title, *map(cell, numbers), gain, n, verdict])
    if not body:
        return []
    shared = " and fold; folds share training images, which makes the intervals too narrow."
    by = f"Paired by seed{shared if folds > 1 else '.'} With no true difference, one comparison in"
    return [Table(CLAIMS, body), f"{by} {1 / (1 - LEVEL):.0f} still looks significant."]


def interval(gains):
    """(mean, half width) of the interval mean -+ t(n - 1) sd / sqrt(n); nan for one number."""
    mean, sd = center_and_sd(gains)
    if np.isnan(sd):
        return mean, np.nan
    return mean, stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1) * sd / np.sqrt(len(gains))


def judge(gains):
    """(mean gain with its interval, verdict) of paired gains f64[n], positive if better."""
    if not len(gains) or not np.isfinite(gains).all():
        return "-", "not defined" if len(gains) else "no figures"
    mean, half = interval(gains)
    if len(gains) == 1:
        return f"{mean:+.3f}", "one run says nothing"
    verdict = "confirmed" if mean > 0 else "not confirmed: the other way round"
    if abs(mean) <= half:
        verdict = "within noise"
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})", verdict


def losses(full, s, printed):
    """Parts of the table of relative losses of a DataSet: (m - m') / m', positive if m is worse.

    Args:
      full: {label: label with all data}, for m and m'.
      s: DataSet.
      printed: {(label, title of a column): text} of published.printed.
    """
    metric = selecting_metric(s.labels, s) or "mae"
    sign, body = 1 if metric in metrics.LOWER_IS_BETTER else -1, []
    for label, whole in full.items():
        less, all_data = paired((label, whole), s)
        ours = percent(sign * (less - all_data) / all_data)
        found = [re.match(r"[\d.]+", printed.get((x, metric), "")) for x in (label, whole)]
        # A figure can be missing in the paper, or be printed with its deviation.
        paper = "-"
        if all(found):
            theirs, reference = (float(match[0]) for match in found)
            paper = f"{100 * sign * (theirs - reference) / reference:+.1f} %"
        body.append([label, whole, ours, str(len(less)), paper])
    if not body:
        return []
    header = [f"relative loss of {metric}", "against", "ours", "n", "paper"]
    note = f"Share by which {metric} is worse than with all training data, paired by seed and fold."
    return [Table(header, body), note]


def percent(shares):
    """mean ± sd of shares in percent; "-" if one is undefined."""
    text = with_sd(100 * shares, "{:+.1f} ± {:.1f}")
    if not isinstance(text, str):
        text = "-" if np.isnan(text) else f"{text:+.1f}"
    return text if text == "-" else f"{text} %"
