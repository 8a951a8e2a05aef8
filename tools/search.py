"""A search for settings: Optuna proposes, the runs of the sweep answer, and the validation split
alone decides.

An experiment says what is searched by SPACE = {field of the config: values}. A list or tuple is a
choice; a mapping is what Optuna's suggest_int (low and high are both int) or suggest_float takes:

    SPACE = {"optim.rate": dict(low=1e-5, high=1e-2, log=True), "data.batch": [32, 64],
    "heads.count": dict(low=1, high=4)}

Every run of its sweep(add) has a study of its own, in which each trial is a run with the proposed
values set over its fields. The studies are in optuna.journal, in the folder of the experiment. What
is minimised is select_metric, negative where more is better, at the best evaluation on the
validation split; over several folds its mean. A trial is bad, and is stopped, when the median of
the finished ones was better at the same evaluation of the first fold (Optuna's MedianPruner, after
five trials). A trial that fails stays open: it counts as one, and the same command goes on with it.
"""

import itertools
import json
import math

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import Trial, TrialState

from jaxord import metrics
from jaxord.workdir import layout
from tools.journal import mend
from tools.plan import name_of


def candidates(field, values):
    """[value] of a field for the grid."""
    if not isinstance(values, dict):
        return list(values)
    low, high, step = (
        values["low"],
        values["high"],
        values.get("step", 1 if is_whole(values) else None),
    )
    if step is None or values.get("log"):
        raise ValueError(
            f"SPACE[{field!r}] is {values}, which has no grid; give a list, or low, high and step"
        )
    return [low + i * step for i in range(math.floor((high - low) / step + 1e-9) + 1)]


def is_whole(values):
    return isinstance(values["low"], int) and isinstance(values["high"], int)


def suggest(trial, space):
    """{field: value} of a trial; what it has already stays."""
    for field, values in space.items():
        if not isinstance(values, dict):
            trial.suggest_categorical(field, list(values))
        else:
            (trial.suggest_int if is_whole(values) else trial.suggest_float)(field, **values)
    return {field: trial.params[field] for field in space}


def curves(folder, config):
    """[[select_metric at each evaluation on the validation split so far] of each fold], negative
    where more is better."""
    sign, found = 1 if config.select_metric in metrics.LOWER_IS_BETTER else -1, []
    for fold in layout.chosen_folds(config):
        file = layout.stages_of(config, folder, fold)[-1][0] / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        # The last one may be being written; most are of other splits, and a run is looked at every
        # second.
        whole = [
            json.loads(line) for line in lines if '"split": "val"' in line and line.endswith("\n")
        ]
        values = (line[config.select_metric] for line in whole)
        found.append(
            [math.nan if value is None else sign * value for value in values]
        )  # null: not defined
    return found


class Search:
    """The trials of an experiment.

    Args:
      space: SPACE of the experiment.
      bases: [Run] of its sweep.
      kind: "tpe", "random" or "grid".
      trials: of each base, with those of earlier commands; 0 is the whole grid.
      folder: of the experiment, which nobody else uses meanwhile.

    Raises:
      ValueError: no space, a space without a grid, or no number of trials.
    """

    def __init__(self, space, bases, kind, trials, folder):
        if not space or not (trials or kind == "grid"):
            missing = "--trials=N" if space else "SPACE = {field: values} in the experiment"
            raise ValueError(f"--search={kind} needs {missing}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = folder / "optuna.journal"
        mend(file)
        file.with_name(file.name + ".lock").unlink(missing_ok=True)  # of a process that was killed
        self.space, self.bases, self.kind, self.most = space, bases, kind, trials
        self.storage, self.studies, self.trials = (
            JournalStorage(JournalFileBackend(str(file))),
            {},
            {},
        )
        for base in bases:
            name, pruner = f"{kind} {base.name}", optuna.pruners.MedianPruner()
            study = optuna.create_study(
                storage=self.storage, study_name=name, load_if_exists=True, pruner=pruner
            )
            known = study.get_trials(deepcopy=False)
            # A sampler that begins again with the same seed would propose again what it has
            # proposed.
            kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
            study.sampler = kinds.get(kind, optuna.samplers.RandomSampler)(seed=len(known))
            self.studies[base] = study
            if kind == "grid":
                self._fill(study, known)
        self.total = sum(self._count(study) for study in self.studies.values())

    def _fill(self, study, known):
        """Puts what the grid has and the study has not in its queue."""
        have = [trial.system_attrs.get("fixed_params", trial.params) for trial in known]
        grid = itertools.product(*(candidates(*item) for item in self.space.items()))
        for point in (dict(zip(self.space, values, strict=True)) for values in grid):
            if point not in have:
                study.enqueue_trial(point)

    def _count(self, study):
        """How many trials a study is to have."""
        there = len(study.get_trials(deepcopy=False))
        return min(self.most or there, there) if self.kind == "grid" else max(self.most, there)

    def begun(self):
        """[Run] of the trials that an earlier command has left open."""
        return [
            self._run(base, Trial(study, found._trial_id))
            for base, study in self.studies.items()
            for found in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def ask(self):
        """The run of a new trial; None when all have been proposed."""
        for base, study in self.studies.items():
            asked = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
            if len(asked) < self._count(study):
                return self._run(base, study.ask())
        return None

    def closed(self):
        """(finished, pruned): how many trials are; also those whose metric is not a number have
        finished."""
        states = [
            trial.state
            for study in self.studies.values()
            for trial in study.get_trials(deepcopy=False)
        ]
        return states.count(TrialState.COMPLETE) + states.count(TrialState.FAIL), states.count(
            TrialState.PRUNED
        )

    def _run(self, base, trial):
        values = suggest(trial, self.space)
        texts = [
            f"{field}={value:.4g}" if isinstance(value, float) else f"{field}={value}"
            for field, value in values.items()
        ]
        name = name_of(base.name, f"{self.kind}={trial.number:03d}", ",".join(texts))[
            :200
        ]  # with .log a file's name
        arguments = [f"--config.{field}={value}" for field, value in values.items()]
        run = base._replace(name=name, arguments=(*base.arguments, *arguments))
        self.trials[run] = trial
        return run

    def is_bad(self, run, folder, config):
        """Reports what a run has evaluated since the last time; whether Optuna would stop it.

        Raises:
          ValueError: the run selects on another split.
        """
        if config.select != "val":
            raise ValueError(
                f"{run.name}: select is {config.select!r}; a search selects on the validation split, 'val', alone"
            )
        self._report(run, curves(folder, config))
        return self.trials[run].should_prune()

    def _report(self, run, found):
        trial = self.trials[run]
        known = self.storage.get_trial(trial._trial_id).intermediate_values
        for number, value in enumerate(found[0]):
            if number not in known:
                trial.report(value, number)

    def tell(self, run, folder, config, pruned):
        """Closes the trial of a run that is done, or was stopped.

        Raises:
          ValueError: a run that is done and was never evaluated on the validation split.
        """
        study, found = self.trials[run].study, curves(folder, config)
        self._report(run, found)
        if pruned:
            study.tell(self.trials[run], state=TrialState.PRUNED)
            return
        if not all(found):
            raise ValueError(
                f"{run.name} was never evaluated on a validation split; a search selects on no other"
            )
        value = float(np.mean([np.nanmin([*fold, np.inf]) for fold in found]))
        if math.isfinite(value):
            shown = value if config.select_metric in metrics.LOWER_IS_BETTER else -value
            self.trials[run].set_user_attr("shown", f"{config.select_metric} {shown:.4g}")
            study.tell(self.trials[run], value)
        else:
            study.tell(self.trials[run], state=TrialState.FAIL)

    def best(self):
        """Lines of the best trial of each study."""
        lines = []
        for base, study in self.studies.items():
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if done:
                best = study.best_trial
                values = ", ".join(f"{field}={value}" for field, value in best.params.items())
                found = f"best of {len(done)} finished trials, {best.user_attrs['shown']} on the validation split"
                lines.append(f"{base.name}: {found}: {values}")
        return lines
