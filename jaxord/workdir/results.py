"""The table that a finished run prints: one fold's figures, or their mean and spread over the
folds."""

import numpy as np

from jaxord.runtime import hosts
from jaxord.workdir import files
from jaxord.workdir.log import table


@hosts.first
def summarise(config, folders):
    """Prints the table of the test split.

    Args:
      config: the run's.
      folders: of the last stage of each fold, with results.json and DONE.json.

    Raises:
      ValueError: config.summary is neither "mean" nor "median".
    """
    if config.summary not in ("mean", "median"):
        raise ValueError(f"summary is {config.summary!r}; it takes 'mean' or 'median'")
    results = [files.read_numbers(folder / "results.json")["test"] for folder in folders]
    done = files.read_json(folders[0] / "DONE.json")
    rows = []
    for row in results[0]:
        numbers = {
            metric: np.array([result[row].get(metric, np.nan) for result in results])
            for metric in config.metrics
        }
        rows.append(
            {
                "test": row,
                **{metric: over_folds(x, config.summary) for metric, x in numbers.items()},
            }
        )
    print()
    print(table(rows, ["test", *config.metrics]))
    spread = {"mean": "mean +- sd", "median": "median"}[config.summary]
    over = f"{len(folders)} folds, {spread}; " if len(folders) > 1 else ""
    print(f"{over}parameters: {done['selected']}; predictions: {folders[0] / 'predictions.csv'}")
    if config.select == "test":
        print("SELECTED ON THE TEST SPLIT: comparable only with figures that were chosen so too")
    if config.paper:
        print(f"published, {config.method}: {config.paper}")


def over_folds(numbers, kind):
    """The number, or of several their median, or their mean and standard deviation as text."""
    if (
        len(numbers) == 1 or np.isnan(numbers).any()
    ):  # a correlation of constants is not defined in any fold
        return float(numbers.mean())
    return (
        float(np.median(numbers))
        if kind == "median"
        else f"{numbers.mean():.3f} +- {numbers.std(ddof=1):.3f}"
    )
