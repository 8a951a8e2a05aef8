"""The site: each command on it has a rule and is parsed, a mistake on a page is found, its tables
are not stale.

    PYTHONPATH=. python tests/test_docs.py

writes what docs/data_sets.md says of each set. tools/run_docs.py executes the commands.
"""

import importlib
import inspect
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

from configs.pairs import PAIRS
from docs import pages, rules
from jaxord.data import readers

ROOT = pathlib.Path(__file__).parents[1]
PAGE, MARK = ROOT / "docs" / "data_sets.md", "## What each set wants\n"
NOT_THERE = ("quickstart", "digits", "folder")  # made, or the reader's own

# The loader that ml_collections takes on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

MISTAKES = """
Of `python -m jaxord.main --config=configs/hci.py:method=numclp`,
`python -m jaxord.main --config=configs/hci.py --config.sead=1`,
`python -m jaxord.main --config=configs/digts.py`, `python -m jaxord.main --mode=predict --workdir=runs/a --output=a.csv`,
`python tools/sweep.py experiments/photo_quality.py --slot=s`, `python tools/sweep.py experiments/hci.py --set data.rot=x`,
`python tools/table.py experiments/photo_qality.py`, `python tools/bench_losses.py --losses=conrod`, `pip install -e ".[dmo]"`,
`JAX_PROCES_ID=1 python -m jaxord.main --config=configs/hci.py` and `python -m jaxord.main --mode=forecast` none is one.
"""


def test_every_command_is_parsed_and_every_mistake_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MISTAKES)
    command = [sys.executable, "tools/run_docs.py", "--parse", page, *pages.every_page()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    said = {state: set() for state in ("parsed", "WRONG")}
    for line in done.stdout.splitlines()[:-1]:
        state, *_, typed = line.split(maxsplit=5)
        said[state].add(typed)
    mistakes = {command for command in pages.commands([page]) if command in done.stderr}
    assert done.returncode == 1 and len(mistakes) == len(pages.commands([page])) == 11
    assert said["WRONG"] <= mistakes, done.stderr  # those without a rule are not parsed
    assert said["parsed"] >= set(pages.commands())


def test_every_rule_is_used_and_every_block_has_a_language():
    commands = [
        *pages.commands(),
        *(f"python {pathlib.Path(page).name}.py" for page in pages.programs()),
    ]
    used = {rules.rule(command).pattern for command in commands}
    assert [one.pattern for one in rules.RULES if one.pattern not in used] == []
    assert {piece.language for piece in pages.all_pieces()} <= {"bash", "python", "text"}


def test_methods_and_fields_are_those_of_the_configs():
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    table = hooks["table"]()
    methods = sorted({method for of_set in PAIRS.values() for method in of_set})
    assert re.findall(r"^\| \[`(\w+)`\]", table, re.MULTILINE) == methods
    for name, header, options in hooks["headers_of_methods"]():
        apply = inspect.signature(importlib.import_module(f"configs.methods.{name}").apply)
        assert options == {key: p.default for key, p in apply.parameters.items() if key != "config"}
        paper, line = hooks["paper_and_line"](header)
        assert line and (re.search(r"\b(19|20)\d\d$", paper) or header.startswith("No paper"))
        assert f"| {paper} |" in table and header in hooks["headers"]()
    assert "d.batch = 32  #" in hooks["fields"]()


def of_data_sets(folder):
    """What the files of the data sets and their readers say, in Markdown, where an empty folder is
    their root."""
    parts = []
    for name in PAIRS:
        if name not in NOT_THERE:
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


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    PAGE.write_text(
        f"{before}\n\n{MARK}\n{of_data_sets(pathlib.Path('/nowhere'))}", encoding="utf-8"
    )
