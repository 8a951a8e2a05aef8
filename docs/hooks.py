"""Fills the marks of methods.md and configuration.md from the files of configs/ at every build."""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jaxord import catalogue  # noqa: E402

# One data set of each kind.
KINDS = {"images": "folder", "videos": "lsvq", "sentences": "stsb", "gaze": "mpiifacegaze"}


def on_page_markdown(markdown, **_):
    for mark, fill in {"methods": table, "headers": headers, "fields": fields}.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", fill())
    return markdown


def on_page_content(html, **_):
    # A Returns section without a type would show its dash alone.
    return re.sub(r'(<li class="doc-section-item field-body">)\s+–\s', r"\1", html)


def table():
    """A row for each method."""
    lines = ["| method | what it is | paper | data | options |", "| --- | --- | --- | --- | --- |"]
    for method in catalogue.methods():
        kinds = [kind for kind, data_set in KINDS.items() if data_set in method.data_sets]
        data = ", ".join(kinds)
        if "quickstart" not in method.data_sets and kinds != ["gaze"]:
            data += " (pretrained)"
        options = ", ".join(
            f"`{name}={'/'.join(values)}`".replace("=`", "`")
            for name, values in method.options.items()
        )
        summary = method.summary.replace("|", "\\|")
        name = f"[`{method.name}`](#{method.name})"
        lines.append(f"| {name} | {summary} | {method.paper} | {data} | {options} |")
    return "\n".join(lines)


def headers():
    """The header of each method's file, word for word."""
    return "\n\n".join(
        f"### `{method.name}`\n\n```text\n{method.header}\n```" for method in catalogue.methods()
    )


def fields():
    """The function of configs/base.py that makes every field, with its comments."""
    source = (ROOT / "configs" / "base.py").read_text(encoding="utf-8")
    base = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "base")
    return f"```python\n{ast.get_source_segment(source, base)}\n```"
