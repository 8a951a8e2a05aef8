"""Imports go down only, and few places do what only they should."""

import ast
import pathlib

FLOORS = [
    {"targets", "runtime", "metrics", "binding", "trees", "vectors", "__version__"},
    {"losses", "models", "inference", "optim", "shipped"},
    {"step", "weights", "workdir"},
    {"data"},
    {"task", "schedule", "catalogue"},
    {"evaluate", "predict"},
    {"export", "report", "population"},
    {"train"},
    {"main", "estimator"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
PACKAGE = pathlib.Path(__file__).parent.parent / "jaxord"
# Every export carries this program, which runs without jaxord; nothing in the package imports it.
TORCH = PACKAGE / "export" / "predict_torch.py"


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
            assert top not in ("configs", "tools", "experiments"), f"{file} imports {name}"
            assert top != "torch" or file == TORCH, f"{file} imports {name}"
            assert not name.startswith("jaxord.export.predict_torch"), f"{file} imports {name}"
            assert top != "jaxord" or file != TORCH, f"{file} imports {name}"
            if top == "jaxord" and rest[0] != own and LEVEL[rest[0]] >= LEVEL[own]:
                place = f"{file.relative_to(PACKAGE)} (floor {LEVEL[own]})"
                wrong.append(f"{place} imports {name} (floor {LEVEL[rest[0]]})")
    assert not wrong, "\n".join(wrong)


def test_losses_and_rules_import_no_model():
    for part in ("losses", "inference.py", "metrics.py"):
        for file in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"):
            assert not [
                name
                for name in imports(file)
                if name.startswith(("jaxord.models", "jaxord.data", "flax"))
            ]


def test_no_file_is_longer_than_400_lines():
    assert not [
        f"{file}: {n}"
        for file in PACKAGE.rglob("*.py")
        if (n := len(file.read_text().splitlines())) > 400
    ]


EXECUTES = {
    "pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "torch",
}  # they run what they load


def calls(file):
    """(source of what is called, node) of every call in a file."""
    return [
        (ast.unparse(node.func), node)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_what_is_read_can_execute_nothing():
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 90
    for file in files:
        found = {name.split(".")[0] for name in imports(file)} & EXECUTES
        assert not found - ({"torch"} if file == TORCH else set()), f"{file} imports {found}"
        for name, node in calls(file):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            place = f"{file}:{node.lineno}"
            assert name not in ("eval", "exec", "compile", "__import__", "os.system"), (
                f"{place} calls {name}"
            )
            assert (
                words.get("allow_pickle", "False") == "False"
                and words.get("shell", "False") == "False"
            ), place
            assert not name.startswith("torch.") or name.rpartition(".")[2] not in (
                "load",
                "hub",
            ), place
