"""run(): the folds and stages of a config in turn. fit(): one stage, from data to predictions."""

import dataclasses
import functools
import itertools
import pathlib
import time

import jax
import numpy as np
from absl import logging

from jaxord import optim, population
from jaxord.data.batches import train_batches, train_calls
from jaxord.evaluate import call_size, evaluate_and_write, finish, make_evaluate, placed_references
from jaxord.runtime import devices, hosts, memory, signals
from jaxord.schedule import ADVICE, Schedule, Selection, divergence
from jaxord.step import State, finite, make_train_step, objective
from jaxord.task import make_task, overview
from jaxord.workdir import checkpoints, run_config
from jaxord.workdir.layout import chosen_folds, claim, locked, selected, stages_of
from jaxord.workdir.log import Log
from jaxord.workdir.results import summarise


def run(config, workdir):
    """Trains every chosen fold that is not done, stage by stage, and prints the results.

    The workdir holds config.json, and for each fold and stage (or itself, without them)
    checkpoints, metrics.jsonl, tensorboard, predictions.csv, results.json and DONE.json.

    Raises:
      ValueError: an unknown fold, a workdir of another config, processes with different configs,
        and all that `make_task` raises.
    """
    workdir = pathlib.Path(workdir)
    folds = chosen_folds(config)
    hosts.check_same(run_config.to_json(config).encode(), "configs")
    with signals.Stop(alone=jax.process_count() == 1) as stop:
        with locked(workdir):
            claim(workdir, config)
            stages = [_stages(config, workdir, fold) for fold in folds]
            if config.train.together:
                for same_stage in zip(*stages, strict=True):
                    population.fit(same_stage, stop)
            else:
                for stage in itertools.chain(*stages):
                    fit(*stage, stop)
        summarise(config, [of_fold[-1].folder for of_fold in stages])


def preview(config):
    """Returns the summary of the first fold's first stage, after tracing one of its steps.

    Reads the data and the weights as `run` does; trains nothing and makes no workdir.
    """
    fold = chosen_folds(config)[0]
    _, stage = stages_of(config, pathlib.Path(), fold)[0]
    return "\n".join(overview(make_task(stage, fold)))


def _stages(config, workdir, fold):
    """[population.Member] of the stages of a fold; each starts from the one before."""
    folders, configs = zip(*stages_of(config, workdir, fold), strict=True)
    stages = zip(configs, folders, [None, *folders[:-1]], strict=True)
    return [population.Member(stage, fold, folder, start) for stage, folder, start in stages]


def fit(config, fold, workdir, start, stop):
    """Trains and evaluates one stage of one fold, from its latest checkpoint, unless it is done.

    Args:
      config, fold, workdir: of the stage; fold "" without folds.
      start: folder of the stage before, whose selected parameters it takes over, or None.
      stop: signals.Stop that is watching.

    Raises:
      signals.Stopped: a signal came; the last step is saved.
      ValueError: config.train.skips steps in a row without finite numbers, noticed a period of the
        log later; too little memory; and all that `make_task` raises.
    """
    if hosts.first((workdir / "DONE.json").exists)():
        return
    began = time.monotonic()
    task = make_task(config, fold, selected(start) if start else None)
    print("\n".join([f"{workdir}", *overview(task)]), flush=True)
    # Processes that begin with different numbers would train different models unseen.
    initial = task.trained, task.frozen, task.stats, task.splits["train"].records.targets
    hosts.check_same(initial, "initial parameters or training labels")
    task.write_facts(workdir)
    schedule, selection, evaluate = Schedule.of(task), Selection.of(task), make_evaluate(task)
    chosen, state = optimize(task, schedule, selection, evaluate, workdir, stop)
    stop.saved()
    evaluate_and_write(task, evaluate, state.variables, workdir)
    finish(workdir, task, began, chosen, schedule.total, selection.description(schedule.total))


def optimize(task, schedule, selection, evaluate, workdir, stop):
    """Takes the steps that are left; returns (the selected step, its State)."""
    batch, call = task.config.data.batch, []
    rates = optim.rate_factor(task.config.optim, schedule.total, schedule.length)
    state, train_step = begin(task, rates, schedule.per_call > 1)
    size = functools.partial(call_size, train_step, call)
    with (
        memory.explained("a training step", f"data.batch={batch}", size),
        checkpoints.Checkpoints(workdir / "checkpoints") as saved,
    ):
        done, task, state = start_or_resume(task, schedule, selection, saved, state)
        save, fail = (functools.partial(f, task, saved) for f in (save_state, give_up))
        restored, skips = -1 if done is None else done, task.config.train.skips
        with Log(workdir, restored=restored, total=schedule.total, batch=batch) as log:
            judge = functools.partial(judge_state, selection, evaluate, log, stop, save)
            flush = functools.partial(log_metrics, log, skips, fail)
            if done is not None and saved.meta(done).get("unjudged"):
                meta = judge(done, state)
                if "unjudged" in meta:
                    raise signals.Stopped(f"at step {done:,}")
                selection.improves(done, meta.get("score"))
                save(done, state, meta)
            # Metrics are fetched a period late, so that the loop never waits for the device.
            late = None
            steps = updates(task, schedule, train_step, state, call, stop)
            for step, state, values in steps:
                log.progress(step)
                # One look a step: a signal may come at any time.
                stopped = hosts.stopping(stop)
                if schedule.due(step, schedule.log_every):
                    flush(late)
                    late = step, values
                judges = selection.watched and schedule.due(step, schedule.evaluate_every)
                saves = schedule.due(step, schedule.save_every)
                if judges or saves or stopped:
                    # The log of a checkpoint's past is on disk before the checkpoint is.
                    flush(late)
                    late = None
                    check_finite(state, step, skips, fail)
                meta = judge(step, state) if judges else {}
                stopped = stopped or "unjudged" in meta
                if selection.improves(step, meta.get("score")) or saves or stopped:
                    save(step, state, meta)
                if stopped and (step < schedule.total or "unjudged" in meta):
                    saved.close()
                    raise signals.Stopped(f"at step {step:,}")
        if not schedule.total:
            check_finite(state, 0, skips, fail)
            save(0, state, {})
        skipped = jax.device_get(state.skipped)[1]
        if skipped:
            share = f"{skipped:,} of {schedule.total:,} steps"
            print(f"{share} changed nothing: their loss or gradient was not finite", flush=True)
        chosen = saved.best() if saved.best() is not None else saved.latest()
        return chosen, resumed(task, saved, chosen, state)[0]


def begin(task, factor, several=False):
    """(State before the first step, on the devices, jitted step as of `make_train_step`).

    `factor` of the learning rates is a function of the step.
    """
    config, replicated = task.config, devices.replicated(task.mesh)
    optimizer = optim.make(config.optim, task.groups, factor)
    layout = functools.partial(devices.by_size, mesh=task.mesh, least=config.model.fsdp)
    parameters = task.trained, task.held(task.frozen), task.stats
    trained, frozen, stats = devices.put(parameters, layout(parameters))
    moments = layout(jax.eval_shape(optimizer.init, trained))
    opt_state = jax.jit(optimizer.init, out_shardings=moments)(trained)
    step, skipped = devices.put((np.int32(0), np.zeros(2, np.int32)), replicated)
    state = State(step, trained, frozen, stats, opt_state, skipped)
    shardings = (layout(state), replicated) if config.model.fsdp else replicated
    parts = task.model, objective(config), optimizer, task.prepare(train=True), shardings
    settings = {"skips": config.train.skips, "statistics": config.train.statistics}
    return state, make_train_step(*parts, **settings, several=several)


def start_or_resume(task, schedule, selection, saved, state):
    """(step of the latest checkpoint or None, the task with its frozen parameters, its State)."""
    done = saved.latest()
    if done is None:
        points = placed_references(task, state.variables)
        return None, task, state.replace(trained={**state.trained, **points})
    state, frozen = resumed(task, saved, done, state)
    print(f"goes on from step {done:,} of {schedule.total:,}", flush=True)
    best = saved.best()
    if best is not None:
        selection.improves(best, saved.meta(best)["score"])
    return done, dataclasses.replace(task, frozen=frozen), state


def resumed(task, saved, step, like):
    """(State of a checkpoint on the devices, its frozen parameters on the host, in float32).

    `saved` are the Checkpoints that have the step, `like` is the State of `begin`.
    """
    state = saved.restore(step, like.replace(frozen=task.frozen))
    places = jax.tree.map(lambda array: array.sharding, like.frozen)
    return state.replace(frozen=devices.put(task.held(state.frozen), places)), state.frozen


def updates(task, schedule, train_step, state, call, stop):
    """(step, State, metrics on the devices) after each call; `call` holds its arguments."""
    done = int(jax.device_get(state.step))
    split, labels = task.splits["train"], task.labels.get("annotations", task.labels["train"])
    order = {"batch": task.config.data.batch, "seed": task.config.seed}
    if schedule.per_call > 1:
        labels = {**labels, **split.stored()}
        order |= {"calls": schedule.calls(done), "most": schedule.per_call}
        batches = train_calls(split, **order)
    else:
        batches = train_batches(split, **order, start_step=done)
    # Overlapping programs on several CPU devices can block each other's collectives for ever.
    one_at_a_time = jax.default_backend() == "cpu" and task.mesh.size > 1
    for first, count in schedule.calls(done):
        call[:] = state, next(batches), labels, task.constants
        # Raises if anything comes from the host or goes there behind the loop's back.
        with jax.transfer_guard("disallow"):
            state, values = train_step(*call)
        stop.unsaved = True
        if one_at_a_time:
            jax.block_until_ready(state.step)
        yield first + count, state, values


def judge_state(selection, evaluate, log, stop, save, step, state):
    """Evaluates and logs a state; returns the meta of its checkpoint, unjudged after a signal."""
    unjudged = {"unjudged": True}
    try:
        with stop.at_once(lambda: save(step, state, unjudged).close()):
            evaluations = {s: evaluate(state.variables, s).scores for s in selection.watched}
    except signals.Stopped:
        return unjudged
    for title, values in selection.curves(evaluations):
        log.scalars(step, title, values)
    score = selection.score(evaluations)
    return {} if score is None else {"score": score}


def save_state(task, saved, step, state, meta):
    """Saves a state with the frozen parameters in float32; returns the Checkpoints."""
    saved.save(step, state.replace(frozen=task.frozen), meta)
    return saved


def log_metrics(log, skips, fail, late):
    """Fetches and logs `late`, (step, metrics on the devices) or None; may end the run."""
    if late is None:
        return
    step, values = late[0], jax.device_get(late[1])
    in_a_row, in_all = values.pop("skipped").tolist()
    values = {name: float(value) for name, value in values.items()}
    log.scalars(step, "train", {**values, "skipped": in_all})
    if in_a_row:
        message = "step %d: %d steps in a row, %d in all, were skipped: no finite loss or gradient"
        logging.warning(message, step, in_a_row, in_all)
    if in_a_row >= skips:
        fail(step, in_a_row, values)


def check_finite(state, step, skips, fail):
    """Ends the run if a state must not be saved; waits for the device, as saving does."""
    in_a_row = int(jax.device_get(state.skipped)[0])
    if in_a_row >= skips:
        fail(step, in_a_row, {})
    if not finite(state):
        fail(step, 0, {})


def give_up(task, saved, step, in_a_row, values):
    """Raises the ValueError of a training whose numbers are not finite; see `divergence`."""
    good = saved.latest()
    configs = (folder / "config.json" for folder in saved.folder.parents)
    config = next((file for file in configs if file.exists()), "that of the command")
    place = "none yet" if good is None else saved.folder / str(good)
    reason = divergence(task, step, in_a_row, values)
    lines = reason, f"config: {config}", f"last good checkpoint: {place}", ADVICE
    raise ValueError("\n  ".join(lines))
