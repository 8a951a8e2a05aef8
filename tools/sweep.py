"""Runs every run of an experiment, several at a time, each a process of the one command.

    python tools/sweep.py experiments/photo_quality.py [--slots=2] [--set data.root=data/x] [--option vectors=glove.txt]

An experiment is a file with a function sweep(add), which calls add(label, config, fields) for each run: the label is the
row of the table (runs of one label differ in the seed), the config an argument of --config, fields {field: value} set over it.

A run's folder is runs/<experiment>/<data set>-<label>-seed=<seed>, its output <that>.log. What is done is not started again,
what was killed goes on where it was. --set and --option belong to the place of the runs, not to their names: with another
value give another --output. A run that fails is tried once more at the end, and then reported: the exit status is 1. Ctrl-C
lets the runs save and stops; after it, and after kill -9, the same command goes on. On CPUs each slot has cores of its own; the
number of cores changes the last bits of a run, so figures are the same where --slots is. Paths are relative to the repository.
"""

import argparse
import collections
import contextlib
import datetime
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from absl import flags
from ml_collections import config_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ and experiments/ lie beside tools/ and are not installed

from jaxord import checkpoint, settings, workdir  # noqa: E402

COMMAND = (sys.executable, "-m", "jaxord.main")
TRIES = 2
TAIL = 12  # lines of a log that are shown

Run = collections.namedtuple("Run", "name data_set label seed arguments")


def load(file):
    """The module of an experiment file."""
    spec = importlib.util.spec_from_file_location("experiment", file)
    if not spec or not pathlib.Path(file).is_file():
        raise ValueError(f"{file} is not there; an experiment is a Python file with a function sweep(add)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_of(experiment, options=(), fields=()):
    """The runs of an experiment, in its order.

    Args:
      experiment: its module.
      options: "key=value" texts added to every config's argument.
      fields: "field=value" texts set in every run, over the experiment's own.

    Returns:
      [Run]: name of the folder, data set, label, seed, and the command's arguments that make the config.

    Raises:
      ValueError: two runs of one name.
    """
    found, given = {}, dict(field.partition("=")[::2] for field in fields)

    def add(label, config, own):
        path, _, argument = config.partition(":")
        argument = ",".join(filter(None, [argument, *options]))
        data_set, own = pathlib.PurePath(path).stem, {**own, **given}
        seed = int(own.get("seed", 0))
        name = re.sub(r"[^\w.,=+-]+", "_", f"{data_set}-{label}-seed={seed}")
        if name in found:
            raise ValueError(f"two runs are called {name}; runs of one label differ in the seed, others need another label")
        arguments = [f"--config={path}:{argument}" if argument else f"--config={path}"]
        arguments += [f"--config.{field}={value}" for field, value in own.items()]
        found[name] = Run(name, data_set, label, seed, tuple(arguments))

    experiment.sweep(add)
    return list(found.values())


def config_of(run):
    """The finished config of a run, read as the command reads it."""
    values, arguments = flags.FlagValues(), ["", *run.arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
        return values["config"].value.lock()
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{run.name}: {str(error).rpartition('Error: ')[2]}") from None


def is_done(folder, config):
    """Whether a run has nothing left to do: its folder holds this very config, and every stage of every fold is done."""
    file = folder / "config.json"
    if not file.exists() or settings.differences(settings.from_json(file.read_text()), config):
        return False  # a command that is started says what differs
    stages = [stage for fold in workdir.chosen_folds(config) for stage, _ in workdir.stages_of(config, folder, fold)]
    return all((stage / "DONE.json").exists() for stage in stages)


def in_use(folder):
    """Whether a process holds the folder of a run: one of a sweep that was killed ends its run by itself."""
    try:
        with checkpoint.lock(folder):
            return False
    except ValueError:
        return True


def shares(slots):
    """[cores of each slot], apart from each other; {} where a slot is not bound: one slot, or a system without affinities."""
    if slots == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * slots
    cores = sorted(os.sched_getaffinity(0))
    if slots > len(cores):
        raise ValueError(f"--slots is {slots}, and there are {len(cores)} cores; a slot takes one at least")
    return [set(cores[slot::slots]) for slot in range(slots)]


@contextlib.contextmanager
def bound(cores):
    """This thread, and so what it starts meanwhile, runs on these cores only; {} changes nothing."""
    before = os.sched_getaffinity(0) if cores else cores
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, before)


def start(run, folder, cores, command):
    """The process of a run. It has a session of its own, so that Ctrl-C reaches the sweep alone."""
    # Seeds are constants of the compiled step, so the cache serves resumed runs above all: 16 of their 39 s of CPU time.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / ".cache"), **os.environ}
    with open(folder / f"{run.name}.log", "ab") as log, bound(cores):
        return subprocess.Popen(
            [*command, f"--workdir={folder / run.name}", *run.arguments], cwd=ROOT, env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def sweep(runs, folder, slots=1, command=COMMAND):
    """Runs what is not done, `slots` at a time, and prints a line for each run that ends.

    Args:
      runs: [Run].
      folder: of the experiment.
      slots: runs at a time.
      command: what is started for a run, before --workdir and its arguments.

    Returns:
      [Run] that failed twice. Whatever ends the sweep ends the running processes by SIGTERM first, on which they save.
    """
    waiting = [run for run in runs if not is_done(folder / run.name, config_of(run))]
    done, begun, spent, tries = len(runs) - len(waiting), time.monotonic(), [], collections.Counter()
    print(f"{folder}: {done} of {len(runs)} runs are done", flush=True)
    running, failed, cores = {}, [], shares(slots)
    try:
        while waiting or running:
            for slot in sorted(set(range(slots)) - set(running)):
                run = next((run for run in waiting if not in_use(folder / run.name)), None)
                if run:
                    waiting.remove(run)
                    running[slot] = run, start(run, folder, cores[slot], command), time.monotonic()
            time.sleep(0.2)
            for slot, (run, process, since) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                now = time.monotonic()
                spent.append(now - since)
                tries[run] += 1
                note = ""
                if not process.returncode:
                    done += 1
                elif tries[run] < TRIES:
                    waiting.append(run)
                    note = f" FAILED ({process.returncode}), is tried again"
                else:
                    failed.append(run)
                    note = f" FAILED ({process.returncode})"
                left = sum(spent) / len(spent) * (len(waiting) + len(running)) / slots
                times = f"{clock(now - begun)} gone, {clock(left)} to go"
                print(f"{done}/{len(runs)} {run.name}:{note} {spent[-1]:.0f} s; {times}", flush=True)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()
    return failed


def clock(seconds):
    """0:01:05"""
    return str(datetime.timedelta(seconds=round(seconds)))


def tail(file):
    """The last lines of a log, of a progress bar its last state."""
    lines = file.read_text(errors="replace").splitlines()
    return "\n".join("  " + line.rpartition("\r")[2] for line in lines[-TAIL:])


def arguments_of(parser):
    """Adds what tells which experiment it is and where its runs are."""
    parser.add_argument("experiment", type=pathlib.Path, help="file of the experiment")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "runs", help="folder of the experiments' folders")


def stop(number, frame):
    raise KeyboardInterrupt


def main(arguments=None, command=COMMAND):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments_of(parser)
    parser.add_argument("--slots", type=int, default=1, help="runs at a time; each gets its share of the cores")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of every run's config")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of every config")
    given = parser.parse_args(arguments)
    file, folder = given.experiment.resolve(), (given.output / given.experiment.stem).resolve()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, stop)
    try:
        runs = runs_of(load(file), given.option, given.set)
        with checkpoint.lock(folder):
            failed = sweep(runs, folder, given.slots, command)
    except ValueError as error:
        return f"error: {error}"
    except KeyboardInterrupt:
        return "stopped; the same command goes on from there"
    for run in failed:
        print(f"left: {run.name}, {folder / run.name}.log ends\n{tail(folder / f'{run.name}.log')}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
