"""Lists the data sets and methods that the package has configs for, read from their files."""

import ast
import dataclasses
import re
import runpy

from jaxord.shipped import ROOT, config_names


@dataclasses.dataclass(frozen=True)
class Method:
    """A file of configs/methods.

    Attributes:
      header: its docstring.
      summary, paper: first sentence without the paper in parentheses, and that paper or "".
      options: {name: values} of what follows `:method=<name>,`; the default comes first, "" where
        the method or the data set decides.
      data_sets: names of those it goes with.
    """

    name: str
    header: str
    summary: str
    paper: str
    options: dict[str, tuple[str, ...]]
    data_sets: tuple[str, ...]


def methods():
    """Every method, by name."""
    pairs = runpy.run_path(str(ROOT / "configs" / "pairs.py"))["PAIRS"]
    result = []
    for file in sorted((ROOT / "configs" / "methods").glob("[a-z]*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        header = ast.get_docstring(tree) or ""
        data_sets = tuple(name for name, known in pairs.items() if file.stem in known)
        result.append(
            Method(file.stem, header, *summary_and_paper(header), options(tree), data_sets)
        )
    return result


def options(tree):
    """{option: (default, other values)} of a method's `apply`, whose `choose` calls list values."""
    tables = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            tables[getattr(node.targets[0], "id", "")] = node.value
    # `choose` tells the values that an option takes; nothing is imported to ask it.
    values = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "choose":
            table = tables.get(getattr(node.args[2], "id", ""), node.args[2])
            if isinstance(node.args[0], ast.Constant) and isinstance(table, ast.Dict):
                values[node.args[0].value] = [key.value for key in table.keys]
    (apply,) = (node for node in tree.body if getattr(node, "name", "") == "apply")
    names = [argument.arg for argument in apply.args.args if argument.arg != "config"]
    defaults = dict(zip(names, map(ast.literal_eval, apply.args.defaults), strict=True))
    return {
        name: (default, *(value for value in values.get(name, ()) if value != default))
        for name, default in defaults.items()
    }


def summary_and_paper(header):
    """Splits the first sentence of a header from the first parenthesis in it that has a year."""
    sentence = re.split(r"(?<!et al)\.(?: |$)", " ".join(header.split()), maxsplit=1)[0]
    paper = re.search(r" \(([^()]*\b(?:19|20)\d\d)\)", sentence)
    if not paper:
        return sentence, ""
    return sentence[: paper.start()] + sentence[paper.end() :], paper[1]


def data_sets():
    """{name: (first sentence of its file without the paper, that paper)}."""
    result = {}
    for name in config_names():
        tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text(encoding="utf-8"))
        result[name] = summary_and_paper(ast.get_docstring(tree) or "")
    return result


def listing():
    """The text of --list."""
    lines = ["Data sets: --config=<name>", ""]
    sets = data_sets()
    width = max(map(len, sets))
    lines += [f"  {name:{width}}  {sentence(*words)}" for name, words in sets.items()]
    # Most methods go with nearly all data sets, so the shorter list is shown.
    lines += ["", "Methods: --config=<name>:method=<method>,<option>=<value>; defaults first", ""]
    for method in methods():
        lines.append(f"  {method.name}: {sentence(method.summary, method.paper)}")
        if method.options:
            texts = (f"{name}={'|'.join(values)}" for name, values in method.options.items())
            lines.append("      options: " + ", ".join(text.rstrip("=") for text in texts))
        others = [name for name in sets if name not in method.data_sets]
        if 0 < len(others) < len(sets) / 2:
            lines.append("      not for: " + ", ".join(others))
        elif others:
            lines.append("      only for: " + ", ".join(method.data_sets))
    return "\n".join(lines)


def sentence(summary, paper):
    return f"{summary} ({paper})" if paper else summary
