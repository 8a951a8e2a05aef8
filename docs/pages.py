"""What stands on the pages, README.md, docs/ and experiments/*.md, that can be executed: commands
and pieces of Python."""

import collections
import os
import pathlib
import re

from docs.rules import OWN, SHORTER

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = re.compile(
    r"(python|pip|pytest|mkdocs|srun|taskset|export|cd) |[A-Z_]+=\S+ python |(pytest|mkdocs \w+)$"
)

Piece = collections.namedtuple("Piece", "page line language title text")


def pieces(file):
    """What stands apart on a page: fenced and indented blocks, and commands within the text."""
    lines, rest = file.read_text(encoding="utf-8").split("\n"), []
    page, at = os.path.relpath(file, ROOT), 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if line.startswith("```"):
            while lines[at] != "```":
                at += 1
            language, _, title = line[3:].partition(" title=")
            yield Piece(
                page, start + 1, language, title.strip('"'), "\n".join(lines[start + 1 : at])
            )
            at += 1
        elif line.startswith("    ") and start and not lines[start - 1]:
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at]):
                at += 1
            block = [text[4:] for text in lines[start:at]]
            language = (
                "bash"
                if COMMANDS.match(block[0])
                else "python"
                if block[0].startswith("import ")
                else "text"
            )
            yield Piece(page, start + 1, language, "", "\n".join(block).rstrip())
        else:
            rest.append(line)
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(rest)):
        if COMMANDS.match(code):
            yield Piece(page, 0, "bash", "", " ".join(code.split()))


def every_page():
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "experiments").glob("*.md")),
    ]


def all_pieces(pages=()):
    """Those of the pages, of all of them without any."""
    return [piece for page in pages or every_page() for piece in pieces(page)]


def commands(pages=()):
    """{command: where it stands first}, without comments and line breaks; `cd` stays with what
    follows it."""
    found = {}
    for piece in all_pieces(pages):
        if piece.language == "bash":
            for line in piece.text.replace("\\\n", " ").split("\n"):
                text = " ".join(re.sub(r"\s#\s.*|^#.*", "", line).split())
                for part in re.sub(r"(cd \S+) && ", r"\1 &+ ", text).split(" && "):
                    if part:
                        found.setdefault(part.replace("&+", "&&"), f"{piece.page}:{piece.line}")
    return found


def programs(pages=()):
    """{page: the pieces of Python on it as one program, with what they find before them}."""
    found = collections.defaultdict(lambda: OWN)
    for piece in all_pieces(pages):
        if piece.language == "python" and not piece.title:
            found[piece.page] += piece.text + "\n"
    return {page: shortened(text) for page, text in found.items()}


def shortened(text):
    """The piece of Python as it takes seconds."""
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text
