"""The table of an experiment, from the results of its runs, in Markdown.

    python tools/table.py experiments/photo_quality.py [--output=runs] [--all-rules]

Rows are the labels of the experiment under their headline rules (--all-rules: under every rule),
columns the metrics on the test split: mean or median and standard deviation over seeds and folds,
n of them. Beside them stand the figures of PAPER (experiments/published.py), methods that are only
quoted, two predictors that do not look at the image, and one that sees only pixels: the label of
the training image with the nearest thumbnail. The best of ours that look at the image is bold; on a
part of the labels a constant can be right. Runs that are not done are named, with the reason.

A column "mae, few" is the metric on a part: few-shot labels, a category of folds, an evaluation
(tools/sweeping/results.py).

Below stand the CLAIMS of the experiment: ("a", "b") says that a beats b on the metric that selects
among checkpoints, ("a", "b", "few") that it does so on that part; differences are paired by seed
and fold.

If the experiment takes training data away, its FULL = {label: label with all data} gives a last
table: the share by which the selecting metric is worse than with all data, paired likewise, beside
the same share from the papers' figures.
"""

import argparse
import pathlib
import sys

# configs/ and experiments/ lie beside tools/ and are not installed.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from experiments import published
from tools.sweeping import plan, tables
from tools.sweeping.results import DataSet, lacking, read_all


def tables_of(experiment, folder, all_rules=False):
    """All tables of an experiment's module and folder as Markdown; --all-rules is `all_rules`.

    Raises:
      ValueError: a claim or a relative loss of a label that no run has.
    """
    runs, paper = plan.runs_of(experiment), getattr(experiment, "PAPER", ())
    claims, full = getattr(experiment, "CLAIMS", ()), getattr(experiment, "FULL", {})
    compared = {"CLAIMS": {label for claim in claims for label in claim[:2]}}
    compared["FULL"] = {*full, *full.values()}
    for name, labels in compared.items():
        if unknown := sorted(labels - {run.label for run in runs}):
            raise ValueError(f"{name} has {unknown}, which the experiment does not run")
    evaluations, results = read_all(experiment, runs, folder)
    parts = []
    for data_set in dict.fromkeys([*(run.data_set for run in runs), *published.data_sets(paper)]):
        of_set = [run for run in runs if run.data_set == data_set]
        printed = published.printed(paper, data_set)
        parts.append(f"### {folder.name}: {data_set}")
        s = DataSet(of_set, results, folder)
        parts += tables.scores(s, all_rules, printed)
        missing = [
            f"{run.name} {name}"
            for run in of_set
            if results[run]
            for name in lacking(folder / run.name, evaluations[run.name])
        ]
        if missing:
            parts.append(f"NOT EVALUATED, {len(missing)} times: {tables.some(missing)}.")
        parts += tables.claims(claims, s)
        parts += tables.losses(full, s, printed[0])
    return tables.markdown(parts) + "\n"


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    plan.arguments_of(parser)
    every = "every inference rule of a method, not the first alone"
    parser.add_argument("--all-rules", action="store_true", help=every)
    flags = parser.parse_args(arguments)
    folder = (flags.output / flags.experiment.stem).resolve()
    try:
        print(tables_of(plan.load(flags.experiment), folder, flags.all_rules))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
