"""One HTML file that needs no other: text, tables and figures, escaped and embedded."""

import base64
import html
import math
import pathlib
import re
import string

from jaxord.report.figures import style
from jaxord.workdir import files

FRAME = string.Template(pathlib.Path(__file__).with_name("page.html").read_text("utf-8"))


class Page:
    """Collects sections, then writes them as one file."""

    def __init__(self, title):
        self._title, self._sections, self._reasons = title, {}, {}

    def add(self, title, parts):
        """Adds a section of parts; a text instead is the reason for leaving it out."""
        if isinstance(parts, str):
            self._reasons.setdefault(parts, []).append(title)
        else:
            self._sections[title] = parts

    def write(self, file, lead, notes=()):
        """Writes the page atomically.

        Args:
          file: path.
          lead: the outcome, in a sentence or two.
          notes: parts of the last section, before the sections that were left out.
        """
        sections, closing = dict(self._sections), list(notes)
        if self._reasons:
            reasons = self._reasons.items()
            closing.append(bullets(f"{', '.join(titles)}: {why}" for why, titles in reasons))
        if closing:
            sections["What is not here"] = closing
        links, bodies = [], []
        for k, (name, parts) in enumerate(sections.items()):
            links.append(f'<a href="#part{k}">{text(name)}</a>')
            body = "\n".join([_tag("h2", text(name)), *parts])
            bodies.append(f'<section id="part{k}">{body}</section>')
        content = {"links": "".join(links), "sections": "\n".join(bodies)}
        head = {"title": text(self._title), "lead": text(lead)}
        with files.replacing(file, encoding="utf-8") as out:
            out.write(FRAME.substitute(head | content))


def text(value):
    """Escapes a value; floats get four digits, nan becomes "-"."""
    if isinstance(value, float):
        short = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
        value = "-" if math.isnan(value) else short
    return html.escape(str(value))


def _tag(name, content, kind=""):
    return f'<{name} class="{kind}">{content}</{name}>' if kind else f"<{name}>{content}</{name}>"


def paragraph(value, kind=""):
    """A paragraph, of the CSS class `kind`."""
    return _tag("p", text(value), kind)


def note(value):
    """A paragraph in small grey print."""
    return paragraph(value, "note")


def heading(value):
    """A heading within a section."""
    return _tag("h3", text(value))


def bullets(values):
    """A list."""
    return _tag("ul", "".join(_tag("li", text(value)) for value in values))


def facts(pairs):
    """Pairs of a name and a value, one below the other."""
    rows = "".join(_tag("tr", "".join(_tag("td", text(cell)) for cell in pair)) for pair in pairs)
    return _tag("div", _tag("table", _tag("tbody", rows), "facts"), "scroll")


def table(header, body, first=False, words=()):
    """A table with right-aligned cells, except for the first column and columns of words.

    Args:
      header: texts.
      body: rows of texts or numbers; "**text**" becomes bold.
      first: makes the first row bold.
      words: places of columns of words, besides those whose cells all begin with a letter.
    """
    columns = enumerate(zip(*body, strict=True))
    words = {k for k, cells in columns if k and (k in words or _are_words(cells))}

    def line(tag, cells, kind=""):
        marked = (re.sub(r"\*\*(.+)\*\*", r"<b>\1</b>", text(cell)) for cell in cells)
        kinds = ("text" if k in words else "" for k in range(len(cells)))
        return _tag("tr", "".join(map(_tag, [tag] * len(cells), marked, kinds)), kind)

    rows = (line("td", row, "first" if first and not k else "") for k, row in enumerate(body))
    content = _tag("thead", line("th", header)) + _tag("tbody", "".join(rows))
    return _tag("div", _tag("table", content), "scroll")


def _are_words(cells):
    texts = [cell for cell in cells if cell not in ("", "-")]
    return bool(texts) and all(isinstance(cell, str) and cell[:1].isalpha() for cell in texts)


def blocks(parts):
    """Parts of the page from texts, a paragraph a line, and from tables (header, body)."""
    lines = [part.splitlines() if isinstance(part, str) else [part] for part in parts]
    return [
        paragraph(part) if isinstance(part, str) else table(*part)
        for some in lines
        for part in some
    ]


def picture(figure, caption):
    """A figure as SVG and its caption."""
    data = base64.b64encode(style.svg(figure).encode()).decode()
    width, caption = round(96 * figure.get_size_inches()[0]), text(caption)
    source = f'src="data:image/svg+xml;base64,{data}"'
    image = f'<img width="{width}" alt="{caption}" {source}>'
    return _tag("figure", image + _tag("figcaption", caption))
