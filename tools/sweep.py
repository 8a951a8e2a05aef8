"""Runs every run of an experiment, several at a time, or searches for settings.

    python tools/sweep.py experiments/photo_quality.py --gpus=0,1 --slots=2 --set data.root=x
    python tools/sweep.py experiments/photo_quality.py --only='*-ce-seed=*' --only='*-l1-seed=*'
    python tools/sweep.py experiments/learning_rates.py --search=tpe --trials=20
    python tools/sweep.py experiments/photo_quality.py --launcher=slurm --slots=32 \\
        --slurm gpus_per_node=1

An experiment is a file with sweep(add) (tools/sweeping/plan.py), a search takes its SPACE
(tools/sweeping/search.py). A run is a process of the one command, in the current folder; it reads
runs/<experiment>/<data set>-<label>[-fold=<fold>]-seed=<seed>/config.json and writes <that>.log.
Evaluations on other configs follow all runs. --set and --option are no part of a run's name: give
another --output with other values.

--slots=N is N processes on each GPU of --gpus; without a GPU N processes, each on its own cores;
with SLURM N jobs in the queue. On CPUs the number of cores changes the last bits of a result.

DONE.json marks a finished run, which never starts again. A run that ends without it resumes twice;
then the sweep reports it and exits with 1. Ctrl-C, SIGTERM and SIGUSR1 let the runs save and exit
with 75. The same command then resumes all, also after kill -9, which leaves the processes running,
and grants three new attempts. runs/<experiment>/journal.jsonl tells the events
(tools/sweeping/journal.py).
"""

import argparse
import json
import signal
import sys

import jax

from jaxord import shipped

shipped.make_importable()

from jaxord.runtime import signals
from jaxord.workdir import layout
from tools.sweeping import launch, plan
from tools.sweeping.journal import Journal
from tools.sweeping.queue import COMMAND, Queue
from tools.sweeping.screen import last_lines

SEARCHES = ("tpe", "random", "grid")
TAIL = 12  # lines of a failed run's log that are shown
LAUNCHERS = ("processes", "slurm", "submitit")


def _parser():
    # Keeps the lines of the docstring as they are.
    layout_kept = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout_kept)
    plan.arguments_of(parser)
    add = parser.add_argument

    def repeated(flag, metavar, text):
        add(flag, action="append", default=[], metavar=metavar, help=text)

    add("--gpus", help="'all', which is the default, or some of them: 0,1")
    add("--slots", type=int, default=1, help="runs at a time, on each GPU or on CPUs")
    repeated("--set", "FIELD=VALUE", "a field of every run's config")
    repeated("--option", "KEY=VALUE", "an option of every config")
    repeated("--only", "PATTERN", "only runs whose names match: '*-ce-seed=[01]'")
    add("--search", choices=SEARCHES, help="run trials of the experiment's SPACE, by Optuna")
    trials = "number of trials, earlier ones included; 0 is the whole grid"
    add("--trials", type=int, default=0, help=trials)
    where = "processes or, to try them, jobs on this machine; or jobs of SLURM"
    add("--launcher", choices=LAUNCHERS, default=LAUNCHERS[0], help=where)
    repeated("--slurm", "KEY=VALUE", "an option of SLURM's jobs, as submitit calls it")
    return parser


def _value(text):
    """A number if the text is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _launcher(args, folder):
    """The launcher of the flags; ValueError for a flag that it would ignore."""
    is_local = args.launcher == "processes"
    flag, value = ("--slurm", args.slurm) if is_local else ("--gpus", args.gpus)
    if value:
        raise ValueError(f"{flag} means nothing to --launcher={args.launcher}")
    if is_local:
        return launch.Machine(launch.chosen_gpus(args.gpus or "all"), args.slots)
    pairs = (text.partition("=")[::2] for text in args.slurm)
    settings = {key: _value(value) for key, value in pairs}
    kind = "slurm" if args.launcher == "slurm" else "local"
    return launch.Cluster(kind, args.slots, folder / "jobs", settings)


def _search(experiment, runs, args, folder):
    """The search of the flags."""
    try:
        from tools.sweeping.search import Search  # Optuna comes with the extra `sweep`
    except ImportError:
        raise ValueError(f"--search needs optuna: {shipped.install_hint('sweep')}") from None
    space = getattr(experiment, "SPACE", {})
    return Search(space, runs, args.search, args.trials, folder)


def run_experiment(args, folder, command):
    """Runs the experiment of the flags; returns ([Run] given up, lines about the search)."""
    if args.slots < 1:
        raise ValueError(f"--slots is {args.slots}; a sweep takes one at least")
    if args.trials and not args.search:
        raise ValueError("--trials is of a search; give --search too")
    experiment = plan.load(args.experiment)
    runs = plan.among(plan.runs_of(experiment, args.option, args.set), args.only)
    # Two sweeps of one folder would start the same runs.
    with layout.locked(folder):
        search = _search(experiment, runs, args, folder) if args.search else None
        launcher = _launcher(args, folder)
        journal = Journal(folder / "journal.jsonl")
        if search:
            failed = Queue(folder, launcher, journal, command, search).run(search.begun())
            return failed, search.best()
        failed = Queue(folder, launcher, journal, command).run(runs)
        trained = [run for run in runs if run not in failed]
        evaluations = plan.evaluations_of(experiment, trained, args.option, args.set)
        if evaluations:
            failed += Queue(folder, launcher, journal, command).run(evaluations)
        return failed, []


def main(arguments=None, command=COMMAND):
    args = _parser().parse_args(arguments)
    folder = (args.output / args.experiment.stem).resolve()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler)
    # The sweep itself computes nothing: the GPUs are for the runs.
    jax.config.update("jax_platforms", "cpu")
    try:
        failed, lines = run_experiment(args, folder, command)
    except ValueError as error:
        return f"error: {error}"
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return signals.STOPPED
    print("".join(f"{line}\n" for line in lines), end="")
    for run in failed:
        log = folder / f"{run.name}.log"
        end = "".join(f"\n  {line}" for line in last_lines(log, TAIL))
        print(f"left: {run.name}, {log} ends{end}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
