"""A finished run as one page that needs no other file: report.html in its workdir."""

import pathlib

import numpy as np

from jaxord import metrics
from jaxord.report import errors, model_views, page, rerun, results, runs
from jaxord.workdir import files
from jaxord.workdir.results import numbers_of

# Each takes the finished folds and the first one's model, run again; it gives parts of the page,
# or the reason for having none.
SECTIONS = {
    "What was run": results.settings,
    "Results": results.scores,
    "Learning curves": results.learning,
    "Predicted against true": errors.scatter,
    "Confusion of ranks": errors.confusion,
    "Errors by label": errors.by_label,
    "Cumulative score": errors.cumulative,
    "Calibration": model_views.calibration,
    "Groups": errors.of_groups,
    "Order of the texts": model_views.texts,
    "Order of the features": model_views.features,
    "Nearest neighbours": model_views.neighbours,
    "Best and worst cases": model_views.cases,
    "Where the model looks": model_views.attribution,
    "Errors by further columns": errors.by_column,
    "On other data": results.elsewhere,
}


def write(workdir):
    """Writes report.html into a finished run, and features.npz beside its predictions.

    Tables, curves and predictions come from the workdir alone; features, examples and maps from the
    model, run again on the data. If either cannot be loaded, the page says so. The page holds all
    folds; features and examples are those of the first.

    Args:
      workdir: of the run; some of its folds may be unfinished.

    Returns:
      Path of the page.

    Raises:
      ValueError: no run there, none of its folds is finished, or matplotlib is not installed.
    """
    workdir = pathlib.Path(workdir)
    folds, unfinished = runs.read(workdir)
    model = rerun.run_again(folds[0])
    # Kept for the sweep's report, and for a report after the data are gone.
    if model.run:
        with files.replacing(folds[0].folder / rerun.FEATURES, "wb") as file:
            np.savez(file, **model.arrays)
    config = folds[0].config
    report = page.Page(f"{config.name}: {config.method}")
    for title, section in SECTIONS.items():
        report.add(title, section(folds, model))
    notes = []
    if unfinished:
        names = ", ".join(unfinished)
        notes.append(page.paragraph(f"Not finished, so not in this report: folds {names}."))
    if len(folds) > 1:
        notes.append(page.note(f"Features, examples and maps are those of fold {folds[0].name}."))
    report.write(workdir / "report.html", lead(folds), notes)
    return workdir / "report.html"


def lead(folds):
    """The outcome in two or three sentences."""
    config, rule, results = folds[0].config, folds[0].headline, [fold.scores for fold in folds]
    metric = config.select_metric
    number, constant = (numbers_of(results, row, metric).mean() for row in (rule, "constant"))
    over = f", mean of {len(folds)} folds" if len(folds) > 1 else ""
    count = sum(len(fold.test.target) for fold in folds)
    reached = f"the rule {rule} reaches {metric} {number:.4g}{over} (seed {config.seed})"
    text = f"On {count:,} test samples {reached}."
    if not np.isfinite(constant):
        return text
    sign, better = (-1, "lower") if metric in metrics.LOWER_IS_BETTER else (1, "higher")
    text += f" Always answering the median of the training labels gives {constant:.4g};"
    text += f" {better} is better."
    return text if sign * number > sign * constant else f"{text} So the model is no better."
