"""A search for settings: Optuna proposes, the sweep's runs answer, the validation split decides.

An experiment says what to search by SPACE = {field of the config: values}. A list or tuple is a
choice; a mapping holds the arguments of Optuna's suggest_int (low and high are both int) or
suggest_float:

    SPACE = {"optim.rate": dict(low=1e-5, high=1e-2, log=True), "data.batch": [32, 64],
    "heads.count": dict(low=1, high=4)}

Each run of its sweep(add) has a study; a trial is that run with the proposed values set over its
fields. optuna.journal, in the folder of the experiment, holds the studies. The search minimises
select_metric (negated if more is better) at the best evaluation on the validation split, averaged
over folds. It stops a trial if the median of the finished ones was better at the same evaluation of
the first fold (Optuna's MedianPruner, after five trials). A trial that fails stays open: it counts,
and the same command resumes it.
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
from tools.sweeping.journal import mend
from tools.sweeping.plan import name_of

LONGEST_NAME = 200  # a file system takes 255 bytes, endings such as .log included


def candidates(field, values):
    """The values of a field in the grid."""
    if not isinstance(values, dict):
        return list(values)
    low, high = values["low"], values["high"]
    step = values.get("step", 1 if _are_whole(values) else None)
    if step is None or values.get("log"):
        remedy = "give a list, or low, high and step"
        raise ValueError(f"SPACE[{field!r}] is {values}, which has no grid; {remedy}")
    return [low + i * step for i in range(math.floor((high - low) / step + 1e-9) + 1)]


def _are_whole(values):
    return isinstance(values["low"], int) and isinstance(values["high"], int)


def suggest(trial, space):
    """{field: value} of a trial, which keeps the values it already has."""
    for field, values in space.items():
        if not isinstance(values, dict):
            trial.suggest_categorical(field, list(values))
        elif _are_whole(values):
            trial.suggest_int(field, **values)
        else:
            trial.suggest_float(field, **values)
    return {field: trial.params[field] for field in space}


def _sign(config):
    """1 if select_metric is to be minimised, else -1."""
    return 1 if config.select_metric in metrics.LOWER_IS_BETTER else -1


def curves(folder, config):
    """select_metric at each evaluation on the validation split, one list per fold, to minimise."""

    def curve(fold):
        file = layout.stages_of(config, folder, fold)[-1][0] / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        # A sweep looks every second, so most lines are skipped unparsed. The last may be cut.
        chosen = [line for line in lines if '"split": "val"' in line and line.endswith("\n")]
        values = [json.loads(line)[config.select_metric] for line in chosen]
        # null stands for an undefined metric.
        return [math.nan if value is None else _sign(config) * value for value in values]

    return [curve(fold) for fold in layout.chosen_folds(config)]


class Search:
    """The trials of an experiment: of its SPACE, for each [Run] of its sweep.

    `kind` is "tpe", "random" or "grid"; `trials` their number per run, those of earlier commands
    included (0: the whole grid). This process must hold `folder`. ValueError without a space, a
    grid of it, or a number of trials.
    """

    def __init__(self, space, bases, kind, trials, folder):
        if not space or not (trials or kind == "grid"):
            missing = "--trials=N" if space else "SPACE = {field: values} in the experiment"
            raise ValueError(f"--search={kind} needs {missing}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = folder / "optuna.journal"
        mend(file)
        # A process that was killed may have left its lock.
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
        self.space = space
        self.kind = kind
        self.limit = trials
        self.storage = JournalStorage(JournalFileBackend(str(file)))
        self.trials = {}
        self.studies = {base: self._study(base) for base in bases}
        self.total = sum(map(self._count, self.studies.values()))

    def _study(self, base):
        """The study of a run, created or resumed."""
        name = {"study_name": f"{self.kind} {base.name}", "load_if_exists": True}
        pruner = optuna.pruners.MedianPruner()
        study = optuna.create_study(storage=self.storage, pruner=pruner, **name)
        known = study.get_trials(deepcopy=False)
        is_tpe = self.kind == "tpe"
        sampler = optuna.samplers.TPESampler if is_tpe else optuna.samplers.RandomSampler
        # The seed moves on: a sampler that began again with it would repeat its proposals.
        study.sampler = sampler(seed=len(known))
        if self.kind == "grid":
            proposed = [trial.system_attrs.get("fixed_params", trial.params) for trial in known]
            grid = itertools.product(*(candidates(*item) for item in self.space.items()))
            for values in grid:
                point = dict(zip(self.space, values, strict=True))
                if point not in proposed:
                    study.enqueue_trial(point)
        return study

    def _count(self, study):
        """The number of trials that a study is to reach."""
        known = len(study.get_trials(deepcopy=False))
        return min(self.limit or known, known) if self.kind == "grid" else max(self.limit, known)

    def begun(self):
        """[Run] of the trials that an earlier command left open."""
        return [
            self._run(base, Trial(study, trial._trial_id))
            for base, study in self.studies.items()
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def ask(self):
        """The run of a new trial; None when all have been proposed."""
        for base, study in self.studies.items():
            trials = study.get_trials(deepcopy=False)
            if sum(t.state != TrialState.WAITING for t in trials) < self._count(study):
                return self._run(base, study.ask())
        return None

    def closed(self):
        """(finished, pruned): numbers of trials; an undefined metric counts as finished."""
        studies = self.studies.values()
        states = [trial.state for s in studies for trial in s.get_trials(deepcopy=False)]
        finished = states.count(TrialState.COMPLETE) + states.count(TrialState.FAIL)
        return finished, states.count(TrialState.PRUNED)

    def _run(self, base, trial):
        values = suggest(trial, self.space)

        def text(value):
            return f"{value:.4g}" if isinstance(value, float) else str(value)

        settings = ",".join(f"{field}={text(value)}" for field, value in values.items())
        name = name_of(base.name, f"{self.kind}={trial.number:03d}", settings)[:LONGEST_NAME]
        arguments = [f"--config.{field}={value}" for field, value in values.items()]
        run = base._replace(name=name, arguments=(*base.arguments, *arguments))
        self.trials[run] = trial
        return run

    def is_bad(self, run, folder, config):
        """Reports a run's new evaluations; whether Optuna would stop it."""
        if config.select != "val":
            rule = "a search selects on the validation split, 'val', alone"
            raise ValueError(f"{run.name}: select is {config.select!r}; {rule}")
        self._report(run, curves(folder, config))
        return self.trials[run].should_prune()

    def _report(self, run, folds):
        trial = self.trials[run]
        known = self.storage.get_trial(trial._trial_id).intermediate_values
        for number, value in enumerate(folds[0]):
            if number not in known:
                trial.report(value, number)

    def tell(self, run, folder, config, pruned):
        """Closes the trial of a run that is done or pruned; ValueError if it has no evaluation."""
        trial = self.trials[run]
        folds = curves(folder, config)
        self._report(run, folds)
        if pruned:
            trial.study.tell(trial, state=TrialState.PRUNED)
            return
        if not all(folds):
            rule = "a search selects on no other"
            raise ValueError(f"{run.name} was never evaluated on a validation split; {rule}")
        value = float(np.mean([np.nanmin([*curve, np.inf]) for curve in folds]))
        if not math.isfinite(value):
            trial.study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("shown", f"{config.select_metric} {_sign(config) * value:.4g}")
        trial.study.tell(trial, value)

    def best(self):
        """Lines that tell the best trial of each study."""
        lines = []
        for base, study in self.studies.items():
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if finished:
                best = study.best_trial
                score = f"{best.user_attrs['shown']} on the validation split"
                values = ", ".join(f"{field}={value}" for field, value in best.params.items())
                title = f"{base.name}: best of {len(finished)} finished trials"
                lines.append(f"{title}, {score}: {values}")
        return lines
