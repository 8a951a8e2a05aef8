"""A training without its workdir, which can be timed."""

import itertools
import time

import jax

from jaxord import optim, train
from jaxord.data.batches import train_batches, train_calls
from jaxord.schedule import Schedule, steps_per_call
from jaxord.workdir import run_config


def config_of(path, fields=(), stage=""):
    """The finished config of --config and --set; if it has stages, of one, by default the first."""
    fields = [f"--config.{field}" for field in fields]
    config = run_config.from_arguments((f"--config={path}", *fields))
    stages = {entry.name: entry for entry in config.stages}
    if stage and stage not in stages:
        raise ValueError(f"{path} has no stage {stage!r}; its stages are {list(stages)}")
    if not stages:
        return config
    return run_config.staged(config, stages[stage or config.stages[0].name])


def begin(task, several=False):
    """A training before its first step; `several` updates a call as of `jaxord.train.begin`.

    Returns:
      (State, jitted step(state, batch, labels, constants) -> (state, metrics), the factor of the
      rates as a function of the step, the number of steps).
    """
    schedule = Schedule.of(task)
    factor = optim.rate_factor(task.config.optim, schedule.total, schedule.length)
    return (*train.begin(task, factor, several), factor, schedule.total)


def batches(task, split):
    """What training draws from a split.

    Returns:
      (iterator over the batches of the train step's calls, the first of one update; labels, with
      the images if the step gathers them; the number of updates of a later call).
    """
    config, labels = task.config, task.labels.get("annotations", task.labels["train"])
    per_call = steps_per_call(config, split)
    order = {"batch": config.data.batch, "seed": config.seed}
    if per_call == 1:
        return train_batches(split, **order), labels, 1
    calls = itertools.chain([(0, 1)], ((n, per_call) for n in itertools.count(1, per_call)))
    source = train_calls(split, **order, calls=calls, most=per_call)
    return source, {**labels, **split.stored()}, per_call


def run_calls(step, state, draw, number, *rest):
    """Calls the step as the training loop does: the next batch is drawn while the device computes.

    `step` is a compiled function (state, batch, *rest) -> (state, result), `draw` gives a batch.
    Returns (state, seconds in all, seconds in which the loop waited for `draw`).
    """
    # As in jaxord.train: overlapping programs on several CPU devices can block each other.
    several = len(jax.tree.leaves(state)[0].sharding.device_set) > 1
    one_at_a_time, result = jax.default_backend() == "cpu" and several, None
    waited = 0.0
    begun = time.perf_counter()
    for _ in range(number):
        asked = time.perf_counter()
        batch = draw()
        waited += time.perf_counter() - asked
        state, result = step(state, batch, *rest)
        if one_at_a_time:
            jax.block_until_ready(result)
    jax.block_until_ready((state, result))
    return state, time.perf_counter() - begun, waited
