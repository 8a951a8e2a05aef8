"""Runs every run of an experiment, several at a time, each a process of the one command; or
searches for settings.

    python tools/sweep.py experiments/photo_quality.py [--gpus=0,1] [--slots=2] [--set data.root=x]
    [--option vectors=a.txt] python tools/sweep.py experiments/photo_quality.py --only='*-ce-seed=*'
    --only='*-l1-seed=*' python tools/sweep.py experiments/learning_rates.py --search=tpe
    --trials=20 python tools/sweep.py experiments/photo_quality.py --launcher=slurm --slots=32
    --slurm gpus_per_node=1

tools/plan.py says what an experiment is, tools/search.py what is searched. The folder of a run is
runs/<experiment>/<data set>-<label>[-fold=<fold>]-seed=<seed>, its output <that>.log; its process
reads the config.json there. Evaluations on other configs come after all runs. --set and --option
belong to the place of the runs, not to their names: with another value give another --output. Paths
are relative to the repository.

--slots=N is N processes on each GPU of --gpus; without a GPU N processes on cores of their own;
with SLURM N jobs in its queue. The number of cores changes the last bits of a run on CPUs, so
figures are the same where --slots is.

A run is done when its DONE.json is there, and then is not started again. One that ends before goes
on twice more, from where it was, and is then reported: the exit status is 1. Ctrl-C, SIGTERM and
SIGUSR1 let the runs save and end the sweep by the exit code 75. After them, and after kill -9, when
the processes go on without the sweep, the same command goes on with everything, and gives three
attempts anew to what had failed. What happened is in runs/<experiment>/journal.jsonl
(tools/journal.py).
"""

import argparse
import collections
import json
import os
import pathlib
import shlex
import signal
import sys
import time

import jax

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ and tools/ lie in the repository and are not installed

from jaxord.runtime import signals
from jaxord.workdir import layout
from tools import launch
from tools.journal import Journal
from tools.plan import ROOT, among, arguments_of, evaluations_of, is_done, load, runs_of, settle
from tools.screen import Screen, clock, last_words, tail

COMMAND = (sys.executable, "-m", "jaxord.main")
ATTEMPTS = 3
LOOK, DRAW = 0.1, 1.0  # seconds between two looks at the processes, at their logs

# A run in progress: its process, where it is, since when this sweep has it.
Begun = collections.namedtuple("Begun", "run process place since")


def in_use(folder, log):
    """Whether a process holds the folder of a run that this sweep has not started, or its log."""
    try:
        with layout.locked(folder):
            return launch.held(log)
    except ValueError:
        return True


class Queue:
    """The runs of an experiment on their way: waiting, begun, and done, pruned or failed.

    Args:
      folder: of the experiment.
      launcher: launch.Machine or launch.Cluster.
      journal: of the experiment.
      command: what is started for a run, before --workdir and --config_json.
      search: Search, where there is one.
    """

    def __init__(self, folder, launcher, journal, command=COMMAND, search=None):
        self.folder, self.launcher, self.journal, self.command, self.search = (
            folder,
            launcher,
            journal,
            command,
            search,
        )
        self.waiting, self.begun, self.failed, self.configs, self.stopping = [], [], [], {}, set()
        self.attempts, self.spent, self.since = collections.Counter(), [], time.monotonic()
        self.done, self.pruned = search.closed() if search else (0, 0)
        self.total, self.screen = search.total if search else 0, Screen()

    def log(self, run):
        return self.folder / f"{run.name}.log"

    def bad(self, run):
        """Whether the search wants no more of a run."""
        return self.search is not None and self.search.is_bad(
            run, self.folder / run.name, self.configs[run]
        )

    def take(self, run):
        """Puts a run where it belongs."""
        self.configs[run] = settle(run, self.folder / run.name, self.journal)
        last = self.journal.last(run.name, "started", "found", "ended", "stopped")
        is_open = last.get("event") in ("started", "found")  # nobody has seen its end
        process = (
            self.launcher.find(last["process"], last["place"], self.log(run)) if is_open else None
        )
        if process:
            self.journal.write("found", run.name, place=last["place"], process=process.pid)
            self.begun.append(Begun(run, process, last["place"], time.monotonic()))
        elif is_done(run, self.folder / run.name, self.configs[run]):
            self.close(
                run,
                "done",
                new=self.journal.last(run.name, "done", "made", "started").get("event") != "done",
            )
        elif self.bad(run):
            self.close(run, "pruned")
        else:
            self.waiting.append(run)

    def close(self, run, event, new=True):
        """A run has nothing left to do: it is done, or pruned."""
        if new:
            self.journal.write(event, run.name)
        self.done += event == "done"
        self.pruned += event == "pruned"
        if self.search:
            self.search.tell(run, self.folder / run.name, self.configs[run], event == "pruned")

    def next(self):
        """The run to be started now, None where there is none."""
        while True:
            run = next(
                (run for run in self.waiting if not in_use(self.folder / run.name, self.log(run))),
                None,
            )
            if run is None:
                proposed = self.search.ask() if self.search else None
                if proposed is None:
                    return None
                self.take(proposed)
                continue
            self.waiting.remove(run)
            if not is_done(
                run, self.folder / run.name, self.configs[run]
            ):  # another process may have ended it
                return run
            self.close(run, "done")

    def dispatch(self):
        """Starts what is waiting where there is room."""
        free = collections.Counter(self.launcher.places) - collections.Counter(
            begun.place for begun in self.begun
        )
        while free and (run := self.next()):
            place = max(free, key=free.get)
            free -= collections.Counter([place])
            self.attempts[run] += 1
            # Seeds are constants of the compiled step, so the cache serves resumed runs above all:
            # 16 of their 39 s of CPU.
            cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.folder / ".cache"))
            workdir = self.folder / run.name
            command = [
                *self.command,
                f"--workdir={workdir}",
                f"--config_json={workdir / 'config.json'}",
            ]
            if run.of:
                command[-2:-1] = [
                    "--mode=evaluate",
                    f"--workdir={self.folder / run.of}",
                    f"--output={workdir}",
                ]
            process = self.launcher.start(
                command, self.log(run), place, {"JAX_COMPILATION_CACHE_DIR": cache}
            )
            self.journal.write(
                "started", run.name, attempt=self.attempts[run], place=place, process=process.pid
            )
            self.begun.append(Begun(run, process, place, time.monotonic()))

    def collect(self):
        """Takes back what has ended."""
        for begun in list(self.begun):
            code = begun.process.poll()
            if code is not None:
                self.begun.remove(begun)
                self.ended(begun, code)

    def ended(self, begun, code):
        """A process has ended: its run is done, pruned, tried again or given up."""
        run, seconds = begun.run, time.monotonic() - begun.since
        self.spent.append(seconds)
        self.journal.write("ended", run.name, code=code, seconds=round(seconds, 1))
        found = f"({code})" if code else "(0, without DONE.json)"
        if is_done(run, self.folder / run.name, self.configs[run]):
            self.close(run, "done")
            said = ""
        elif run in self.stopping:
            self.close(run, "pruned")
            said = " pruned,"
        elif code == signals.STOPPED:  # somebody else has stopped it: no attempt that failed
            self.attempts[run] -= 1
            self.waiting.append(run)
            said = " stopped, goes on,"
        elif self.attempts[run] < ATTEMPTS:
            self.journal.write("retried", run.name)
            self.waiting.append(run)
            said = f" FAILED {found}, is tried again,"
        else:
            self.journal.write("given up", run.name)
            self.failed.append(run)
            said = f" FAILED {found}, given up after {ATTEMPTS} attempts,"
        self.screen.say(
            f"{self.done}/{self.total} {run.name}:{said} {seconds:.0f} s; {self.times()}"
        )

    def prune(self):
        """Stops the trials that the search finds bad."""
        for begun in self.begun:
            if begun.run not in self.stopping and self.bad(begun.run):
                self.stopping.add(begun.run)
                begun.process.terminate()

    def times(self):
        left = self.total - self.done - self.pruned - len(self.failed)
        gone = f"{clock(time.monotonic() - self.since)} gone"
        if not self.spent:
            return gone
        return f"{gone}, {clock(sum(self.spent) / len(self.spent) * left / len(self.launcher.places))} to go"

    def lines(self):
        """The state of all runs: a line for all of them, and one for each in progress with the last
        words of its log."""
        counts = {"pruned": self.pruned, "given up": len(self.failed), "running": len(self.begun)}
        told = ", ".join(
            [
                f"{self.done} of {self.total} runs are done",
                *(f"{n} {name}" for name, n in counts.items() if n),
            ]
        )
        return [
            f"{told}; {self.times()}",
            *(f"  {b.run.name} ({b.place}): {last_words(self.log(b.run))}" for b in self.begun),
        ]

    def run(self, runs):
        """Runs what is not done; whatever ends that ends the processes by SIGTERM first, on which
        they save.

        Args:
          runs: [Run]; of a search, its open trials.

        Returns:
          [Run] that were given up.
        """
        self.total = self.total or len(runs)
        self.journal.write(
            "begun",
            command=shlex.join(sys.orig_argv),
            runs=self.total,
            places=len(self.launcher.places),
        )
        try:
            for run in runs:
                self.take(run)
            self.screen.say(f"{self.folder}: {self.done} of {self.total} runs are done")
            looked = 0.0
            while True:
                self.collect()
                self.dispatch()
                if not self.waiting and not self.begun:
                    return self.failed
                if time.monotonic() - looked > DRAW:
                    looked = time.monotonic()
                    if self.search:
                        self.prune()
                    self.screen.show(self.lines())
                time.sleep(LOOK)
        finally:
            self.screen.say("")
            launch.stop([begun.process for begun in self.begun])
            for begun in self.begun:
                self.journal.write("stopped", begun.run.name, code=begun.process.poll())


def value_of(text):
    """A number where the text is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def launcher_of(given, folder):
    """Where the runs are started."""
    unused = {"--slurm": given.slurm} if given.launcher == "processes" else {"--gpus": given.gpus}
    if any(unused.values()):
        raise ValueError(f"{', '.join(unused)} means nothing to --launcher={given.launcher}")
    if given.launcher == "processes":
        return launch.Machine(launch.chosen_gpus(given.gpus or "all"), given.slots)
    settings = {
        key: value_of(value) for key, _, value in (text.partition("=") for text in given.slurm)
    }
    return launch.Cluster(
        {"slurm": "slurm", "submitit": "local"}[given.launcher],
        given.slots,
        folder / "jobs",
        settings,
    )


def stop(number, frame):
    raise KeyboardInterrupt


def main(arguments=None, command=COMMAND):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments_of(parser)
    parser.add_argument(
        "--gpus", help="'all' that there are, which is the default, or some of them: 0,1"
    )
    parser.add_argument(
        "--slots", type=int, default=1, help="runs at a time, on each GPU or on CPUs"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of every run's config",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of every config",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="runs of such names: '*-ce-seed=[01]'",
    )
    parser.add_argument(
        "--search",
        choices=("tpe", "random", "grid"),
        help="trials of the experiment's SPACE, by Optuna",
    )
    parser.add_argument(
        "--trials", type=int, default=0, help="of a search, earlier ones too; grid: 0 is all of it"
    )
    parser.add_argument(
        "--launcher",
        choices=("processes", "slurm", "submitit"),
        default="processes",
        help="processes of this machine, jobs of SLURM, or such jobs on this machine, to try them",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what submitit tells SLURM of a job",
    )
    given = parser.parse_args(arguments)
    file, folder = given.experiment.resolve(), (given.output / given.experiment.stem).resolve()
    os.chdir(ROOT)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    jax.config.update(
        "jax_platforms", "cpu"
    )  # the sweep computes nothing: the GPUs are for the runs
    try:
        if given.slots < 1:
            raise ValueError(f"--slots is {given.slots}; a sweep takes one at least")
        if given.trials and not given.search:
            raise ValueError("--trials is of a search; give --search too")
        experiment = load(file)
        runs = among(runs_of(experiment, given.option, given.set), given.only)
        with layout.locked(folder):
            search = None
            if given.search:
                search = searching(getattr(experiment, "SPACE", {}), runs, given, folder)
                runs = search.begun()
            launcher, journal = launcher_of(given, folder), Journal(folder / "journal.jsonl")
            failed = Queue(folder, launcher, journal, command, search).run(runs)
            there = [run for run in runs if run not in failed]
            others = (
                evaluations_of(experiment, there, given.option, given.set) if not search else []
            )
            failed += Queue(folder, launcher, journal, command).run(others) if others else []
    except ValueError as error:
        return f"error: {error}"
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return signals.STOPPED
    for line in search.best() if search else ():
        print(line)
    for run in failed:
        print(
            f"left: {run.name}, {folder / run.name}.log ends\n{tail(folder / f'{run.name}.log')}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def searching(space, runs, given, folder):
    """The search of the flags."""
    try:
        from tools.search import Search  # Optuna is of the extra `sweep`
    except ImportError:
        raise ValueError("--search needs optuna: pip install -e '.[sweep]'") from None
    return Search(space, runs, given.search, given.trials, folder)


if __name__ == "__main__":
    sys.exit(main())
