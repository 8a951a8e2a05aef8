"""The course of a training: how many steps it takes, what is due when, which split chooses among
its checkpoints, and what is said where it cannot go on.
"""

import functools

import numpy as np

from jaxord import metrics, optim
from jaxord.data.batches import train_rows

SHOWN = 16  # rows of a batch that a message names
PERIODS = ("evaluate_every", "checkpoint_every", "log_every")  # of config.train


def lengths(task):
    """(steps of the run, function of a length as in the config -> steps)."""
    config = task.config
    length = functools.partial(
        optim.steps, batch=config.data.batch, examples=len(task.splits["train"].records)
    )
    total = round(length(config.train.duration) * config.train.share)
    return total, functools.partial(length, total=total)


def periods(config, length):
    """Steps between two evaluations, two checkpoints and two entries of the log, at least 1.

    Args:
      config: a whole config.
      length: as of `lengths`.
    """
    return tuple(max(1, length(config.train[name])) for name in PERIODS)


def calls(done, total, most, periods):
    """(steps made before, steps) of each call of the train step: at most `most`, and none passes a
    multiple of a period."""
    while done < total:
        count = min(most, total - done, *(period - done % period for period in periods))
        yield done, count
        done += count


def headline(config, scores):
    """Metrics of the first rule."""
    return scores[config.rules[0]["name"]]


def curves(config, scores):
    """{metric: number} of the headline rule and of the model, and {"rule metric": number} of the
    other rules."""
    first, *others = (rule["name"] for rule in config.rules)
    found = {**scores[first], **scores.get("model", {})}
    return found | {
        f"{rule} {metric}": value for rule in others for metric, value in scores[rule].items()
    }


def direction(config):
    """1 where a lower value of the selecting metric is better, else -1."""
    if config.select_metric not in config.metrics:
        raise ValueError(
            f"select_metric is {config.select_metric!r}, which is not among metrics {config.metrics}"
        )
    return 1.0 if config.select_metric in metrics.LOWER_IS_BETTER else -1.0


def judging_split(config, splits):
    """The split that chooses among the checkpoints; "" takes the last step, as without a validation
    split."""
    if config.select not in ("val", "last", "test"):
        raise ValueError(f"select is {config.select!r}; it takes 'val', 'last' or 'test'")
    direction(config)
    return config.select if config.select in splits else ""


def watched_splits(config, splits):
    """(the judging split or "", the splits whose metrics are logged, that one first)."""
    judge = judging_split(config, splits)
    watched = ([judge] if judge else []) + [
        split for split in config.train.curves if split != judge
    ]
    if not set(watched) <= set(splits):
        raise ValueError(f"train.curves is {config.train.curves}; the splits are {sorted(splits)}")
    return judge, watched


def lost(task, step, in_a_row, values):
    """Why a training has stopped whose numbers are not finite, and the examples that it happened
    with, as text.

    No parameter has changed since the first of the skipped steps, so its batch is the one to look
    at.

    Args:
      task: from `make_task`.
      step: steps taken.
      in_a_row: how many of them, up to this one, were skipped; 0 where it is the state that is not
        finite.
      values: metrics of that step, or {}.
    """
    config, records = task.config, task.splits["train"].records
    rows, _ = train_rows(task.splits["train"], batch=config.data.batch, seed=config.seed)(
        step - max(in_a_row, 1)
    )
    rows = np.unique(rows)
    said = ", ".join(
        f"{name} {value:g}" for name, value in values.items() if not np.isfinite(value)
    )
    what = f"{in_a_row} steps in a row gave a loss or a gradient that is not finite; none of them was applied"
    if not in_a_row:
        what = "an update has made the parameters, the statistics or the optimizer's moments infinite; it is not saved"
    more = [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    shown = ", ".join([*(f"{row} {records.paths[row]}" for row in rows[:SHOWN]), *more])
    return f"{what} (step {step:,}{': ' if said else ''}{said})\n  rows of step {step - max(in_a_row, 1) + 1:,}: {shown}"


ADVICE = (
    "what to do: look at these examples and their labels (tools/verify_data.py lists the broken ones); or, in another workdir, "
    "a smaller lr in optim.rates, optim.clip=1.0, a longer optim.warmup, or model.dtype=float32"
)
