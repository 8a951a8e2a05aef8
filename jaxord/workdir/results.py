"""predictions.csv and results.json, averages over folds and seeds, and tables as text.

Nothing else writes or reads these two files. N test samples, A numbers of a label.
"""

import csv
import dataclasses
import re

import numpy as np

from jaxord.runtime import hosts
from jaxord.workdir import files
from jaxord.workdir.log import table

SELECTED_ON_TEST = "SELECTED ON THE TEST SPLIT: compare only with results selected the same way."


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The test split as predictions.csv holds it.

    Attributes:
      paths: [N] texts.
      target: f64[N], or f64[N, A].
      values: rule -> f64[N] or f64[N, A]; the first is the headline.
      extra: title -> [N] texts, the data's further columns, such as gender or camera.
    """

    paths: np.ndarray
    target: np.ndarray
    values: dict
    extra: dict


def write_predictions(path, task, name, predictions):
    """Writes path, target, each rule's value, the headline's rank and the data's further columns.

    Args:
      path: of predictions.csv.
      task, name: the split is task.splits[name].
      predictions: rule -> f32[N] or f32[N, A]; the first is the headline.
    """
    records, headline = task.splits[name].records, next(iter(predictions.values()))
    columns = {"path": records.paths, **_texts("target", records.targets)}
    for rule, values in predictions.items():
        columns |= _texts(rule, values)
    if task.ranks:
        ranks = task.ranks.index(headline)
        columns |= {"rank": ranks, "rank_name": [task.ranks.names[rank] for rank in ranks]}
    # The data's own rank and rank_name describe the target, not the prediction.
    taken = {*columns, "rank", "rank_name"}
    columns |= {title: texts for title, texts in records.columns.items() if title not in taken}
    with files.replacing(path, newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _texts(name, values):
    """{title: texts}; several numbers a label become name_0, name_1, ..."""
    if values.ndim == 1:
        return {name: [f"{value:.6g}" for value in values]}
    return {f"{name}_{i}": [f"{value:.6g}" for value in part] for i, part in enumerate(values.T)}


def read_predictions(folder, rules):
    """Reads predictions.csv of a folder; it may lack some of the `rules`, which are names.

    Raises:
      ValueError: predictions.csv is missing or damaged.
    """
    path, numbers = folder / "predictions.csv", {}
    with files.reading(path, "--mode=evaluate writes it again"):
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, map(np.array, zip(*rows, strict=True)), strict=True))
        # All other columns are the data's own.
        known = {"path", "rank", "rank_name"}
        for name in ("target", *rules):
            pattern = rf"{re.escape(name)}_\d+"
            titles = [title for title in columns if re.fullmatch(pattern, title)]
            titles = [name] if name in columns else titles
            known.update(titles)
            if titles:
                parts = np.stack([columns[title].astype(float) for title in titles], 1)
                numbers[name] = parts[:, 0] if titles == [name] else parts
        extra = {title: texts for title, texts in columns.items() if title not in known}
        return Predictions(columns["path"], numbers.pop("target"), numbers, extra)


def write_scores(folder, scores):
    """Writes results.json: split -> row -> metric -> number; what is not defined becomes null."""
    files.write_json(folder / "results.json", scores)


def read_scores(folder):
    """Reads the test split's row -> metric -> number from results.json; null becomes nan."""
    return files.read_numbers(folder / "results.json")["test"]


def numbers_of(results, row, metric):
    """f64[folds], a metric of a row in each of `results`; nan where it is missing."""
    return np.array([rows.get(row, {}).get(metric, np.nan) for rows in results], float)


def center_and_sd(numbers, summary="mean"):
    """Mean (or median) and sample standard deviation over folds or seeds.

    Both are nan if a number is not finite; of one number the deviation is nan.
    """
    numbers = np.asarray(numbers, float)
    if not len(numbers) or not np.isfinite(numbers).all():
        return np.nan, np.nan
    sd = numbers.std(ddof=1) if len(numbers) > 1 else np.nan
    return float(getattr(np, summary)(numbers)), float(sd)


def with_sd(numbers, form="{:.3f} ± {:.3f}", summary="mean"):
    """Text of center and deviation; of one number that number, nan if one is undefined."""
    center, sd = center_and_sd(numbers, summary)
    return center if np.isnan(sd) else form.format(center, sd)


def over_folds(results, summary="mean"):
    """row -> metric -> mean or median over several row -> metric -> number."""
    return {
        row: {
            metric: center_and_sd([rows[row][metric] for rows in results], summary)[0]
            for metric in scores
        }
        for row, scores in results[0].items()
    }


def markdown(header, body):
    """Lines of a Markdown table with aligned columns; all cells are texts."""
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(texts):
        cells = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (width + 2) for width in widths)
    return [line(header), f"|{rule}|", *map(line, body)]


@hosts.first
def summarise(config, folders):
    """Prints the table of the test split: one fold's scores, or their mean and spread over folds.

    Args:
      config: of the run.
      folders: of each fold's last stage, with results.json and DONE.json.

    Raises:
      ValueError: config.summary is neither "mean" nor "median".
    """
    if config.summary not in ("mean", "median"):
        raise ValueError(f"summary is {config.summary!r}; it takes 'mean' or 'median'")
    results = [read_scores(folder) for folder in folders]

    def cell(row, metric):
        numbers = numbers_of(results, row, metric)
        if config.summary == "median":
            return center_and_sd(numbers, "median")[0]
        return with_sd(numbers, "{:.3f} +- {:.3f}")

    rows = [
        {"test": row} | {name: cell(row, name) for name in config.metrics} for row in results[0]
    ]
    print()
    print(table(rows, ["test", *config.metrics]))
    spread = {"mean": "mean +- sd", "median": "median"}[config.summary]
    over = f"{len(folders)} folds, {spread}; " if len(folders) > 1 else ""
    done = files.read_json(folders[0] / "DONE.json")
    print(f"{over}parameters: {done['selected']}; predictions: {folders[0] / 'predictions.csv'}")
    # Such scores are too good, and the table alone does not show it.
    if config.select == "test":
        print(SELECTED_ON_TEST)
    if config.paper:
        print(f"published, {config.method}: {config.paper}")
