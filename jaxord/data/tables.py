"""List files of every dialect in use -> named columns of texts and numbers."""

import csv
import dataclasses
import math
import pathlib
import re

import numpy as np

from jaxord.binding import did_you_mean


@dataclasses.dataclass(frozen=True)
class Table:
    """A list file: column names, rows of texts, and the line each row stands on."""

    path: str
    names: tuple
    rows: tuple
    lines: tuple

    def texts(self, name):
        """One column as a list of strings; ValueError names the columns there are."""
        if name not in self.names:
            hint = did_you_mean(name, self.names, " ")
            raise ValueError(
                f"{self.path} has no column {name!r}; it has {list(self.names)}. {hint}".rstrip()
            )
        at = self.names.index(name)
        return [row[at] for row in self.rows]

    def numbers(self, name):
        """One column as f32[N].

        Several numbers in a field are sorted annotations of an image; the one at len // 2 counts
        (OrdinalCLIP's lists).

        Raises:
            ValueError: file, line number and text of the first field that holds anything but finite
              numbers.
        """
        return np.array([labels[len(labels) // 2] for labels in self.labels_of(name)], np.float32)

    def annotations(self, name):
        """One column as f32[N, A] with all numbers of each field, padded with nan; None where each
        has just one.

        Raises:
            ValueError: as `numbers`.
        """
        labels = self.labels_of(name)
        wide = max(map(len, labels))
        if wide == 1:
            return None
        return np.array([row + [math.nan] * (wide - len(row)) for row in labels], np.float32)

    def labels_of(self, name):
        """The numbers in each field of a column, as lists."""
        found = []
        for line, row, text in zip(self.lines, self.rows, self.texts(name), strict=True):
            try:
                labels = [float(part) for part in text.split()]
            except ValueError:
                labels = []
            if not labels or not all(map(math.isfinite, labels)):
                raise ValueError(
                    f"{self.path}, line {line}: {name} {text!r} is not a number (in {' '.join(row)!r})"
                )
            found.append(labels)
        return found

    def columns(self, leave=()):
        """{name: array[N]} of all columns but `leave`: numbers where every field is one, else
        strings."""
        found = {}
        for name in self.names:
            if name not in leave:
                texts = self.texts(name)
                try:
                    found[name] = np.array([float(text) for text in texts], np.float32)
                except ValueError:
                    found[name] = np.array(texts)
        return found

    def where(self, keep):
        """The rows for which `keep` (one truth value a row) holds."""
        chosen = [i for i, kept in enumerate(keep) if kept]
        return dataclasses.replace(
            self,
            rows=tuple(self.rows[i] for i in chosen),
            lines=tuple(self.lines[i] for i in chosen),
        )


def read_table(path, names=()):
    """Reads a list file in any of the dialects in use.

    Fields are separated by what the first line holds: tab, semicolon (then numbers may have decimal
    commas) or comma (both with quotes as in CSV), else blanks. A column without a name, as pandas
    writes its index, is left out.

    Args:
        path: of a UTF-8 text file.
        names: of the columns of a file without a header line, where a last field takes all that is
          left of a line; ()
            where the first line is the header.

    Raises:
        ValueError: not a text file, no rows, or a line with another number of fields.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; export a spreadsheet as CSV") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    mark = next((mark for mark in "\t;," if mark in lines[0][1]), None)
    if mark == "\t":  # plain: a quote in a sentence is a quote
        rows = [line.split(mark) for _, line in lines]
    elif mark:
        rows = [
            next(csv.reader([line], delimiter=mark, skipinitialspace=True)) for _, line in lines
        ]
    else:
        rows = [line.split() for _, line in lines]
    rows = [[field.strip() for field in row] for row in rows]
    if mark == ";":
        rows = [[re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", field) for field in row] for row in rows]
    header = list(names)
    if not names or set(names) <= set(rows[0]):
        header, rows, lines = rows[0], rows[1:], lines[1:]
        if not mark and rows and all(len(row) == len(header) + 1 for row in rows):
            header = ["", *header]  # the header's empty first name left no trace between blanks
    elif names:
        rest = len(names) - 1
        rows = [row[:rest] + [" ".join(row[rest:])] if len(row) > rest else row for row in rows]
    for (number, line), row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(row)} fields, expected {len(header)} ({header}): {line.strip()!r}"
            )
    if not rows:
        raise ValueError(f"{path} has a header but no rows")
    kept = [i for i, name in enumerate(header) if name and not name.startswith("Unnamed:")]
    return Table(
        path=str(path),
        names=tuple(header[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        lines=tuple(number for number, _ in lines),
    )
