"""The package as it is installed: a wheel in an environment of its own, used from another folder.

Its dependencies come from the environment that runs the tests, jaxord from the wheel.
"""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]


def built(kind, folder):
    """Builds a wheel or an sdist of a clean copy of the repository's files."""
    copy = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    (folder / kind).mkdir()
    # In a process of its own: setuptools' warnings are of a class that no other process knows.
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder / kind)!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=120)
    (file,) = (folder / kind).iterdir()
    return file


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs a program of the environment in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = built("wheel", folder)
    venv.create(folder / "environment", symlinks=True)
    programs = folder / "environment" / "bin"
    site = next((folder / "environment").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "-q", wheel], check=True, timeout=120)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    unwanted = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment |= {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}

    def run(program, *arguments):
        command = [programs / program, *map(str, arguments)]
        options = {"capture_output": True, "text": True, "timeout": 280}
        done = subprocess.run(command, cwd=elsewhere, env=environment, **options)
        return done.returncode, done.stdout + done.stderr

    return run, elsewhere, site


def test_the_wheel_lists_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"jaxord": "jaxord", "configs": "jaxord.configs", "tools": "jaxord.tools"}
    folders |= {"experiments": "jaxord.experiments"}
    expected = set()
    for folder, package in folders.items():
        for file in (ROOT / folder).rglob("__init__.py"):
            parts = file.parent.relative_to(ROOT / folder).parts
            expected.add(".".join((package, *parts)))
    assert set(settings["packages"]) == expected


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_installed_wheel_trains_predicts_and_has_its_tools(installed):
    run, folder, site = installed
    code, text = run("python", "-c", "import jaxord; print(jaxord.__file__)")
    assert code == 0 and str(site) in text
    assert run("jaxord", "--version") == (0, "jaxord 0.1.0\n")
    code, text = run("jaxord", "--list")
    assert code == 0 and "hci" in text and "preset=tables|vanilla" in text
    for rank in range(3):
        (folder / f"my/{rank}").mkdir(parents=True)
        for index in range(10):
            pixels = np.full((40, 40, 3), 40 + 60 * rank + index, np.uint8)
            Image.fromarray(pixels).save(folder / f"my/{rank}/{index}.png")
    data = ("--config=folder:backbone=tiny", "--config.data.root=my/", "--config.data.batch=8")
    assert run("jaxord", "verify", *data)[0] == 0
    short = "--config.train.duration=2 steps"
    code, text = run("jaxord", *data, short)
    assert code == 0 and "expectation" in text, text
    workdir = "--workdir=runs/folder-ce_l1"
    options = ("--mode=predict", workdir, "--images=my/0", "--output=out.csv")
    code, text = run("python", "-m", "jaxord.main", *options)
    assert code == 0 and len((folder / "out.csv").read_text().splitlines()) == 11, text
    code, text = run("python", "-m", "jaxord.main", "--config=configs/hci.py")
    assert code == 1 and "missing under" in text and "Traceback" not in text
    code, text = run("jaxord", "--config=digist")
    assert code == 1 and "Did you mean 'digits'?" in text
    code, text = run("jaxord", "convert", "--source=none.bin", "--output=weights")
    assert code == 1 and "none.bin" in text and "Traceback" not in text
    fit = (
        "import jaxord, numpy as np; x = np.zeros((6, 40, 40, 3), np.uint8); y = np.arange(6.0);"
        "print(jaxord.OrdinalRegressor(steps=3, settings={'data.batch': 4}).fit(x, y).predict(x))"
    )
    code, text = run("python", "-c", fit)
    assert code == 0, text
    only = ("--only=digits-ce-seed=0", f"--set={short.removeprefix('--config.')}", "--slots=1")
    (folder / "experiments").mkdir()
    (folder / "experiments/mine.py").write_text(
        "CLAIMS = ()\ndef sweep(add):\n    add('ce', 'configs/digits.py:method=ce', {'seed': 0})\n"
    )
    code, text = run("jaxord", "sweep", "experiments/mine.py", *only)
    assert code == 0, text
    code, text = run("jaxord", "table", "experiments/mine.py")
    assert code == 0 and "| ce" in text, text


@pytest.mark.long
def test_the_sdist_is_complete_and_its_tests_run(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    for name in ("configs/concepts/age.json", "tests/golden/base.json", "CHANGELOG.md", "tools"):
        assert (root / name).exists()
    tests = (
        "tests/test_binding.py",
        "tests/test_trees.py",
        "tests/targets",
        "tests/test_floors.py",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    options = {"capture_output": True, "text": True, "timeout": 280}
    done = subprocess.run(command, cwd=root, env=environment, **options)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_wheel_carries_what_it_needs(tmp_path):
    with zipfile.ZipFile(built("wheel", tmp_path)) as archive:
        names = set(archive.namelist())
    for name in ("configs/hci.py", "configs/methods/coop.py", "configs/concepts/age.json"):
        assert f"jaxord/{name}" in names
    assert {"jaxord/experiments/hci.py", "jaxord/tools/sweep.py", "jaxord/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "configs", "tools"))]
