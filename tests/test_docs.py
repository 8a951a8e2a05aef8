"""The pages of methods, fields and data sets say what the configs and readers say.

PYTHONPATH=. python tests/test_docs.py writes the part of docs/data_sets.md that comes from them.
README.md's patch applies and trains, and the API pages lose no docstring's text.
tests/test_pages.py runs the commands.
"""

import importlib
import inspect
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest

from configs.pairs import PAIRS
from jaxord import catalogue
from jaxord.data import readers

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "data_sets.md"
MARK = "## What each set wants\n"
MADE = ("quickstart", "digits", "folder")  # from packages, or the reader's own


def test_methods_and_fields_are_those_of_the_configs():
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    table = hooks["table"]()
    names = sorted({method for of_set in PAIRS.values() for method in of_set})
    assert re.findall(r"^\| \[`(\w+)`\]", table, re.MULTILINE) == names
    for method in catalogue.methods():
        apply = inspect.signature(importlib.import_module(f"configs.methods.{method.name}").apply)
        defaults = {key: p.default for key, p in apply.parameters.items() if key != "config"}
        assert {name: values[0] for name, values in method.options.items()} == defaults
        assert method.summary
        assert re.search(r"\b(19|20)\d\d$", method.paper) or method.header.startswith("No paper")
        assert f"| {method.paper} |" in table and method.header in hooks["headers"]()
    assert "d.batch = 32" in hooks["fields"]()


def test_the_list_names_every_data_set_method_and_choice():
    text = catalogue.listing()
    for name in PAIRS:
        assert f"\n  {name} " in text
    assert "preset=tables|vanilla" in text and "classifier=soft|ce|la" in text


def of_data_sets(folder):
    """What the files of the data sets and their readers say, in Markdown, where an empty folder is
    their root."""
    parts = []
    for name in PAIRS:
        if name not in MADE:
            module = importlib.import_module(f"configs.{name}")
            config = module.get_config().unlock()
            config.data.root = str(folder / name)
            with pytest.raises(ValueError) as error:
                readers.load(config.data, config.data.folds[0] if config.data.folds else "", 0)
            message = str(error.value).replace(os.path.abspath(config.data.root), f"data/{name}")
            parts.append(f"### `{name}`\n\n{module.__doc__.strip()}\n\n```text\n{message}\n```\n")
    return "\n".join(parts)


def test_the_page_of_the_data_sets_says_what_their_readers_say(tmp_path):
    assert (
        PAGE.read_text(encoding="utf-8").partition(MARK)[2].strip()
        == of_data_sets(tmp_path).strip()
    ), "PYTHONPATH=. python tests/test_docs.py writes it"
    assert list(tmp_path.iterdir()) == []


def readme_patch():
    """The diff in README.md, which adds a loss and its method."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (patch,) = re.findall(r"^```diff\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return patch


def test_readmes_patch_applies():
    command = ["git", "apply", "--check", "-"]
    subprocess.run(command, cwd=ROOT, input=readme_patch(), text=True, check=True)


@pytest.mark.long
@pytest.mark.timeout(900)  # on a busy machine
def test_readmes_patch_trains_its_method(tmp_path):
    for name in ("jaxord", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    run = {"cwd": tmp_path, "text": True, "check": True}
    subprocess.run(["git", "apply", "-"], input=readme_patch(), **run)
    command = [sys.executable, "-m", "jaxord.main", "--config=configs/digits.py:method=log_cosh"]
    command += ["--config.train.duration=2 steps", "--config.data.batch=8", "--workdir=run"]
    environment = {**os.environ, "PYTHONPATH": "", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"
    subprocess.run(command, env=environment, **run)
    assert (tmp_path / "run" / "DONE.json").is_file()
    assert '"log_cosh"' in (tmp_path / "run" / "config.json").read_text()


def documented(name):
    """The object of a `:::` line and its public members, by name."""
    try:
        subject = importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        subject = getattr(importlib.import_module(module), attribute)
    members = {name: subject}
    if inspect.ismodule(subject) or inspect.isclass(subject):
        for member in getattr(subject, "__all__", vars(subject)):
            value = inspect.getattr_static(subject, member)
            value = getattr(value, "__func__", value)
            ours = str(getattr(value, "__module__", "")).startswith("jaxord")
            if ours and not member.startswith("_"):
                members[f"{name}.{member}"] = value
    return members


def test_docstrings_of_the_api_pages_hold_no_markup():
    """Markdown would swallow <name> as a tag and turn a leading > into a quotation."""
    names = []
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        names += re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 10
    for name in names:
        for member, value in documented(name).items():
            text = re.sub(r"`[^`]*`", "", value.__doc__ or "")
            assert not re.search(r"<[A-Za-z/!]|^\s*>|: >", text, re.MULTILINE), member


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    PAGE.write_text(
        f"{before}\n\n{MARK}\n{of_data_sets(pathlib.Path('/nowhere'))}", encoding="utf-8"
    )
