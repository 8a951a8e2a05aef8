"""Runs the commands and the Python of every page: README.md, CONTRIBUTING.md, docs/, experiments/.

A fenced block of bash or Python runs in a folder with a few made images, small, in the order of the
page. A comment before a block says otherwise:

    <!-- ends: missing under -->       the command ends in one error message with these words
    <!-- with: --only=quick -->        these flags are added
    <!-- skip: several hosts -->       only its flags and files are checked, for this reason
    <!-- extra: torch -->              skipped where the module is not installed

Commands within a sentence are only checked. A command that several pages have runs once. The pages
take for granted that the runs RUNS exist.
"""

import contextlib
import csv
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").glob("*.md")),
]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>ends|with|skip|extra): (?P<words>.*?) -->\n+)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>.*?)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
INLINE = re.compile(r"(?<!`)`((?:python|pip|pytest|taskset|jaxord) [^`]+)`(?!`)")

# Flags that make a command take seconds.
FIELDS = {"train.duration": "2 steps", "data.batch": "8", "data.eval_batch": "64"}
RUN = [f"--config.{field}={value}" for field, value in FIELDS.items()]
SWEEP = [word for field, value in FIELDS.items() for word in ("--set", f"{field}={value}")]
STEP = shlex.split(
    "--rounds=1 --seconds=0.1 --synthetic=64 --set data.batch=4 --set model.variant=tiny "
    "--set data.image_size=32 --eager"
)
SMALL = {
    "tools/sweep.py": SWEEP,
    "tools/bench_knn.py": shlex.split("--queries=8 --gallery=64 --width=8 --rounds=1"),
    "tools/bench_losses.py": shlex.split(
        "--sizes=8 --largest=8 --width=8 --rounds=1 --seconds=0.1"
    ),
    "tools/bench_step.py": STEP,
    "tools/bench_data.py": shlex.split("--steps=1 --rounds=1 --set data.batch=4"),
    "tools/bench_epoch.py": shlex.split("--steps=1 --images=2 --rounds=1 --set data.batch=4"),
    "tools/bench_population.py": shlex.split("--rates=1 --decays=1 --seeds=2 --rounds=1"),
    "tools/torture.py": ["--kills=1", "--steps=8"],
    "tools/fuzz.py": ["--runs=200"],
}
# What Python on a page takes for granted, and how it is shortened.
GIVEN = """
import numpy as np
images = np.random.default_rng(0).integers(0, 255, (24, 40, 40, 3), np.uint8)
ages, others, their_ages = np.repeat([20.0, 30.0, 40.0], 8), images[:4], np.arange(4.0)
pil_image, array = "photos/a.jpg", images[0]
"""
SHORTER = {"steps=500": "steps=2", "range(3)": "range(1)", 'in ("ce", "ce_l1")': 'in ("ce_l1",)'}
SHORTER |= {'(("ce_l1", "ce"),)': "()", "quickstart-ce-seed=*": "quickstart-ce-seed=0"}
SHORTER |= {"experiments/hci.py --set": "experiments/hci.py --only=hci-coop-seed=0 --set"}
RUNS = {
    "runs/folder-numclip": (
        "--config=configs/folder.py:method=numclip,backbone=tiny",
        "--config.data.root=my/",
    ),
    "runs/quickstart-ce": ("--config=configs/quickstart.py",),
}
# Imported before the forks: tensorboardX and transformers import torch, which takes seconds.
PRELOADED = """
matplotlib.figure optuna scipy.io scipy.stats sklearn.datasets sklearn.manifold sklearn.mixture
submitit tensorboardX tensorflow_datasets transformers.models.clip.modeling_clip
"""
COUNT = itertools.count()
LIKE = {"runs/hci-numclip": "folder-numclip", "runs/lsvq-conord": "folder-numclip"}


def blocks(page):
    """[(mark, its words, language, title, text)] of the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [tuple(found.groupdict().values()) for found in BLOCK.finditer(text)]


def commands(text):
    """The words of each command of a block; `cd` stays with what follows it."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#\s.*", "", line).strip()
        for part in re.sub(r"(cd \S+) && ", r"\1 &+ ", line).split(" && "):
            if part:
                yield shlex.split(part.replace("&+", "&&"))


def test_every_block_and_inline_command_is_one_that_exists():
    faults = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        parts = [body for _, _, language, _, body in blocks(page) if language == "bash"]
        parts += [" ".join(code.split()) for code in INLINE.findall(BLOCK.sub("", text))]
        for part in parts:
            for words in commands(part):
                if fault := fault_of(words):
                    faults.append(f"{page.relative_to(ROOT)}: {shlex.join(words)}: {fault}")
        languages = {language for _, _, language, _, _ in blocks(page)}
        assert languages <= {"bash", "python", "text", "diff"}, page
    assert faults == []


def fault_of(words):
    """What is wrong with a command's program, extra, config, experiment or flags; "" if nothing."""
    while words and ("=" in words[0] or words[0] in ("taskset", "srun", "cd")):
        skip = {"taskset": 3, "cd": 3}.get(words[0], 1)
        words = words[skip:]
        while words and words[0].startswith("-"):
            words = words[1:]
    if not words or words[0] == "export":
        return ""
    if words[0] == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")
        missing = set(extras) - set(known["optional-dependencies"])
        return f"no extra {missing}" if missing else ""
    if words[0] in ("pytest", "mkdocs", "ruff", "mypy"):
        return "" if " ".join(words[:2]).rstrip() in (ROOT / ".ci/run").read_text() else "not in CI"
    if words[0] == "jaxord":
        return fault_of_flags(words[1:], ROOT / "jaxord" / "main.py")
    if words[:2] == ["python", "-m"]:
        return fault_of_flags(words[3:], ROOT / "jaxord" / "main.py")
    if words[0] != "python":
        return f"no program {words[0]}"
    file = ROOT / words[1]
    if words[1] == "predict.py" or words[1].startswith("tests/"):
        return ""
    if not file.is_file():
        return f"no file {words[1]}"
    experiment = next((word for word in words[2:] if word.startswith("experiments/")), "")
    if experiment and experiment != "experiments/mine.py" and not (ROOT / experiment).is_file():
        return f"no experiment {experiment}"
    return fault_of_flags(words[2:], file)


def fault_of_flags(words, file):
    """A flag that the program's source does not name, or a config that does not exist."""
    from jaxord import shipped

    source = file.read_text() + (ROOT / "jaxord" / "main.py").read_text()
    source += "".join(path.read_text() for path in (ROOT / "tools").rglob("*.py"))
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--config" and "my_set" not in value:
            try:
                shipped.find_config(value)
            except ValueError as error:
                return str(error)
        name = flag.removeprefix("--")
        known = f'"{name}"' in source or f'"--{name}"' in source or name.startswith("config.")
        if flag.startswith("--") and not known:
            return f"no flag {flag}"
    return ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder where the pages' commands run, their Runner, and the commands that have run."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("jaxord", "configs", "experiments", "tools"):
        (folder / name).mkdir()
        for file in (ROOT / name).iterdir():
            (folder / name / file.name).symlink_to(file)
    draw = np.random.default_rng(0)
    rows = []
    for index in range(30):
        rank = index % 3
        file = folder / f"my/{rank}/{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(40 + 60 * rank + draw.normal(0, 20, (40, 40, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
        split = {21: "val", 24: "test", 27: "test"}.get(index - rank, "train")
        rows.append((f"{rank}/{index}.png", 5 + 30 * rank, split))
    for name in ("photos/a.jpg", "photos/b.jpg", "photo.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    for name in ("my.csv", "my/my.csv", "list.csv"):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    seen = set()
    with Runner(folder) as runner:
        for name, config in RUNS.items():
            words = ["python", "-m", "jaxord.main", *config]
            code, log = runner([*words, f"--workdir={name}", *RUN])
            assert code == 0, log
            seen.add(tuple(words))
        for name, other in LIKE.items():
            (folder / name).symlink_to(other)
        yield folder, runner, seen


class Runner:
    """Runs commands one after the other, each in a fork of a process that has imported jax."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        environment |= {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}
        command = [sys.executable, str(pathlib.Path(__file__).resolve())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, **pipes)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def __call__(self, words):
        """Returns (exit code, what the command printed)."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, (self.folder / "output.log").read_text(errors="replace")


def serve():
    """Runs each command that comes, a JSON list of words a line, and answers its exit code."""
    from jaxord import estimator, evaluate, export, predict, report, train  # noqa: F401
    from jaxord.data.readers import demo
    from jaxord.models import variants

    for name in PRELOADED.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    shrink(variants, demo)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def shrink(variants, demo):
    """Makes the tiny tower tinier and the quickstart's photographs few."""
    import dataclasses

    tiny = variants.VARIANTS["tiny"]
    sides = {
        side: dataclasses.replace(getattr(tiny, side), layers=0) for side in ("vision", "text")
    }
    variants.VARIANTS["tiny"] = dataclasses.replace(tiny, **sides)
    demo.TILES = dict.fromkeys(demo.TILES, 2)


def run(words):
    """Does in this process, a fork, what a shell would do with the words; never returns."""
    log = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(target, stream)
    if words[0] == "cd":
        os.chdir(words[1])
        words = words[3:]
    while "=" in words[0]:
        name, _, os.environ[name] = words.pop(0).partition("=")
    code = 1
    try:
        sys.path[0] = os.getcwd()
        sys.argv = words[1:]
        if words[1] == "-m":
            sys.argv = words[2:]
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[1], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def smaller(words):
    """The command with flags that make it take seconds."""
    if words[1:3] == ["-m", "jaxord.main"]:
        if "--list" in words or any(word.startswith("--mode=") for word in words):
            return words
        apart = [f"--workdir=runs/{next(COUNT)}"] if "--workdir" not in " ".join(words) else []
        return [*words, *RUN, *apart]
    return [*words, *SMALL.get(words[1], ())]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(place, page):
    folder, runner, seen = place
    program = GIVEN
    for mark, words_of_mark, language, title, text in blocks(page):
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        if title:
            (folder / title).write_text(text)
        elif language == "python":
            program += text
        if language != "bash" or mark == "skip":
            continue
        if mark == "extra" and not importlib.util.find_spec(words_of_mark):
            continue
        for words in commands(text):
            if words[0] in ("pip", "pytest", "mkdocs", "ruff", "mypy") or tuple(words) in seen:
                continue
            seen.add(tuple(words))
            extra = shlex.split(words_of_mark) if mark == "with" else []
            code, log = runner([*smaller(words), *extra])
            if mark == "ends":
                messages = set(re.findall("error: .*", log))
                assert code == 1 and len(messages) == 1 and words_of_mark in log, (words, log)
                assert "Traceback" not in log, (words, log)
            else:
                assert code == 0, f"{shlex.join(words)}\n{log[-3000:]}"
    if program != GIVEN:
        (folder / "page.py").write_text(program)
        code, log = runner(["python", "page.py"])
        assert code == 0, log[-3000:]


if __name__ == "__main__":
    serve()
