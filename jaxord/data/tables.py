"""List files of every dialect in use -> named columns of texts and numbers."""

import csv
import dataclasses
import math
import pathlib
import re

import numpy as np

from jaxord.binding import did_you_mean
from jaxord.data import faults

MARKS = "\t;,"  # between fields: the first one in the first line, else blanks
DECIMAL_COMMA = re.compile(r"^(-?\d+),(\d+)$")


@dataclasses.dataclass(frozen=True)
class Table:
    """A list file: column names, rows of texts, and the line number of each row."""

    path: str
    names: tuple
    rows: tuple
    lines: tuple

    def texts(self, name):
        """One column as a list of strings; a ValueError names the columns of the file."""
        if name not in self.names:
            missing = f"{self.path} has no column {name!r}; it has {list(self.names)}."
            raise ValueError(f"{missing} {did_you_mean(name, self.names, ' ')}".rstrip())
        column = self.names.index(name)
        return [row[column] for row in self.rows]

    def numbers(self, name):
        """One column as f32[N]; of several labels in a field the one at len // 2 (OrdinalCLIP)."""
        return np.array([labels[len(labels) // 2] for labels in self.labels_of(name)], np.float32)

    def annotations(self, name):
        """One column as f32[N, A], padded with nan; None if each field holds one number."""
        labels = self.labels_of(name)
        width = max(map(len, labels))
        if width == 1:
            return None
        return np.array([row + [math.nan] * (width - len(row)) for row in labels], np.float32)

    def labels_of(self, name):
        """The numbers in each field of a column, as lists; a fault if one is not finite."""
        column = []
        for line, row, text in zip(self.lines, self.rows, self.texts(name), strict=True):
            try:
                labels = [float(part) for part in text.split()]
            except ValueError:
                labels = []
            if not labels or not all(map(math.isfinite, labels)):
                where = f"{self.path}, line {line}: {name} {text!r}"
                fault = f"{where} is not a number (in {' '.join(row)!r})"
                if faults.active() is None:
                    raise ValueError(fault)
                faults.active().labels.append((row, self.path, fault))
                labels = [math.nan]
            column.append(labels)
        return column

    def columns(self, leave=()):
        """{name: array[N]} of all columns but `leave`: f32 if every field is a number, else str."""
        return {name: _array(self.texts(name)) for name in self.names if name not in leave}

    def where(self, keep):
        """The rows whose entry in `keep` is true."""
        chosen = [i for i, kept in enumerate(keep) if kept]
        rows = tuple(self.rows[i] for i in chosen)
        return dataclasses.replace(self, rows=rows, lines=tuple(self.lines[i] for i in chosen))


def _array(texts):
    try:
        return np.array([float(text) for text in texts], np.float32)
    except ValueError:
        return np.array(texts)


def read_table(path, names=()):
    """Reads a list file; ValueError if it is no UTF-8 table, with the line at fault.

    The first line decides what separates fields: a tab, a semicolon (numbers may then have decimal
    commas) or a comma (both with quotes as in CSV), else blanks. Columns without a name, as pandas
    writes its index, are dropped. `names` are the columns of a file without a header line, where
    the last one takes the rest of a line.
    """
    lines = _numbered_lines(path)
    mark = next((mark for mark in MARKS if mark in lines[0][1]), None)
    rows = [_fields(line, mark) for _, line in lines]
    if names and not set(names) <= set(rows[0]):
        header = list(names)
        last = len(names) - 1
        rows = [row[:last] + [" ".join(row[last:])] if len(row) > last else row for row in rows]
    else:
        header, rows, lines = rows[0], rows[1:], lines[1:]
        # Between blanks, the empty name of pandas' index leaves no trace in the header.
        if not mark and rows and all(len(row) == len(header) + 1 for row in rows):
            header = ["", *header]
    for (number, line), row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            expected = f"{len(row)} fields, expected {len(header)} ({header})"
            raise ValueError(f"{path}, line {number}: {expected}: {line.strip()!r}")
    if not rows:
        raise ValueError(f"{path} has a header but no rows")
    kept = [i for i, name in enumerate(header) if name and not name.startswith("Unnamed:")]
    rows = tuple(tuple(row[i] for i in kept) for row in rows)
    numbers = tuple(number for number, _ in lines)
    return Table(str(path), tuple(header[i] for i in kept), rows, numbers)


def _numbered_lines(path):
    """[(number, text), ...] of the lines of a file that are not blank."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; export a spreadsheet as CSV") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


def _fields(line, mark):
    """The fields of a line, without blanks around them."""
    if mark in (None, "\t"):  # these dialects do not quote: a quote is part of a sentence
        return [field.strip() for field in line.split(mark)]
    fields = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
    fields = [field.strip() for field in fields]
    return [DECIMAL_COMMA.sub(r"\1.\2", field) for field in fields] if mark == ";" else fields
