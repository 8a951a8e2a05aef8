"""run(): the folds and stages of a config, one after the other. fit(): one of them, from data to
predictions."""

import functools
import itertools
import math
import pathlib
import time

import jax
import numpy as np
from absl import logging

from jaxord import optim
from jaxord.data.batches import train_batches, train_calls
from jaxord.data.sampling import MASK
from jaxord.evaluate import make_evaluate, placed_references, report
from jaxord.population import members as population
from jaxord.runtime import devices, hosts, memory, signals
from jaxord.schedule import (
    ADVICE,
    calls,
    curves,
    direction,
    headline,
    lengths,
    lost,
    periods,
    watched_splits,
)
from jaxord.step import State, finite, make_train_step, objective
from jaxord.task import make_task, overview
from jaxord.workdir import checkpoints, files, run_config
from jaxord.workdir.layout import (
    chosen_folds,
    claim,
    locked,
    selected,
    stages_of,
    write_facts,
    write_run,
)
from jaxord.workdir.log import Log
from jaxord.workdir.results import summarise


def run(config, workdir):
    """Trains every chosen fold that is not done, stage by stage, and prints each one's results and
    their mean.

    Args:
      config: a finished config.
      workdir: folder of the run; holds config.json, and for each fold and stage (or itself, without
        them) checkpoints, metrics.jsonl, tensorboard, predictions.csv, results.json and DONE.json.

    Raises:
      ValueError: an unknown fold, a workdir that holds another config, processes that differ in it,
        and all that `make_task` raises.
    """
    workdir = pathlib.Path(workdir)
    folds = chosen_folds(config)
    hosts.check_same(run_config.to_json(config).encode(), "configs")
    with signals.Stop(alone=jax.process_count() == 1) as stop:
        with locked(workdir):
            claim(workdir, config)
            paths = [
                [(None, None), *stages_of(config, workdir, fold)] for fold in folds
            ]  # the folds' stages, after nothing
            members = [
                [
                    population.Member(stage, fold, folder, start)
                    for (start, _), (folder, stage) in itertools.pairwise(path)
                ]
                for fold, path in zip(folds, paths, strict=True)
            ]
            if config.train.together:
                for group in zip(*members, strict=True):  # a stage of all folds
                    population.fit(group, stop)
            else:
                for member in itertools.chain(*members):
                    fit(*member, stop)
        summarise(config, [path[-1].folder for path in members])


def fit(config, fold, workdir, start, stop):
    """Trains and evaluates one stage of one fold; goes on from its latest checkpoint, and does
    nothing where it is done.

    Args:
      config: of the stage.
      fold: name of the fold, "" without folds.
      workdir: folder of the stage.
      start: folder of the stage before, whose selected parameters it takes over, or None.
      stop: signals.Stop that is watching.

    Raises:
      signals.Stopped: a signal came; the last step is saved.
      ValueError: config.train.skips steps in a row without finite numbers, noticed when their
        metrics are fetched, a period of the log later; too little memory; and all that `make_task`
        raises.
    """
    if hosts.first((workdir / "DONE.json").exists)():
        return
    began = time.monotonic()
    task = make_task(config, fold, selected(start) if start else None)
    print("\n".join([f"{workdir}", *overview(task)]), flush=True)
    targets = task.splits["train"].records.targets
    hosts.check_same(
        (task.trained, task.frozen, task.stats, targets), "initial parameters or training labels"
    )
    write_facts(
        workdir,
        {**task.trained, **task.frozen},
        task.ranks,
        task.constants,
        targets,
        task.model.settings,
    )
    batch = config.data.batch
    total, length = lengths(task)
    evaluate_every, save_every, log_every = periods(config, length)
    judge, watched = watched_splits(config, task.splits)

    most = steps_per_call(config, task.splits["train"])
    (state, train_step), frozen = (
        begin(task, optim.schedule(config.optim, total, length), most > 1),
        task.frozen,
    )
    evaluate, arrays = make_evaluate(task), {}

    def takes():
        return (
            memory.of_program(train_step, state, arrays, labels, task.constants)
            if arrays
            else "its batch has no room yet"
        )

    with (
        memory.explained("a training step", f"data.batch={batch}", takes),
        checkpoints.Checkpoints(workdir / "checkpoints") as saved,
    ):
        restored = saved.latest()
        if restored is not None:
            state, frozen = resumed(task, saved, restored, state)
            print(f"goes on from step {restored:,} of {total:,}", flush=True)
        else:
            state = state.replace(
                trained={**state.trained, **placed_references(task, state.variables)}
            )
        best = saved.meta(saved.best())["score"] if saved.best() is not None else math.inf
        split, labels, done = (
            task.splits["train"],
            task.labels.get("annotations", task.labels["train"]),
            restored or 0,
        )
        if most > 1:
            labels = {**labels, **split.stored()}
            ahead = calls(done, total, most, (evaluate_every, save_every, log_every))
            batches = train_calls(split, batch=batch, seed=config.seed, calls=ahead, most=most)
        else:
            batches = train_batches(split, batch=batch, seed=config.seed, start_step=done)
        # Overlapping programs on several CPU devices can wait for each other's collectives for
        # ever: one at a time there.
        crowded = jax.default_backend() == "cpu" and task.mesh.size > 1
        # What was logged last: fetched one period later, so that the loop never waits for the
        # device
        late = None
        with Log(
            workdir, restored=-1 if restored is None else restored, total=total, batch=batch
        ) as log:

            def keep(step, meta):
                saved.save(step, state.replace(frozen=frozen), meta)

            def judgement(step):
                """{"score": float} of the state, where a split judges; {"unjudged": True} where a
                signal came meanwhile."""
                unjudged = {"unjudged": True}
                try:
                    with stop.at_once(lambda: (keep(step, unjudged), saved.close())):
                        found = {
                            split: evaluate(state.variables, split).scores for split in watched
                        }
                except signals.Stopped:
                    return unjudged
                for split, scores in found.items():
                    log.scalars(
                        step,
                        split if split == judge else f"{split} evaluated",
                        curves(config, scores),
                    )
                if judge not in found:
                    return {}
                score = headline(config, found[judge])[config.select_metric] * direction(config)
                return {
                    "score": hosts.first(float)(score)
                }  # one decision, whatever the last bits elsewhere

            if restored is not None and saved.meta(restored).get("unjudged"):
                meta = judgement(restored)
                if "unjudged" in meta:
                    raise signals.Stopped(f"at step {restored:,}")
                keep(restored, meta)
                best = min(best, meta.get("score", math.inf))
            for first, count in calls(done, total, most, (evaluate_every, save_every, log_every)):
                step, arrays = first + count, next(batches)
                with jax.transfer_guard(
                    "disallow"
                ):  # nothing comes from the host or goes there behind the loop's back
                    state, values = train_step(state, arrays, labels, task.constants)
                stop.unsaved = True
                if crowded:
                    jax.block_until_ready(state.step)
                log.progress(step)
                last, stopped = (
                    step == total,
                    hosts.stopping(stop),
                )  # one look a step: a signal may come at any time
                if step % log_every == 0 or last:
                    write(log, late, task, saved)
                    late = step, values
                judged = bool(watched) and (step % evaluate_every == 0 or last)
                if judged or step % save_every == 0 or last or stopped:
                    write(
                        log, late, task, saved
                    )  # what a checkpoint's past has logged is on disk before the checkpoint is
                    late = None
                    check(task, saved, step, state)
                meta = judgement(step) if judged else {}
                stopped = stopped or "unjudged" in meta
                better = meta.get("score", math.inf) < best
                best = min(best, meta.get("score", math.inf))
                if better or step % save_every == 0 or last or stopped:
                    keep(step, meta)
                if stopped and (not last or "unjudged" in meta):
                    saved.close()
                    raise signals.Stopped(f"at step {step:,}")
        if not total:
            check(task, saved, 0, state)
            keep(0, {})
        skipped = jax.device_get(state.skipped)[1]
        if skipped:
            print(
                f"{skipped:,} of {total:,} steps changed nothing: their loss or gradient was not finite",
                flush=True,
            )
        chosen = saved.best() if saved.best() is not None else saved.latest()
        state, _ = resumed(task, saved, chosen, state)

    stop.saved()
    words = f"best {config.select_metric} on {judge}" if judge and total else "last step"
    report(task, evaluate, state.variables, workdir)
    write_run(
        workdir,
        time.monotonic() - began,
        {name: len(split.records) for name, split in task.splits.items()},
    )
    hosts.first(files.write_json)(
        workdir / "DONE.json", {"step": chosen, "steps": total, "selected": words}
    )


def begin(task, factor, several=False):
    """The state before the first step, on the devices, and the train step.

    Args:
      task: from `make_task`.
      factor: of the learning rates, a function of the step.
      several: as of `make_train_step`.

    Returns:
      (State, jitted step(state, batch, labels, constants) -> (state, metrics)).
    """
    config, replicated = task.config, devices.replicated(task.mesh)
    optimizer = optim.make(config.optim, task.groups, factor)
    layout = functools.partial(devices.by_size, mesh=task.mesh, least=config.model.fsdp)
    parameters = (task.trained, task.held(task.frozen), task.stats)
    trained, frozen, stats = devices.put(parameters, layout(parameters))
    opt_state = jax.jit(
        optimizer.init, out_shardings=layout(jax.eval_shape(optimizer.init, trained))
    )(trained)
    step, skipped = devices.put((np.int32(0), np.zeros(2, np.int32)), replicated)
    state = State(step, trained, frozen, stats, opt_state, skipped)
    train_step = make_train_step(
        task.model,
        objective(config),
        optimizer,
        task.prepare(train=True),
        (layout(state), replicated) if config.model.fsdp else replicated,
        skips=config.train.skips,
        statistics=config.train.statistics,
        several=several,
    )
    return state, train_step


def resumed(task, saved, step, like):
    """(State of a checkpoint on the devices, its frozen parameters on the host): those are stored
    as they came, in float32.

    Args:
      task: from `make_task`.
      saved: checkpoint.Checkpoints.
      step: that has one.
      like: State of `begin`.
    """
    state = saved.restore(step, like.replace(frozen=task.frozen))
    places = jax.tree.map(lambda array: array.sharding, like.frozen)
    return state.replace(frozen=devices.put(task.held(state.frozen), places)), state.frozen


def steps_per_call(config, split):
    """How many updates one call of the train step makes at most.

    Raises:
      ValueError: several, where the images are not on the device or the inputs vary in length.
    """
    asked, inputs = config.train.steps_per_call, split.records.inputs
    quick = split.tier == "resident" or "image_features" in inputs
    even = (
        (quick or split.tier == "inputs")
        and not config.data.bucket
        and not any(name.endswith(MASK) for name in inputs)
    )
    if asked > 1 and not even:
        raise ValueError(
            f"train.steps_per_call is {asked}, which needs the images on the device (data.tier='resident'; here "
            f"{split.tier!r}) or inputs of one length; 0 chooses by itself"
        )
    return asked or (20 if quick else 1)


def write(log, late, task, saved):
    """Fetches and logs the metrics of one step; what they say of skipped steps may end the run in
    `give_up`."""
    if late is not None:
        step, values = late
        values = jax.device_get(values)
        in_a_row, in_all = values.pop("skipped").tolist()
        values = {name: float(value) for name, value in values.items()}
        log.scalars(step, "train", {**values, "skipped": in_all})
        if in_a_row:
            logging.warning(
                "step %d: %d steps in a row, %d in all, were skipped; their loss or gradient was not finite",
                step,
                in_a_row,
                in_all,
            )
        if in_a_row >= task.config.train.skips:
            give_up(task, saved, step, in_a_row, values)


def check(task, saved, step, state):
    """Ends the run in `give_up` where a state is not to be saved: it waits for the device, as
    saving does."""
    in_a_row = int(jax.device_get(state.skipped)[0])
    if in_a_row >= task.config.train.skips:
        give_up(task, saved, step, in_a_row, {})
    if not finite(state):
        give_up(task, saved, step, 0, {})


def give_up(task, saved, step, in_a_row, values):
    """Raises the ValueError of a training whose numbers are not finite; see `course.lost`."""
    good, folders = saved.latest(), saved.folder.parents
    config = next(
        (folder / "config.json" for folder in folders if (folder / "config.json").exists()),
        "that of the command",
    )
    raise ValueError(
        "\n  ".join(
            [
                lost(task, step, in_a_row, values),
                f"config: {config}",
                "last good checkpoint: "
                + (f"{saved.folder / str(good)}" if good is not None else "none yet"),
                ADVICE,
            ]
        )
    )
