"""Every command and every piece of Python on the pages, README.md, docs/ and experiments/*.md,
executed, but small.

    python tools/run_docs.py [--only=export] [--parse] [--folder=kept] [page.md ...]

It happens in a copy of the repository, with a few made images. docs/rules.py says what becomes of
each command: it runs to its end, it ends in the one message that stands for what is not here (data,
weights, an answer), it serves until it is ended, it is one of those that check the repository, or
it is parsed. A command without a rule is an error, and each is printed with what became of it. What
makes them small stands there too, and in `shrink`.

A process that has imported everything forks for each command, which then is `runpy` of what stands
behind `python`, with the flags as they are typed; the runs of a sweep are such forks too.
tests/test_main.py and tests/tools/test_sweep.py start real ones.
"""

import argparse
import ast
import collections
import contextlib
import csv
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import resource
import runpy
import shlex
import shutil
import socket
import sys
import tempfile
import time
import tomllib
import unittest.mock

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(
    0, str(ROOT)
)  # configs/, docs/ and tools/ lie in the repository and are not installed

from docs.pages import all_pieces, commands, programs, shortened
from docs.rules import rule

FORK, READY = multiprocessing.get_context("fork"), []
PARSING = ("tools.sweep", "tools.table", "tools.measure", "configs.base")
RUNNING = (
    "jaxord.train",
    "jaxord.evaluate",
    "jaxord.predict",
    "jaxord.export.program",
    "jaxord.report",
    "jaxord.estimator",
    "tensorboardX",
    "transformers",
    "matplotlib.figure",
)

LOOK = 0.5  # seconds between two looks at what serves
with socket.create_server(("localhost", 0)) as server:
    PORT = server.getsockname()[1]  # of the hosts' coordinator

# More of what makes them small.
LAYERS, TILES, SWEPT = 0, 2, 1  # of the towers of `tiny`; of a scene and severity; runs of a sweep
QUICKLY = "--xla_cpu_max_isa=SSE4_2"  # of compiling
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know it, and end
    QUICKLY += " --xla_cpu_use_fusion_emitters=false"
# Runs that the pages take for granted, and what stands in for them.
SAME = {
    "runs/hci-numclip": "folder-numclip",
    "runs/lsvq-conord": "folder-numclip",
    "runs/video/lsvq-conord-seed=0": "../folder-numclip",
}


def shrink():
    """Makes the small tower smaller and the quickstart's photographs few, in this process."""
    import jax

    from jaxord.data.readers import demo
    from jaxord.models import variants

    tiny = variants.VARIANTS["tiny"]
    towers = {
        side: dataclasses.replace(getattr(tiny, side), layers=LAYERS) for side in ("vision", "text")
    }
    variants.VARIANTS["tiny"] = dataclasses.replace(tiny, **towers)
    demo.TILES = dict.fromkeys(demo.TILES, TILES)
    jax.config.update("jax_disable_most_optimizations", True)


def make(folder):
    """The copy of the repository, with what the pages take for granted: images and tables.

    Returns:
      [(path, label, split)] of the images in my/: split as configs/folder.py would, so that
      programs are compiled once.
    """
    infos = (info.name for info in ROOT.glob("*.egg-info"))
    for name in ("configs", "docs", "experiments", "jaxord", "tests", "tools", *infos):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "mkdocs.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    generator, rows = np.random.default_rng(0), []
    for rank, i in itertools.product(range(3), range(10)):
        file = folder / "my" / str(rank) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(40 + 60 * rank + generator.normal(0, 20, (40, 40, 3)), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(file)
        rows.append(
            (f"{rank}/{i}.png", 5 + 30 * rank, "val" if i == 7 else "test" if i > 7 else "train")
        )
    (folder / "photos").mkdir()
    for name in ("photos/a.jpg", "photos/b.jpg", "a.jpg", "photo.jpg"):
        Image.fromarray(pixels).save(folder / name)
    for name in ("my.csv", "list.csv"):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    for piece in all_pieces():
        if piece.title:
            (folder / piece.title).write_text(shortened(piece.text) + "\n")
    for name, run in SAME.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(run)
    return rows


def write_tfds(folder, images, rows):
    """Such a data set as download_and_prepare would write."""
    from jaxord.data import arrayrecord

    def features(tfds):
        return {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.Scalar(np.float32),
        }

    splits = {
        theirs: [
            {"image": (images / path).read_bytes(), "label": label}
            for path, label, split in rows
            if split == ours
        ]
        for ours, theirs in (("train", "train"), ("val", "validation"), ("test", "test"))
    }
    arrayrecord.write_store(folder, features, splits)
    (folder / "store" / "1.0.0").rename(folder / "1.0.0")


def fork(log, task, *arguments):
    """A process of its own that does a task, a function, as `python` would: its output goes to the
    log, an open file."""

    def begin():
        with open(os.devnull) as nothing:
            for place, file in enumerate((nothing, log, log)):
                os.dup2(file.fileno(), place)
        task(*arguments)

    sys.stdout.flush()
    process = FORK.Process(target=begin)
    process.start()
    return process


def run(words):
    """What a shell would do with these words, here."""
    if words[0] == "cd":
        os.chdir(words[1])
        words = words[3:]
    if words[0] == "taskset":
        words = words[3:]
    while "=" in words[0]:
        name, _, os.environ[name] = words.pop(0).partition("=")
    if "JAX_PROCESS_ID" in os.environ:  # the other one runs here too
        os.environ.update(JAX_COORDINATOR_ADDRESS=f"localhost:{PORT}", JAX_NUM_PROCESSES="2")
    if words[0] == "pip":
        known_extras(words)
    _, *sys.argv = words if words[0] == "python" else ["python", "-m", *words]
    if sys.argv[0] == "tools/sweep.py":
        from tools import launch, plan, sweep

        among = plan.among
        plan.among = lambda runs, patterns: among(runs, patterns)[:SWEPT]
        READY.extend(waiting_process() for _ in range(SWEPT * sweep.ATTEMPTS))
        launch.Machine.start = of_sweep
    if sys.argv[0] == "-m":
        _, module, *rest = sys.argv
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def waiting_process():
    """(process that does what it is sent, the pipe to it): a sweep has threads later, and then
    cannot fork any more."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=do_sent, args=(there,), daemon=True)
    process.start()
    return process, here


def do_sent(pipe):
    from tools import launch

    words, log = pipe.recv()
    with launch.open_log(log) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        run(words)


def of_sweep(machine, command, log, place, environment):
    """In place of launch.Machine.start: the process of a run."""
    process, pipe = READY.pop()
    pipe.send((["python", *command[1:]], log))
    process.poll = lambda: process.exitcode
    return process


class Parsed(Exception):
    """A tool's parser has accepted its arguments."""


def parse(words):
    """Whether a command means something: its flags, config and files, and what it installs.

    Raises:
      Exception, or exits: it does not.
    """
    while words[0] in ("cd", "srun", "taskset"):
        words = words[next(at for at, word in enumerate(words) if word in ("&&", "python")) :]
        words = words[words[0] == "&&" :]
    while "=" in words[0] or words[0] == "export":
        from jaxord.runtime import hosts

        if words[0] != "export" and words[0].partition("=")[0] not in (
            *hosts.VARIABLES,
            "PYTHONPATH",
        ):
            raise ValueError(f"nothing reads {words[0]}")
        words = words[1:] or ["nothing"]
    if words[:2] == ["pip", "install"]:
        known_extras(words)
    elif words[:2] == ["python", "-m"]:
        parse_main(words[2:])
    elif words[0] == "python" and words[1].startswith("tools/"):
        parse_tool(words[1], words[2:])
    elif words[0] == "python" and words[1] != "predict.py":
        file = pathlib.Path(words[1])
        ast.parse((file if file.is_file() else ROOT / file).read_text())
    elif words[0] != "python" and words not in (
        ["nothing"],
        ["pytest"],
        ["pytest", "-m", "long"],
        ["mkdocs", "serve"],
    ):
        raise ValueError("no such command")


def known_extras(words):
    """Raises ValueError where pyproject.toml lacks one that `pip install -e ".[...]"` names: pip
    only warns."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    unknown = set(re.fullmatch(r"\.\[(.*)\]", words[3])[1].split(",")) - set(extras)
    if unknown or words[2] != "-e":
        raise ValueError(f"no extra {unknown or words[2:]}")


def checked(words):
    """Raises ValueError where .ci/run does not have the command, quiet or with options of pytest's
    in front."""
    lines = [
        shlex.split(line, comments=True)
        for line in re.split(r"\n| && ", (ROOT / ".ci/run").read_text())
    ]
    if words not in [
        [word for word in line if word != "-q" and not word.startswith("PYTEST_ADDOPTS=")]
        for line in lines
    ]:
        raise ValueError(f".ci/run has no line {shlex.join(words)!r}")


def parse_main(words):
    """The flags, the config's fields and options, and what the mode needs."""
    from absl import flags

    from jaxord import main

    if words[0] != "jaxord.main":
        raise ValueError(f"no module {words[0]}")
    sys.argv = words
    main.parse(sys.argv)
    main.check(flags.FLAGS.mode)


def parse_tool(file, words):
    """The flags, the experiment with its runs, the config."""
    tool = importlib.import_module(f"tools.{pathlib.Path(file).stem}")
    if file == "tools/prepare_data.py":
        from absl import flags

        flags.FLAGS([file, *words])
        return
    if file == "tools/verify_data.py":
        parse_main(["jaxord.main", *words])
        return
    given = argparse.Namespace()
    whole = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments):
        vars(given).update(vars(whole(self, *arguments)))
        raise Parsed

    with (
        unittest.mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        contextlib.suppress(Parsed),
    ):
        tool.main(words)
    from tools import measure, plan

    if "experiment" in given:
        runs = plan.runs_of(
            plan.load(given.experiment), getattr(given, "option", []), getattr(given, "set", [])
        )
        for one in {one.data_set: one for one in runs}.values():
            plan.config_of(one)
    if "config" in given:
        for method in getattr(given, "methods", "").split(","):
            measure.config_of(given.config + f":method={method}" * bool(method), given.set)
    if "losses" in given:
        unknown = set(re.split("[,+]", given.losses)) - set(re.split("[,+]", ",".join(tool.LOSSES)))
        if unknown:
            raise ValueError(f"no losses {unknown}")


def task_of(command, one, number):
    """(what is typed, a function of nothing that does it) of a command."""
    if one.how in ("parsed", "checks"):
        return command, lambda: {"parsed": parse, "checks": checked}[one.how](shlex.split(command))
    text = f"{command} {one.more.format(number=number)}".strip()
    return text, lambda: run(shlex.split(text))


def wrong_with(one, code, said):
    """What is wrong with the end of a command, "" where it ends as it has to."""
    if one.how == "serves":
        return "" if one.words in said else f"exit status {code}, before it said {one.words!r}"
    if one.how != "wants":
        return "" if code == 0 else f"exit status {code}"
    messages = set(re.findall("error: .*", said))  # a sweep tries a run again
    if code != 1 or len(messages) != 1 or one.words not in said or "Traceback" in said:
        return f"exit status {code}, expected 1 and one error message with {one.words!r}"
    return ""


def execute(jobs, folder, slots):
    """Starts commands, so many at a time, and prints what became of each.

    Args:
      jobs: [(number, command, where it stands, its rule)].
      folder: for the output of each.
      slots: commands at a time.

    Returns:
      [text] of what went wrong.
    """
    waiting, begun, wrong = list(jobs), {}, []
    while waiting or begun:
        while waiting and len(begun) < slots:
            number, command, where, one = waiting.pop(0)
            text, task = task_of(command, one, number)
            with open(folder / f"{number}.log", "wb") as log:
                process = fork(log, task)
            begun[process.sentinel] = process, number, text, where, one, time.monotonic()
        for process, number, _, _, one, _ in begun.values():
            if one.how == "serves" and one.words in (folder / f"{number}.log").read_text(
                errors="replace"
            ):
                process.terminate()
        for sentinel in multiprocessing.connection.wait(begun, LOOK):
            process, number, text, where, one, since = begun.pop(sentinel)
            before = cpu_seconds(resource.RUSAGE_CHILDREN)
            process.join()
            spent = cpu_seconds(resource.RUSAGE_CHILDREN) - before
            said = (folder / f"{number}.log").read_text(errors="replace")
            fault = wrong_with(one, process.exitcode, said)
            reason = f" ({one.words})" if one.words else ""
            state = "WRONG" if fault else one.how
            print(
                f"{state:6} {time.monotonic() - since:5.1f} s, CPU {spent:4.1f}  {text}{reason}",
                flush=True,
            )
            if fault:
                wrong.append(f"{where}: {text}\n{fault}; it said\n{said[-2000:]}")
    return wrong


def cpu_seconds(who):
    """Of this process, or of the ended ones that it has started."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pages", nargs="*", type=pathlib.Path, help="Markdown files, in place of all"
    )
    parser.add_argument("--parse", action="store_true", help="run nothing, parse all")
    parser.add_argument(
        "--only", default="", help="commands that hold this text, and the runs they need"
    )
    parser.add_argument("--slots", type=int, default=2, help="commands at a time (%(default)s)")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="a new folder for the copy, which is then kept"
    )
    given = parser.parse_args(arguments)
    begun, jobs, wrong, pages = time.monotonic(), [], [], [page.resolve() for page in given.pages]
    for command, where in commands(pages).items():
        try:
            jobs.append((command, where, rule(command)))
        except ValueError as error:
            wrong.append(f"{where}: {command}\n{error}")
    with tempfile.TemporaryDirectory(prefix="jaxord-docs-") as temporary:
        folder = (given.folder or pathlib.Path(temporary) / "jaxord").resolve()
        folder.mkdir(parents=True)
        rows = make(folder)
        sys.path[0] = str(folder)
        os.chdir(folder)
        for module in PARSING if given.parse else PARSING + RUNNING:
            importlib.import_module(module)
        shrink()
        if not given.parse:  # in a fork: the writer's threads would not be in later ones
            fork(
                sys.stdout,
                write_tfds,
                folder / "tensorflow_datasets" / "my_set",
                folder / "my",
                rows,
            ).join()
        for page, text in programs(pages).items():
            file = pathlib.Path(page).name + ".py"
            (folder / file).write_text(text)
            jobs.append((f"python {file}", page, rule(f"python {file}")))
        if given.parse:
            jobs = [
                (command, where, one._replace(how="parsed", words=""))
                for command, where, one in jobs
            ]
        numbered = [
            (number, *job)
            for number, job in enumerate(jobs)
            if given.only in job[0] or job[2].order == 1
        ]
        for order in (1, 2, 3, 4):
            wrong += execute(
                [job for job in numbered if job[3].order == order], folder, given.slots
            )
    seconds = cpu_seconds(resource.RUSAGE_SELF) + cpu_seconds(resource.RUSAGE_CHILDREN)
    counts = collections.Counter(job[3].how for job in numbered)
    print(
        f"{', '.join(f'{n} {how}' for how, n in counts.items())}, {len(wrong)} wrong; "
        f"{time.monotonic() - begun:.0f} s, {seconds:.0f} s of CPU time"
    )
    return "\n\n".join(wrong) or 0


if __name__ == "__main__":
    os.environ.update(
        {
            "JAX_PLATFORMS": "cpu",
            "HF_HUB_OFFLINE": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    )
    os.environ["XLA_FLAGS"] = QUICKLY
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jaxord-test-cache")
    )
    sys.exit(main())
