"""One HTML file that needs no other: text, tables and figures, everything escaped and embedded."""

import base64
import html
import math

from jaxord.report.figures import style

CSS = """
body { font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .8rem;
  border-top: 1px solid #ddd; } h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
.lead { font-size: 1.1rem; } nav { margin: 1rem 0; font-size: .92rem; } nav a { margin-right: 1rem; white-space: nowrap;
  display: inline-block; } a { color: #0063a6; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption, .note { color: #444; font-size: .92rem; max-width: 50rem; }
.scroll { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; } th, td { padding: .22rem .7rem; text-align: right; vertical-align: top;
  white-space: nowrap; }
th:first-child, td:first-child, table.facts td { text-align: left; padding-left: 0; }
table.facts td { white-space: normal; }
thead th { border-bottom: 2px solid #888; }
tbody tr:nth-child(even) { background: #f6f7f8; } tr.first td { font-weight: 650; }
td.text, th.text { text-align: left; white-space: normal; }
table.facts td:first-child { color: #555; white-space: nowrap; padding-right: 1.5rem; }
code { font-size: .9em; background: #f2f2f2; padding: 0 .2em; }
@media print { h2, figure { break-inside: avoid; } nav { display: none; } }
"""


def text(value):
    """A value as text of the page: numbers with four digits, "-" for nan."""
    if isinstance(value, float):
        value = (
            "-"
            if math.isnan(value)
            else f"{value:,.0f}"
            if abs(value) >= 10_000
            else f"{value:.4g}"
        )
    return html.escape(str(value))


def paragraph(*values, kind=""):
    return f"<p{_class(kind)}>{' '.join(map(text, values))}</p>"


def heading(value):
    return f"<h3>{text(value)}</h3>"


def bullets(values):
    return "<ul>" + "".join(f"<li>{text(value)}</li>" for value in values) + "</ul>"


def facts(pairs):
    """Names and what they are, one below the other."""
    rows = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in pairs)
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def table(header, body, first=False, words=()):
    """A table; its cells are right-aligned but those of the first column and of the columns in
    `words`.

    Args:
      header: texts.
      body: rows of texts or numbers.
      first: make the first row bold.
      words: places of further columns that hold text.
    """
    lines = []
    for place, row in enumerate(body):
        kinds = ["text" if column in words else "" for column in range(len(row))]
        cells = "".join(
            f"<td{_class(kind)}>{text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        lines.append(f"<tr{_class('first' if first and not place else '')}>{cells}</tr>")
    head = "".join(
        f"<th{_class('text' if column in words else '')}>{text(cell)}</th>"
        for column, cell in enumerate(header)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def markdown(lines):
    """Paragraphs and tables of Markdown as tools/table.py writes them; what is bold there is bold
    here."""
    parts, rows = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            words = [
                k
                for k, column in enumerate(zip(*rows[2:], strict=True))
                if k and _are_words(column)
            ]
            parts.append(_bold(table(rows[0], rows[2:], words=words)))
            rows = []
        if line:
            parts.append(paragraph(line))
    return parts


def _are_words(cells):
    return all(cell[:1].isalpha() or cell in ("", "-") for cell in cells) and any(
        cell[:1].isalpha() for cell in cells
    )


def _bold(made):
    pieces = made.split("**")
    return "".join(
        piece + ("" if k == len(pieces) - 1 else "</b>" if k % 2 else "<b>")
        for k, piece in enumerate(pieces)
    )


def picture(figure, caption):
    """A figure and how to read it."""
    data = base64.b64encode(style.svg(figure).encode()).decode()
    width = round(96 * figure.get_size_inches()[0])
    said = text(caption)
    return (
        f'<figure><img width="{width}" alt="{said}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def document(title, lead, sections):
    """The whole file.

    Args:
      title: of the page.
      lead: what came out, in a sentence or two.
      sections: {title: [parts]}.
    """
    links = "".join(f'<a href="#part{k}">{text(name)}</a>' for k, name in enumerate(sections))
    body = "\n".join(
        f'<section id="part{k}"><h2>{text(name)}</h2>\n' + "\n".join(parts) + "</section>"
        for k, (name, parts) in enumerate(sections.items())
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>\n<body>'
        f'<h1>{text(title)}</h1>\n<p class="lead">{text(lead)}</p>\n<nav>{links}</nav>\n{body}\n</body></html>\n'
    )


def _class(kind):
    return f' class="{kind}"' if kind else ""
