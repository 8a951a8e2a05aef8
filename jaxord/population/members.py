"""Runs that share all shapes, trained as one program: `vmap` over the stacked parameters of its
members.

Members may differ in the seed, the fold, learning rates, weight decays and weights of losses. Each
sees the batches that it would see alone, takes the same steps, is judged at the same ones by the
same rule, and leaves the same files, but that of the checkpoints only the best and the last are
there.

All is written at the end: of a population that was killed, every member without a DONE.json starts
  anew.

M members.
"""

import collections
import copy
import dataclasses
import math
import shutil
import time

import jax
import numpy as np
import tqdm

from jaxord import schedule
from jaxord.data.sampling import MASK
from jaxord.evaluate import report
from jaxord.population.stacked import MOST, Stacked
from jaxord.runtime import memory
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
from jaxord.step import finite
from jaxord.task import make_task, overview
from jaxord.workdir import checkpoints, files, run_config
from jaxord.workdir.layout import selected, write_facts, write_run
from jaxord.workdir.log import Log

# A stage of a run: its config, the fold, its folder, and the folder of the stage before or None.
Member = collections.namedtuple("Member", "config fold folder start")


def fit(members, stop):
    """Trains and evaluates those of the members that are not done, as `train.fit` does with one.

    Args:
      members: [Member].
      stop: signals.Stop that is watching. All is written at the end: after a signal that comes
        before, the members begin again.

    Raises:
      signals.Stopped: a signal came.
      ValueError: configs or data that do not share shapes; images; inputs of various lengths;
        several processes; too little memory; config.train.skips steps in a row without finite
        numbers, when all other members are done.
    """
    members = [member for member in members if not (member.folder / "DONE.json").exists()]
    members.sort(
        key=lambda member: (member.config.seed, member.fold)
    )  # those with the same batches stand together
    if not members:
        return
    if jax.process_count() > 1:
        raise ValueError(f"train.together takes one process, found {jax.process_count()}")
    began = time.monotonic()
    tasks = assembled(members)
    print("\n".join([*(f"{member.folder}" for member in members), *overview(tasks[0])]), flush=True)
    for member, task in zip(members, tasks, strict=True):
        targets = task.splits["train"].records.targets
        write_facts(
            member.folder,
            {**task.trained, **task.frozen},
            task.ranks,
            task.constants,
            targets,
            task.model.settings,
        )
    tracks = [Track(task) for task in tasks]
    with memory.explained(
        "a step of all members",
        f"{len(members)} members of data.batch={tasks[0].config.data.batch}",
        lambda: f"their inputs and parameters are about {size_of(tasks):,} bytes",
    ):
        group = Stacked(tasks, tracks)
        best, last = train(group, tracks)
        group.show(group.choose(np.array([bool(track.scores) for track in tracks]), best, last))
        best, last = jax.device_get((best, last))
    for place, (member, task, track) in enumerate(zip(members, tasks, tracks, strict=True)):
        states = [jax.tree.map(lambda x, at=place: x[at], s) for s in (best, last)]
        if not track.lost and not all(finite(state) for state in states):
            track.lost = schedule.lost(task, track.total, 0, {})
        if not track.lost:
            stop.unsaved = True
            chosen = save(member.folder, task, track, states)
            report(task, group.evaluate[place], group.variables(place), member.folder)
            write_run(
                member.folder,
                time.monotonic() - began,
                {name: len(s.records) for name, s in task.splits.items()},
            )
            words = (
                f"best {member.config.select_metric} on {track.judge}"
                if track.judge and track.total
                else "last step"
            )
            files.write_json(
                member.folder / "DONE.json",
                {"step": chosen, "steps": track.total, "selected": words},
            )
            stop.saved()
    lost = [
        f"{member.folder}: {track.lost}"
        for member, track in zip(members, tracks, strict=True)
        if track.lost
    ]
    if lost:
        title = f"{len(lost)} of {len(members)} members have failed, the others are done"
        raise ValueError("\n  ".join([title, *lost, ADVICE]))


def size_of(tasks):
    """Bytes of all inputs and, twice for the gradient, of all trained parameters."""
    records = [split.records for task in tasks for split in task.splits.values()]
    inputs = {id(array): array.nbytes for part in records for array in part.inputs.values()}
    return sum(inputs.values()) + 2 * sum(
        array.nbytes for task in tasks for array in task.trained.values()
    )


def assembled(members):
    """[Task] of the members; where two differ in numbers only, all but the config is one.

    Raises:
      ValueError: members that differ in more than a population may, or that have no inputs of one
        length.
    """
    for config in (member.config for member in members):
        lines = run_config.differences(alike(members[0].config), alike(config))
        if lines:
            words = "members of a population differ in the seed, the fold, rates and weights of losses only"
            raise ValueError("\n  ".join([words, *lines]))
    made, tasks = {}, []
    for config, fold, _, start in members:
        known = run_config.to_json(alike(config, config.seed)), fold, start
        if known not in made:
            task = make_task(config, fold, selected(start) if start else None)
            check_inputs(task)
            first = next(iter(made.values()), task)
            same = {path: first.frozen.get(path) for path in task.frozen}
            frozen = {
                path: same[path] if np.array_equal(same[path], x) else x
                for path, x in task.frozen.items()
            }
            made[known] = dataclasses.replace(
                task, frozen=frozen, model=first.model
            )  # one object, so that memory has one
        tasks.append(dataclasses.replace(made[known], config=config))
    return tasks


def alike(config, seed=0):
    """The config without what members may differ in."""
    c = copy.deepcopy(config).unlock()
    c.seed, c.fold = seed, ""
    for rates in c.optim.rates.values():
        rates.update({"lr": 0.0, "weight_decay": 0.0})
    for loss in c.losses:
        loss.weight = 1.0
    return c


def check_inputs(task):
    """Raises ValueError where a split has images, or inputs of various lengths."""
    for split in task.splits.values():
        names = sorted(split.records.inputs)
        if (
            split.tier != "inputs"
            or "frames" in names
            or any(name.endswith(MASK) for name in names)
        ):
            raise ValueError(
                f"{split.records.name} has {names if split.tier == 'inputs' else 'images'}; runs are trained together on "
                "arrays of one length: set model.features, for a frozen image tower, or train one by one"
            )


class Track:
    """What is due for a member, and what it has found.

    Attributes:
      total: its steps.
      judge, watched: as of `course.watched_splits`.
      logged: [(step, split, {name: number})].
      scores: {step: score}, lower is better, of the steps that were better than all before.
      last: score of the last step, None where it has none.
      lost: why it has failed, or "".
    """

    def __init__(self, task):
        self.task, self.config, (self.total, self.length) = task, task.config, lengths(task)
        self.evaluate_every, _, self.log_every = periods(task.config, self.length)
        self.judge, self.watched = watched_splits(task.config, task.splits)
        self.logged, self.scores, self.last, self.lost = [], {}, None, ""

    def due(self, step, every):
        """Whether what comes every so many steps, and at the last one, comes now."""
        return not self.lost and (step == self.total or (step < self.total and step % every == 0))

    def log(self, step, values):
        in_a_row, in_all = values.pop("skipped")
        self.logged.append((step, "train", {**values, "skipped": in_all}))
        if in_a_row >= self.config.train.skips:
            self.lost = lost(self.task, step, in_a_row, values)

    def better(self, step, evaluate, variables):
        """Evaluates; whether this is the best step so far."""
        for split in self.watched:
            scores = evaluate(variables, split).scores
            title = split if split == self.judge else f"{split} evaluated"
            self.logged.append((step, title, curves(self.config, scores)))
            if split == self.judge:
                score = headline(self.config, scores)[self.config.select_metric]
                self.last = float(score * direction(self.config))
        found = self.last is not None and self.last < min(self.scores.values(), default=math.inf)
        if found:
            self.scores[step] = self.last
        return found


def train(group, tracks):
    """Trains a group.

    Returns:
      (best, last): stacked State of each member's best and last step.
    """
    state, longest = group.begin(), max(track.total for track in tracks)
    best = last = group.choose(np.zeros(len(tracks), bool), state, state)
    marks = {
        mark
        for track in tracks
        for mark in (track.evaluate_every, track.log_every, max(track.total, 1))
    }
    with tqdm.tqdm(total=longest, unit="step", dynamic_ncols=True) as bar:
        for first, count in calls(0, longest, MOST, marks):
            step = first + count
            state, values = group.update(state, first, count)
            if any(track.due(step, track.log_every) for track in tracks):
                values = {name: value.tolist() for name, value in jax.device_get(values).items()}
                for place, track in enumerate(tracks):
                    if track.due(step, track.log_every):
                        track.log(step, {name: value[place] for name, value in values.items()})
            judged = [
                place
                for place, track in enumerate(tracks)
                if track.watched and track.due(step, track.evaluate_every)
            ]
            if judged:
                group.show(state)
                better = np.zeros(len(tracks), bool)
                for place in judged:
                    better[place] = tracks[place].better(
                        step, group.evaluate[place], group.variables(place)
                    )
                best = group.choose(better, state, best)
            last = group.choose(np.array([track.total == step for track in tracks]), state, last)
            bar.update(count)
    return best, last


def save(folder, task, track, states):
    """Writes the checkpoints and the log of a member; returns the step that is chosen."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a training that did not end
    best, last = (state.replace(frozen=task.frozen) for state in states)
    step = min(track.scores, key=track.scores.get, default=track.total)
    with checkpoints.Checkpoints(folder / "checkpoints") as saved:
        if step < track.total:
            saved.save(step, best, {"score": track.scores[step]})
        saved.save(track.total, last, {} if track.last is None else {"score": track.last})
    with Log(
        folder, restored=-1, total=track.total, batch=track.config.data.batch, bar=False
    ) as log:
        for entry in track.logged:
            log.scalars(*entry)
    return step
