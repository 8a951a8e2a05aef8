"""A finished run as one page that needs no other file: report.html in its workdir."""

import os
import pathlib

import numpy as np

from jaxord import metrics
from jaxord.report import model_views, page, rerun, results, runs

SECTIONS = {
    "What was run": results.what,
    "Results": results.results,
    "Learning curves": results.learning,
    "Predicted against true": results.scatter,
    "Confusion of ranks": results.confusion,
    "Errors by label": results.by_label,
    "Cumulative score": results.cumulative,
    "Calibration": model_views.calibration,
    "Groups": results.of_groups,
    "Order of the texts": model_views.texts,
    "Order of the features": model_views.features,
    "Nearest neighbours": model_views.neighbours,
    "Best and worst cases": model_views.cases,
    "Where the model looks": model_views.looks_at,
    "Errors by further columns": results.by_column,
    "On other data": results.elsewhere,
}


def write(workdir):
    """Writes report.html into the workdir of a finished run, and features.npz beside its
    predictions.

    The workdir alone gives the tables, the curves and the predictions; the model and the data,
    loaded again, give features, examples and maps. Where they cannot be loaded the page says so and
    stands without them. Of several folds the page holds all; features and examples are those of the
    first.

    Args:
      workdir: of the run; some of its folds may be unfinished.

    Returns:
      Path of the page.

    Raises:
      ValueError: no run there, none of its folds is finished, or matplotlib is not installed.
    """
    workdir = pathlib.Path(workdir)
    folds, unfinished = runs.read(workdir)
    seen = rerun.look(folds[0])
    if seen.run:
        np.savez(folds[0].folder / rerun.FEATURES, **seen.arrays)
    content, missing = {}, {}
    for title, make in SECTIONS.items():
        parts = make(folds, seen)
        if isinstance(parts, str):
            missing.setdefault(parts, []).append(title)
        else:
            content[title] = parts
    notes = []
    if unfinished:
        notes.append(
            page.paragraph(f"Not finished, so not in this report: folds {', '.join(unfinished)}.")
        )
    if len(folds) > 1:
        notes.append(
            page.paragraph(
                f"Features, examples and maps are those of fold {folds[0].name}.", kind="note"
            )
        )
    if missing:
        notes.append(
            page.bullets(f"{', '.join(titles)}: {reason}" for reason, titles in missing.items())
        )
    if notes:
        content["What is not here"] = notes
    c = folds[0].config
    text = page.document(f"{c.name}: {c.method}", lead(folds), content)
    file = workdir / "report.html"
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
    return file


def lead(folds):
    """What came out, in two sentences."""
    c, rule = folds[0].config, folds[0].headline
    metric = c.select_metric
    number, constant = (runs.numbers_of(folds, row, metric).mean() for row in (rule, "constant"))
    over = f", mean of {len(folds)} folds" if len(folds) > 1 else ""
    count = sum(len(fold.target) for fold in folds)
    text = f"On {count:,} test samples the rule {rule} reaches {metric} {number:.4g}{over} (seed {c.seed})."
    if not np.isfinite(constant):
        return text
    sign, better = (-1, "lower") if metric in metrics.LOWER_IS_BETTER else (1, "higher")
    text += f" Always answering the median of the training labels gives {constant:.4g}; {better} is better."
    return (
        text if sign * number > sign * constant else f"{text} So the model is no better than that."
    )
