"""Runs that share all shapes, trained as one program: `vmap` over stacked parameters.

Members may differ in the seed, the fold, learning rates, weight decays and weights of losses.
Results are those of separate runs, but only the best and the last checkpoint are kept, and all
files are written at the end: after a kill, members without DONE.json start again.
"""

import collections
import copy
import dataclasses
import shutil
import time

import jax
import numpy as np
import tqdm

from jaxord.data.sampling import MASK
from jaxord.evaluate import evaluate_and_write, finish
from jaxord.population.stacked import MOST, Stacked
from jaxord.runtime import memory
from jaxord.schedule import ADVICE, Schedule, Selection, calls, divergence
from jaxord.step import finite
from jaxord.task import make_task, overview
from jaxord.workdir import checkpoints, run_config
from jaxord.workdir.layout import selected
from jaxord.workdir.log import Log

# A stage of a run: its config, the fold, its folder, and the folder of the stage before or None.
Member = collections.namedtuple("Member", "config fold folder start")


def fit(members, stop):
    """Trains and evaluates the [Member] that are not done, as `train.fit` does with one.

    Raises:
      signals.Stopped: a signal came; `stop` is the signals.Stop that is watching.
      ValueError: configs or data that do not share shapes; images; inputs of various lengths;
        several processes; too little memory; config.train.skips steps in a row without finite
        numbers, once all other members are done.
    """
    members = [member for member in members if not (member.folder / "DONE.json").exists()]
    if not members:
        return
    if jax.process_count() > 1:
        raise ValueError(f"train.together takes one process, found {jax.process_count()}")
    # Members with the same batches stand together.
    members.sort(key=lambda member: (member.config.seed, member.fold))
    began = time.monotonic()
    tracks = [Track(*pair) for pair in zip(members, make_tasks(members), strict=True)]
    tasks = [track.task for track in tracks]
    print("\n".join([*(f"{member.folder}" for member in members), *overview(tasks[0])]), flush=True)
    for track in tracks:
        track.task.write_facts(track.folder)
    size = f"{len(members)} members of data.batch={tasks[0].config.data.batch}"
    needed = f"their inputs and parameters are about {size_of(tasks):,} bytes"
    with memory.explained("a step of all members", size, lambda: needed):
        group = Stacked(tasks, [track.schedule for track in tracks])
        best, last = train(group, tracks)
        judged = np.array([track.selection.step is not None for track in tracks])
        group.show(group.choose(judged, best, last))
        best, last = jax.device_get((best, last))
    for i, track in enumerate(tracks):
        states = [jax.tree.map(lambda x, i=i: x[i], state) for state in (best, last)]
        total = track.schedule.total
        if not track.failure and not all(map(finite, states)):
            track.failure = divergence(track.task, total, 0, {})
        if not track.failure:
            stop.unsaved = True
            step = track.save(*states)
            evaluate_and_write(track.task, group.evaluate[i], group.variables(i), track.folder)
            finish(track.folder, track.task, began, step, total, track.selection.description(total))
            stop.saved()
    failures = [f"{track.folder}: {track.failure}" for track in tracks if track.failure]
    if failures:
        title = f"{len(failures)} of {len(members)} members have failed, the others are done"
        raise ValueError("\n  ".join([title, *failures, ADVICE]))


def size_of(tasks):
    """Bytes of all inputs and, twice for the gradient, of all trained parameters."""
    records = [split.records for task in tasks for split in task.splits.values()]
    inputs = {id(array): array.nbytes for part in records for array in part.inputs.values()}
    trained = sum(array.nbytes for task in tasks for array in task.trained.values())
    return sum(inputs.values()) + 2 * trained


def make_tasks(members):
    """[Task] of the members, sharing arrays that are equal; ValueError if they do not fit."""
    first = without_numbers(members[0].config)
    for member in members:
        lines = run_config.differences(first, without_numbers(member.config))
        if lines:
            allowed = "the seed, the fold, rates and weights of losses only"
            title = f"members of a population differ in {allowed}"
            raise ValueError("\n  ".join([title, *lines]))
    known, tasks = {}, []
    for config, fold, _, start in members:
        key = run_config.to_json(without_numbers(config, config.seed)), fold, start
        if key not in known:
            task = make_task(config, fold, selected(start) if start else None)
            check_inputs(task)
            # Equal arrays become one object, so that memory holds a frozen tower once.
            first, frozen = next(iter(known.values()), task), dict(task.frozen)
            for path, x in frozen.items():
                if np.array_equal(first.frozen.get(path), x):
                    frozen[path] = first.frozen[path]
            known[key] = dataclasses.replace(task, frozen=frozen, model=first.model)
        tasks.append(dataclasses.replace(known[key], config=config))
    return tasks


def without_numbers(config, seed=0):
    """The config without what members may differ in; with this seed."""
    config = copy.deepcopy(config).unlock()
    config.seed, config.fold = seed, ""
    for rates in config.optim.rates.values():
        rates.update({"lr": 0.0, "weight_decay": 0.0})
    for loss in config.losses:
        loss.weight = 1.0
    return config


def check_inputs(task):
    """Raises ValueError for a split with images, or with inputs of various lengths."""
    for split in task.splits.values():
        names = sorted(split.records.inputs)
        padded = "frames" in names or any(name.endswith(MASK) for name in names)
        if split.tier != "inputs" or padded:
            parts = names if split.tier == "inputs" else "images"
            raise ValueError(
                f"{split.records.name} has {parts}; runs are trained together on arrays of one "
                "length: set model.features, for a frozen image tower, or train one by one"
            )


class Track:
    """The course of a member: its schedule and selection, its log, its last score, its failure."""

    def __init__(self, member, task):
        self.task, self.folder = task, member.folder
        self.schedule, self.selection = Schedule.of(task), Selection.of(task)
        self.logged, self.last, self.failure = [], None, ""

    def due(self, step, every):
        """`Schedule.due` of a member that has not failed."""
        return not self.failure and self.schedule.due(step, every)

    def log(self, step, values):
        """Logs the metrics of a step; too many skipped steps make the member fail."""
        in_a_row, in_all = values.pop("skipped")
        self.logged.append((step, "train", {**values, "skipped": in_all}))
        if in_a_row >= self.task.config.train.skips:
            self.failure = divergence(self.task, step, in_a_row, values)

    def judge(self, step, evaluate, variables):
        """Evaluates; whether this is the best step so far."""
        evaluations = {split: evaluate(variables, split).scores for split in self.selection.watched}
        self.logged += [(step, *entry) for entry in self.selection.curves(evaluations)]
        self.last = self.selection.score(evaluations)
        return self.selection.improves(step, self.last)

    def save(self, best, last):
        """Writes the checkpoints and the log; returns the selected step."""
        total, selection, folder = self.schedule.total, self.selection, self.folder
        step = total if selection.step is None else selection.step
        best, last = (state.replace(frozen=self.task.frozen) for state in (best, last))
        # Checkpoints of a training that did not end.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        with checkpoints.Checkpoints(folder / "checkpoints") as saved:
            if step < total:
                saved.save(step, best, {"score": selection.best})
            saved.save(total, last, {} if self.last is None else {"score": self.last})
        batch = self.task.config.data.batch
        with Log(folder, restored=-1, total=total, batch=batch, bar=False) as log:
            for entry in self.logged:
                log.scalars(*entry)
        return step


def train(group, tracks):
    """Trains a group; returns the stacked States of each member's best and last step."""
    schedules, nobody = [track.schedule for track in tracks], np.zeros(len(tracks), bool)
    totals = np.array([schedule.total for schedule in schedules])
    state, longest = group.begin(), int(totals.max())
    best = last = group.choose(nobody, state, state)
    periods = {every for s in schedules for every in (s.evaluate_every, s.log_every, s.total or 1)}
    with tqdm.tqdm(total=longest, unit="step", dynamic_ncols=True) as bar:
        for first, count in calls(0, longest, MOST, periods):
            step = first + count
            state, values = group.update(state, first, count)
            logged = [i for i, t in enumerate(tracks) if t.due(step, t.schedule.log_every)]
            if logged:
                values = {name: value.tolist() for name, value in jax.device_get(values).items()}
            for i in logged:
                tracks[i].log(step, {name: value[i] for name, value in values.items()})
            judged = [i for i, t in enumerate(tracks) if t.due(step, t.schedule.evaluate_every)]
            judged = [i for i in judged if tracks[i].selection.watched]
            if judged:
                group.show(state)
                better = nobody.copy()
                for i in judged:
                    better[i] = tracks[i].judge(step, group.evaluate[i], group.variables(i))
                best = group.choose(better, state, best)
            # Members take steps until the longest training ends; those after their last are void.
            last = group.choose(totals == step, state, last)
            bar.update(count)
    return best, last
