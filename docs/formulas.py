"""For the API pages: paragraphs of a docstring whose line breaks mean something, formulas and
tables, become code blocks."""

import itertools
import re

import griffe

WIDE = 100  # a line of prose is broken behind this, or where the next word is long
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def is_prose(lines):
    """Whether a paragraph is sentences, whose lines are as full as they can be."""
    if SECTION.match(lines[0]) or lines[0].startswith((" ", "|", "-")):
        return True  # or what Markdown knows already
    broken_early = any(len(a) + 1 + len(b.split()[0]) <= WIDE for a, b in itertools.pairwise(lines))
    return not broken_early and lines[-1].endswith((".", ":", ";", ")"))


def with_blocks(text):
    """The docstring with four blanks before each line of other paragraphs."""
    paragraphs = [paragraph.split("\n") for paragraph in re.split(r"\n\s*\n", text)]
    return "\n\n".join(
        "\n".join(lines if number == 0 or is_prose(lines) else [f"    {line}" for line in lines])
        for number, lines in enumerate(paragraphs)
    )


class Formulas(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = with_blocks(obj.docstring.value)
