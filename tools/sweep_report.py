"""The report of an experiment, one page that needs no other file, from the results of its runs.

    python tools/sweep_report.py experiments/stsb.py [--output=runs] [--figures=experiments/figures]
    [--runs]

The page, <output>/<experiment>/report.html, holds for each data set the settings of its runs, the
tables and claims of tools/table.py, each metric by setting, metrics against a number among the
settings or the evaluations, learning curves, Group-DIR's figures if runs have groups, and maps of
features side by side. Each figure is a PNG file too, in the folder of --figures or in
<output>/<experiment>/figures. Maps come from features.npz, which a run's own report keeps; --runs
writes the reports of all finished runs first.
"""

import argparse
import pathlib
import sys

# configs/ and experiments/ lie beside tools/ and are not installed.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from experiments import published
from jaxord import report
from jaxord.report import page, runs
from jaxord.report.figures import style
from tools.sweeping import plan, sections, tables
from tools.sweeping.results import read, read_all


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
    planned, document = plan.runs_of(experiment), page.Page(f"Experiment: {name}")
    paper, full = getattr(experiment, "PAPER", ()), getattr(experiment, "FULL", {})
    sets, lead = list(dict.fromkeys(run.data_set for run in planned)), []
    figures.mkdir(parents=True, exist_ok=True)
    for data_set in sets:
        of_set = [run for run in planned if run.data_set == data_set]
        # Files of several data sets lie in one folder.
        prefix = f"{name}-{data_set}" if len(sets) > 1 else name

        def show(figure, caption, title, prefix=prefix):
            style.write_png(figure, figures / f"{prefix}-{title}.png")
            return page.picture(figure, caption)

        _, results = read_all(experiment, of_set, folder)
        folds = {run: runs.read(folder / run.name)[0] for run in of_set if results[run]}
        claims = getattr(experiment, "CLAIMS", ())
        s = sections.Finished(of_set, results, folder, folds, claims, show)
        lead.append(f"{data_set}: {len(folds)} of {len(of_set)} runs are done")
        before = f"{data_set}: " if len(sets) > 1 else ""
        printed = published.printed(paper, data_set)
        parts = tables.scores(s, paper=printed)
        parts += tables.losses(full, s, printed[0])
        if folds:
            document.add(f"{before}What was run", sections.settings(s))
        document.add(f"{before}Results", page.blocks(parts))
        for title, section in sections.SECTIONS.items() if folds else ():
            document.add(before + title, section(s))
    about = (experiment.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    document.write(folder / "report.html", f"{about} {'; '.join(lead)}.".strip())
    return folder / "report.html"


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    plan.arguments_of(parser)
    parser.add_argument("--figures", type=pathlib.Path, help="folder of the PNG files")
    first = "write the report of each finished run first"
    parser.add_argument("--runs", action="store_true", help=first)
    flags = parser.parse_args(arguments)
    folder = (flags.output / flags.experiment.stem).resolve()
    figures = (flags.figures or folder / "figures").resolve()
    try:
        experiment = plan.load(flags.experiment)
        for run in plan.runs_of(experiment) if flags.runs else ():
            if read(folder / run.name):
                print(report.write(folder / run.name), flush=True)
        print(write(experiment, folder, figures, flags.experiment.stem))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
