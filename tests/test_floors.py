"""Imports go down only, and few places do what only they should."""

import ast
import pathlib

FLOORS = [
    {"trees", "binding", "tokenizer", "settings", "vectors", "sharding", "memory", "narrow", "signals"},
    {"losses", "inference", "metrics", "shots", "ranks", "labels", "progress", "figures"},
    {"models", "attention"},
    {"weights"},
    {"data"},
    {"step", "optim", "checkpoint"},
    {"initial", "workdir", "summary", "card", "features", "course"},
    {"assemble"},
    {"finished"},
    {"predictor"},
    {"evaluate", "predict", "export", "report"},
    {"stacked"},
    {"population"},
    {"train"},
    {"estimator"},
    {"main"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
PACKAGE = pathlib.Path(__file__).parent.parent / "jaxord"


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_go_down_only():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for name in imports(file):
            top, *rest = name.split(".")
            assert top not in ("configs", "tools", "experiments", "torch"), f"{file} imports {name}"
            if top == "jaxord" and rest[0] != own and LEVEL[rest[0]] >= LEVEL[own]:
                wrong.append(f"{file.relative_to(PACKAGE)} (floor {LEVEL[own]}) imports {name} (floor {LEVEL[rest[0]]})")
    assert not wrong, "\n".join(wrong)


def test_losses_and_rules_import_no_model():
    for part in ("losses", "inference.py", "metrics.py"):
        for file in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"):
            assert not [name for name in imports(file) if name.startswith(("jaxord.models", "jaxord.data", "flax"))]


def test_no_file_is_longer_than_400_lines():
    assert not [f"{file}: {n}" for file in PACKAGE.rglob("*.py") if (n := len(file.read_text().splitlines())) > 400]
