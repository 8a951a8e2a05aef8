"""When a training evaluates, saves and logs, and which of its steps is selected."""

import dataclasses
import functools
import math

import numpy as np

from jaxord import metrics, optim
from jaxord.data.batches import train_rows
from jaxord.data.sampling import MASK
from jaxord.runtime import hosts

ROWS_SHOWN = 16  # rows of a batch that a message names
ADVICE = (
    "what to do: look at these examples and their labels (tools/verify_data.py lists the broken "
    "ones); or, in another workdir, a smaller lr in optim.rates, optim.clip=1.0, a longer "
    "optim.warmup, or model.dtype=float32"
)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The number of steps, and the periods, in steps, of what comes several times."""

    total: int
    evaluate_every: int
    save_every: int
    log_every: int
    per_call: int  # updates that a call of the train step makes at most
    length: object  # function of a duration as in the config -> steps

    @classmethod
    def of(cls, task):
        """The schedule of a Task; ValueError for settings that do not fit each other."""
        train, split = task.config.train, task.splits["train"]
        batch, examples = task.config.data.batch, len(split.records)
        length = functools.partial(optim.steps, batch=batch, examples=examples)
        total = round(length(train.duration) * train.share)
        length = functools.partial(length, total=total)
        periods = train.evaluate_every, train.checkpoint_every, train.log_every
        periods = [max(1, length(period)) for period in periods]
        return cls(total, *periods, steps_per_call(task.config, split), length)

    def due(self, step, every):
        """Whether this step is the last one or, before it, a multiple of the period `every`."""
        return step == self.total or (step < self.total and step % every == 0)

    def calls(self, done):
        """`calls` of this schedule after `done` steps."""
        periods = self.evaluate_every, self.save_every, self.log_every
        return calls(done, self.total, self.per_call, periods)


def calls(done, total, most, periods):
    """(steps before, steps) of each call: at most `most`, none passes a multiple of a period."""
    while done < total:
        count = min(most, total - done, *(period - done % period for period in periods))
        yield done, count
        done += count


def steps_per_call(config, split):
    """How many updates one call of the train step makes at most; ValueError if it cannot."""
    asked, inputs = config.train.steps_per_call, split.records.inputs
    on_device = split.tier == "resident" or "image_features" in inputs
    padded = config.data.bucket or any(name.endswith(MASK) for name in inputs)
    if asked > 1 and (padded or not (on_device or split.tier == "inputs")):
        raise ValueError(
            f"train.steps_per_call is {asked}, which needs the images on the device or inputs of "
            f"one length; set data.tier='resident' (here {split.tier!r}), or 0 to choose by itself"
        )
    return asked or (20 if on_device else 1)


@dataclasses.dataclass
class Selection:
    """The best step so far, by config.select_metric of the headline rule.

    Attributes:
      judge: split that selects; "" selects the last step.
      watched: splits that are evaluated in training, the judge first.
      best: lowest score so far. A score is the metric, negated if higher is better.
      step: step of `best`, None before the first.
    """

    config: object
    judge: str
    watched: list
    best: float = math.inf
    step: int | None = None

    @classmethod
    def of(cls, task):
        """The selection of a Task; ValueError for an unknown split or metric."""
        config, splits, metric = task.config, sorted(task.splits), task.config.select_metric
        if config.select not in ("val", "last", "test"):
            raise ValueError(f"select is {config.select!r}; it takes 'val', 'last' or 'test'")
        if metric not in config.metrics:
            known = f"which is not among metrics {config.metrics}"
            raise ValueError(f"select_metric is {metric!r}, {known}")
        judge = config.select if config.select in splits else ""
        watched = [judge] if judge else []
        watched += [split for split in config.train.curves if split != judge]
        if not set(watched) <= set(splits):
            raise ValueError(f"train.curves is {config.train.curves}; the splits are {splits}")
        return cls(config, judge, watched)

    def score(self, evaluations):
        """The score of {split: Evaluation.scores}, the same on all processes; None if unjudged."""
        if not self.judge:
            return None
        metric, rule = self.config.select_metric, self.config.rules[0]["name"]
        sign = 1.0 if metric in metrics.LOWER_IS_BETTER else -1.0
        return hosts.first(float)(sign * evaluations[self.judge][rule][metric])

    def improves(self, step, score):
        """Whether a step is the best so far, which is remembered; no score or nan never is."""
        if score is None or not score < self.best:
            return False
        self.best, self.step = score, step
        return True

    def curves(self, evaluations):
        """[(title, {name: number})] of the splits for the log; only other rules name themselves."""
        headline, *others = (rule["name"] for rule in self.config.rules)
        entries = []
        for split, scores in evaluations.items():
            values = {**scores[headline], **scores.get("model", {})}
            for rule in others:
                values |= {f"{rule} {metric}": value for metric, value in scores[rule].items()}
            entries.append((split if split == self.judge else f"{split} evaluated", values))
        return entries

    def description(self, total):
        """How the parameters were selected, for DONE.json."""
        judged = self.judge and total
        return f"best {self.config.select_metric} on {self.judge}" if judged else "last step"


def divergence(task, step, in_a_row, values):
    """Says why a training stopped with numbers that are not finite, and names the examples.

    Args:
      in_a_row: steps up to this one that were skipped; 0 if the state itself is not finite.
      values: metrics of the step, or {}.
    """
    config, split = task.config, task.splits["train"]
    # No parameter has changed since the first skipped step, so its batch is the one to look at.
    first = step - max(in_a_row, 1)
    rows, _ = train_rows(split, batch=config.data.batch, seed=config.seed)(first)
    rows = np.unique(rows)
    examples = [f"{row} {split.records.paths[row]}" for row in rows[:ROWS_SHOWN]]
    if len(rows) > ROWS_SHOWN:
        examples.append(f"and {len(rows) - ROWS_SHOWN} more")
    reason = (
        f"{in_a_row} steps in a row gave a loss or a gradient that is not finite, and were skipped"
    )
    if not in_a_row:
        parts = "the parameters, the statistics or the optimizer's moments"
        reason = f"an update has made {parts} infinite; it is not saved"
    bad = ", ".join(f"{name} {x:g}" for name, x in values.items() if not np.isfinite(x))
    place = f"step {step:,}: {bad}" if bad else f"step {step:,}"
    return f"{reason} ({place})\n  rows of step {first + 1:,}: {', '.join(examples)}"
