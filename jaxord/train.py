"""run(): the folds of a config, one after the other. fit(): one fold, from data to predictions, in one function."""

import functools
import json
import math
import pathlib
import sys

import jax
import numpy as np
from clu import parameter_overview

from jaxord import checkpoint, metrics, optim, progress, settings, sharding
from jaxord.assemble import assemble, overview
from jaxord.data import pipeline
from jaxord.evaluate import make_evaluate, write_predictions
from jaxord.step import State, make_train_step, objective


def run(config, workdir):
    """Trains every chosen fold that is not done, and prints each one's results and their mean.

    Args:
      config: a finished config.
      workdir: folder of the run; holds config.json, and for each fold (or itself, without folds) checkpoints,
        metrics.jsonl, tensorboard, predictions.csv, results.json and DONE.json.

    Raises:
      ValueError: an unknown fold, a workdir that holds another config, and all that `assemble` raises.
    """
    workdir = pathlib.Path(workdir)
    folds = chosen_folds(config)
    with checkpoint.lock(workdir):
        claim(workdir, config)
        for fold in folds:
            fit(config, fold, folder_of(workdir, fold))
    summarise(config, workdir, folds)


def fit(config, fold, workdir):
    """Trains and evaluates one fold; goes on from its latest checkpoint, and does nothing where DONE.json says so."""
    if (workdir / "DONE.json").exists():
        return
    task = assemble(config, fold)
    print("\n".join([f"{workdir}", *overview(task)]), flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    shapes = parameter_overview.get_parameter_overview({**task.trained, **task.frozen}, include_stats=False)
    (workdir / "parameters.txt").write_text(shapes + "\n")
    batch = config.data.batch
    length = functools.partial(optim.steps, batch=batch, examples=len(task.splits["train"].records))
    total = length(config.train.duration)
    length = functools.partial(length, total=total)
    evaluate_every, save_every, log_every = (
        max(1, length(config.train[name])) for name in ("evaluate_every", "checkpoint_every", "log_every")
    )
    judge = judging_split(config, task.splits)

    replicated = sharding.replicated(task.mesh)
    factor = optim.schedule(config.optim, total, length)
    optimizer = optim.make(config.optim, task.groups, factor)
    trained, frozen = sharding.put((task.trained, task.frozen), replicated)
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(trained)
    state = State(sharding.put(np.int32(0), replicated), trained, frozen, opt_state)
    evaluate = make_evaluate(task)

    with checkpoint.Checkpoints(workdir / "checkpoints") as saved, checkpoint.SignalFlag() as stop:
        restored = saved.latest()
        start = restored or 0
        if restored is not None:
            state = saved.restore(restored, state)
            print(f"goes on from step {start:,} of {total:,}", flush=True)
        best = saved.meta(saved.best())["score"] if saved.best() is not None else math.inf
        train_step = make_train_step(task.model, objective(config), optimizer, task.prepare(train=True), replicated)
        batches = pipeline.train_batches(task.splits["train"], batch=batch, seed=config.seed, start_step=start)
        # Overlapping programs on several CPU devices can wait for each other's collectives for ever: one at a time there.
        crowded = jax.default_backend() == "cpu" and task.mesh.size > 1
        late = None  # what was logged last: fetched one period later, so that the loop never waits for the device
        with progress.Log(workdir, restored=-1 if restored is None else restored, total=total, batch=batch) as log:
            for step in range(start + 1, total + 1):
                state, values = train_step(state, next(batches), task.labels["train"], task.constants)
                if crowded:
                    jax.block_until_ready(state.step)
                log.progress(step)
                last, stopped = step == total, bool(stop)  # one look at the flag a step: it may come at any time
                if step % log_every == 0 or last:
                    write(log, late)
                    late = step, values
                judged = judge and (step % evaluate_every == 0 or last)
                if judged or step % save_every == 0 or last or stopped:
                    write(log, late)  # what a checkpoint's past has logged is on disk before the checkpoint is
                    late = None
                meta = {}
                if judged:
                    scores = headline(config, evaluate(state.trained | state.frozen, judge).scores)
                    log.scalars(step, judge, scores)
                    meta = {"score": scores[config.select_metric] * direction(config)}
                better = meta.get("score", math.inf) < best
                best = min(best, meta.get("score", math.inf))
                if better or step % save_every == 0 or last or stopped:
                    saved.save(step, state, meta)
                if stopped and not last:
                    saved.close()
                    sys.exit(f"stopped by {stop.name} at step {step:,}; the same command goes on from there")
        if not total:
            saved.save(0, state, {})
        chosen = saved.best() if saved.best() is not None else saved.latest()
        state = saved.restore(chosen, state)

    selected = f"best {config.select_metric} on {judge}" if judge and total else "last step"
    report(task, evaluate, {**state.trained, **state.frozen}, workdir)
    checkpoint.write_json(workdir / "DONE.json", {"step": chosen, "steps": total, "selected": selected})


def report(task, evaluate, parameters, workdir):
    """Evaluates validation and test split; writes results.json, and predictions.csv of the test split."""
    results = {}
    for name in ("val", "test"):
        if name in task.splits:
            evaluation = evaluate(parameters, name)
            results[name] = evaluation.scores
    write_predictions(workdir / "predictions.csv", task, "test", evaluation.predictions)
    checkpoint.write_json(workdir / "results.json", results)


def write(log, late):
    """Fetches and logs the metrics of one step; a loss that is not a number ends the run."""
    if late is not None:
        step, values = late
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        log.scalars(step, "train", values)
        if not math.isfinite(values["loss"]):
            raise ValueError(f"the loss is {values['loss']} at step {step:,} ({values}); a smaller learning rate may help")


def headline(config, scores):
    """Metrics of the first rule."""
    return scores[config.rules[0]["name"]]


def direction(config):
    """1 where a lower value of the selecting metric is better, else -1."""
    if config.select_metric not in config.metrics:
        raise ValueError(f"select_metric is {config.select_metric!r}, which is not among metrics {config.metrics}")
    return 1.0 if config.select_metric in metrics.LOWER_IS_BETTER else -1.0


def judging_split(config, splits):
    """The split that chooses among the checkpoints; "" takes the last step, as without a validation split."""
    if config.select not in ("val", "last", "test"):
        raise ValueError(f"select is {config.select!r}; it takes 'val', 'last' or 'test'")
    direction(config)
    return config.select if config.select in splits else ""


def chosen_folds(config):
    """Names of the folds to train; "" stands for a data set without folds."""
    folds = tuple(config.data.folds)
    if not folds and config.fold:
        raise ValueError(f"fold is {config.fold!r}, but {config.name} has no folds")
    if not folds or config.fold == "all":
        return folds or ("",)
    if config.fold not in folds:
        raise ValueError(f"fold is {config.fold!r}; {config.name} has {', '.join(folds)}, or 'all'")
    return (config.fold,)


def folder_of(workdir, fold):
    return workdir / f"fold_{fold}" if fold else workdir


def claim(workdir, config):
    """Writes config.json; a workdir that has trained something keeps the config it has."""
    file = workdir / "config.json"
    if file.exists() and any(workdir.glob("**/checkpoints")):
        lines = settings.differences(settings.from_json(file.read_text()), config)
        if lines:
            raise ValueError(
                f"{workdir} holds another config; give another --workdir, or remove it\n  " + "\n  ".join(lines)
            )
    else:
        checkpoint.write_json(file, settings.plain(config))


def summarise(config, workdir, folds):
    """Prints the table of the test split: one fold's figures, or mean and standard deviation over the folds."""
    results = [json.loads((folder_of(workdir, fold) / "results.json").read_text())["test"] for fold in folds]
    done = json.loads((folder_of(workdir, folds[0]) / "DONE.json").read_text())
    rows = []
    for row in results[0]:
        numbers = {metric: np.array([result[row][metric] for result in results]) for metric in config.metrics}
        rows.append({"test": row, **{metric: mean_sd(x) for metric, x in numbers.items()}})
    print()
    print(progress.table(rows, ["test", *config.metrics]))
    over = f"{len(folds)} folds, mean +- sd; " if len(folds) > 1 else ""
    print(f"{over}parameters: {done['selected']}; predictions: {folder_of(workdir, folds[0]) / 'predictions.csv'}")
    if config.select == "test":
        print("SELECTED ON THE TEST SPLIT: comparable only with figures that were chosen so too")
    if config.paper:
        print(f"published, {config.method}: {config.paper}")


def mean_sd(numbers):
    """The number, or of several their mean and standard deviation as text."""
    if len(numbers) == 1 or np.isnan(numbers).any():  # a correlation of constants is not defined in any fold
        return float(numbers.mean())
    return f"{numbers.mean():.3f} +- {numbers.std(ddof=1):.3f}"


def evaluate_run(workdir):
    """Evaluates the selected parameters of a finished run again, all its folds, and prints the table."""
    workdir = pathlib.Path(workdir)
    file = workdir / "config.json"
    if not file.exists():
        raise ValueError(f"{workdir} holds no run: it has no config.json")
    config = settings.from_json(file.read_text())
    folds = chosen_folds(config)
    for fold in folds:
        folder = folder_of(workdir, fold)
        if not (folder / "DONE.json").exists():
            raise ValueError(f"{folder} is not done; the command that began it goes on with it")
        task = assemble(config, fold)
        like = sharding.put({"trained": task.trained, "frozen": task.frozen}, sharding.replicated(task.mesh))
        with checkpoint.Checkpoints(folder / "checkpoints") as saved:
            step = json.loads((folder / "DONE.json").read_text())["step"]
            parameters = saved.restore(step, like, parts=("trained", "frozen"))
        report(task, make_evaluate(task), {**parameters["trained"], **parameters["frozen"]}, folder)
    summarise(config, workdir, folds)
