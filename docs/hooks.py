"""What methods.md and configuration.md have from the files of configs/, whenever the site is built.

Nothing is imported but configs/pairs.py: headers, the options of `apply` and the fields are read as
source.
"""

import ast
import pathlib
import re
import runpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = ROOT / "configs" / "methods"
KINDS = {
    "images": "folder",
    "videos": "lsvq",
    "sentences": "stsb",
    "gaze": "mpiifacegaze",
}  # each with a set of that kind


def on_page_markdown(markdown, **_):
    """Fills the marks."""
    for mark, fill in {"methods": table, "headers": headers, "fields": fields}.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", fill())
    return markdown


def headers_of_methods():
    """[(name, docstring, {option: default})] of the methods."""
    found = []
    for file in sorted(METHODS.glob("[a-z]*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        apply = next(
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "apply"
        )
        names = [argument.arg for argument in apply.args.args if argument.arg != "config"]
        defaults = [ast.literal_eval(node) for node in apply.args.defaults]
        found.append((file.stem, ast.get_docstring(tree), dict(zip(names, defaults, strict=True))))
    return found


def paper_and_line(header):
    """The paper, "" where there is none, and the header's first sentence without it: its first
    parenthesis with a year."""
    sentence = re.split(r"(?<!et al)\.(?: |$)", " ".join(header.split()), maxsplit=1)[0]
    paper = re.search(r" \(([^()]*\b(?:19|20)\d\d)\)", sentence)
    return (
        (paper[1], sentence[: paper.start()] + sentence[paper.end() :]) if paper else ("", sentence)
    )


def kinds_of(method):
    """Kinds of data that a method goes with."""
    pairs = runpy.run_path(ROOT / "configs" / "pairs.py")["PAIRS"]
    found = [kind for kind, data_set in KINDS.items() if method in pairs[data_set]]
    return ", ".join(found) + (
        "" if method in pairs["quickstart"] or found == ["gaze"] else " (pretrained)"
    )


def table():
    """A row a method, in Markdown."""
    lines = ["| method | what it is | paper | data | options |", "| --- | --- | --- | --- | --- |"]
    for name, header, options in headers_of_methods():
        paper, line = paper_and_line(header)
        shown = ", ".join(
            f"`{key}={value}`" if value else f"`{key}`" for key, value in options.items()
        )
        lines.append(
            f"| [`{name}`](#{name}) | {line.replace('|', chr(92) + '|')} | {paper} | {kinds_of(name)} | {shown} |"
        )
    return "\n".join(lines)


def headers():
    """The header of each file, word for word."""
    return "\n\n".join(
        f"### `{name}`\n\n```text\n{header}\n```" for name, header, _ in headers_of_methods()
    )


def fields():
    """The function that makes every field, with its comments."""
    source = (ROOT / "configs" / "base.py").read_text(encoding="utf-8")
    base = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "base")
    return f"```python\n{ast.get_source_segment(source, base)}\n```"
