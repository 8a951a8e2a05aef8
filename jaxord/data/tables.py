"""Tables of every dialect in use -> named columns of texts and numbers.

A field is text until `Table.numbers` reads it, by one strict rule (`number`).
"""

import codecs
import csv
import dataclasses
import io
import json
import math
import pathlib
import re
import shlex

import numpy as np

from jaxord import shipped
from jaxord.binding import did_you_mean
from jaxord.data import faults

MARKS = "\t;,"  # between fields: the first one in the first line, else blanks
LARGEST = float(np.finfo(np.float32).max)
BY_SUFFIX = {".csv": ",", ".tsv": "\t"}  # the mark of a file with one column
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+([eE][+-]?[0-9]+)?)")
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def number(text):
    """The number that a text is, else None: a sign, digits, one decimal point, an exponent.

    Nothing else is a number: no `1 200`, `1_200`, `1,5`, `nan` or `inf`, and nothing that
    overflows float32.
    """
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    return value if abs(value) <= LARGEST else None


@dataclasses.dataclass(frozen=True)
class Table:
    """A list file: column names, rows of texts, and the line number of each row.

    `decimal_commas` tells that fields may be numbers with decimal commas.
    """

    path: str
    names: tuple
    rows: tuple
    lines: tuple
    decimal_commas: bool = False

    def texts(self, name):
        """One column as a list of strings; a ValueError names the columns of the file."""
        if name not in self.names:
            missing = f"{self.path} has no column {name!r}; it has {list(self.names)}."
            raise ValueError(f"{missing} {did_you_mean(name, self.names, ' ')}".rstrip())
        if self.names.count(name) > 1:
            raise ValueError(f"{self.path} has {self.names.count(name)} columns called {name!r}")
        column = self.names.index(name)
        return [row[column] for row in self.rows]

    def numbers(self, name, several=False):
        """One column as f32[N]; of `several` labels in a field the middle one, as OrdinalCLIP."""
        column = self.labels_of(name, several)
        return np.array([labels[len(labels) // 2] for labels in column], np.float32)

    def annotations(self, name):
        """One column as f32[N, A], padded with nan; None if each field holds one number."""
        labels = self.labels_of(name, several=True)
        width = max(map(len, labels))
        if width == 1:
            return None
        return np.array([row + [math.nan] * (width - len(row)) for row in labels], np.float32)

    def labels_of(self, name, several=False):
        """The number, or the `several` numbers, in each field of a column; a fault for others."""
        texts = self.texts(name)
        commas = self.decimal_commas and any(DECIMAL_COMMA.fullmatch(x.strip()) for x in texts)
        mark = "comma" if commas else "point"
        column = []
        for line, row, text in zip(self.lines, self.rows, texts, strict=True):
            parts = text.split() if several else [text.strip()]
            labels = [_with_comma(part) if commas else number(part) for part in parts]
            if not labels or None in labels:
                where = f"{self.path}, line {line}: {name} {text!r}"
                rule = f"expected digits with at most one decimal {mark}"
                fault = f"{where} is not a number (in {' '.join(row)!r}); {rule}"
                if faults.active() is None:
                    raise ValueError(fault)
                faults.active().labels.append((row, self.path, fault))
                labels = [math.nan]
            column.append(labels)
        return column

    def columns(self, leave=()):
        """{name: array[N]} of all columns but `leave`: f32 if every field is a number, else str."""
        kept = self.text_columns(leave)
        return {name: _array(texts, self.decimal_commas) for name, texts in kept.items()}

    def text_columns(self, leave=()):
        """{name: str[N]} of all columns but `leave`, as the file has them."""
        kept = [name for name in self.names if name not in leave]
        return {name: np.array(self.texts(name)) for name in kept}

    def where(self, keep):
        """The rows whose entry in `keep` is true."""
        chosen = [i for i, kept in enumerate(keep) if kept]
        rows = tuple(self.rows[i] for i in chosen)
        return dataclasses.replace(self, rows=rows, lines=tuple(self.lines[i] for i in chosen))


def _with_comma(text):
    """`number` in a column with decimal commas, where a point may separate thousands."""
    return None if "." in text else number(DECIMAL_COMMA.sub(r"\1.\2", text))


def _array(texts, commas):
    try:
        numbers = [DECIMAL_COMMA.sub(r"\1.\2", text) if commas else text for text in texts.tolist()]
        if any("_" in text for text in numbers):  # float() passes over underscores
            return texts
        return np.array([float(text) for text in numbers], np.float32)
    except ValueError:
        return texts


def read_table(path, names=(), header=True, exact=False):
    """Reads a list file; ValueError if it is no table, with the line at fault.

    Excel (.xlsx), Parquet and JSON lines (.jsonl) go by their suffix; all else is text. A line
    `sep=;`, as Excel has it, or the first line decides what separates fields: a tab, a semicolon
    (numbers may then have decimal commas) or a comma (both with quotes as in CSV), else blanks.
    Columns without a name, as pandas writes its index, and rows without text are dropped.

    Args:
      path: the file; text is UTF-8, or UTF-16 with a byte order mark.
      names: columns of a file without a header line, where the last one takes the rest of a line.
      header: False for a file without a header line whose columns are called "0", "1", ...
      exact: fields keep the blanks around them, and quotes count between tabs too, where they are
        part of a sentence otherwise.
    """
    suffix = pathlib.Path(path).suffix.lower()
    mark = ","
    if suffix in FORMATS:
        numbered = FORMATS[suffix](path)
    else:
        numbered, mark = _text_rows(path, suffix, exact)
    numbered = [(line, row) for line, row in numbered if any(map(str.strip, row))]
    if not numbered:
        raise ValueError(f"{path} is empty")
    first = numbered[0][1]
    if not header:
        titles = [str(column) for column in range(len(first))]
    elif names and not set(names) <= set(first):
        titles, last = list(names), len(names) - 1
        numbered = [
            (line, row[:last] + [" ".join(row[last:])] if len(row) > last else row)
            for line, row in numbered
        ]
    else:
        titles, numbered = [name.strip() for name in first], numbered[1:]
        # Between blanks, the empty name of pandas' index leaves no trace in the header.
        if not mark and numbered and all(len(row) == len(titles) + 1 for _, row in numbered):
            titles = ["", *titles]
    for line, row in numbered:
        if len(row) != len(titles):
            expected = f"{len(row)} fields, expected {len(titles)} ({titles})"
            raise ValueError(f"{path}, line {line}: {expected}: {' '.join(row)!r}")
    if not numbered:
        raise ValueError(f"{path} has a header but no rows")
    kept = [i for i, name in enumerate(titles) if name and not name.startswith("Unnamed:")]
    rows = tuple(tuple(row[i] for i in kept) for _, row in numbered)
    lines = tuple(line for line, _ in numbered)
    return Table(str(path), tuple(titles[i] for i in kept), rows, lines, mark == ";")


def user_table(path, path_column):
    """A user's table, its fields exact; a `path_column` that is a number means no header line."""
    return read_table(path, header=not path_column.isdecimal(), exact=True)


def _text_rows(path, suffix, exact):
    """([(line number, fields), ...], mark between fields, None for blanks) of a text file."""
    lines = io.StringIO(read_text(path), newline="").readlines()
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    first = re.sub('"[^"]*"', "", lines[start]) if start < len(lines) else ""
    mark = next((mark for mark in MARKS if mark in first), None)
    # Excel's own line is no row.
    if excel := re.fullmatch(r"sep=(.)\s*", first):
        start, mark = start + 1, excel[1]
    elif mark is None and len(first.split()) < 2:
        mark = BY_SUFFIX.get(suffix)
    if mark is None:
        return [(i + 1, lines[i].split()) for i in range(start, len(lines))], mark
    quoting = csv.QUOTE_NONE if mark == "\t" and not exact else csv.QUOTE_MINIMAL
    # Blanks that follow every mark of the first line are part of it.
    blanks = mark != "\t" and (not exact or first.count(mark) == first.count(f"{mark} ") > 0)
    form = {"delimiter": mark, "quoting": quoting, "skipinitialspace": blanks}
    rows, reader, line = [], csv.reader(lines[start:], strict=True, **form), start + 1
    try:
        for row in reader:
            rows.append((line, row if exact else [field.strip() for field in row]))
            # A quoted field may hold line breaks.
            line = start + reader.line_num + 1
    except csv.Error as error:
        hint = "a quote that is not closed, or text beside a quoted field?"
        raise ValueError(f"{path}, line {line}: {error}; {hint}") from None
    return rows, mark


def read_text(path):
    """The text of a file; ValueError if it is not UTF-8, or UTF-16 or 32 with its mark."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path} is not UTF-8 text; an Excel workbook is called .xlsx")
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
        place = text.find("\0")
    except UnicodeDecodeError as error:
        place = error.start
    if place < 0:
        return text
    source = _likely_encoding(data)
    line = data[:place].count(b"\n") + 1
    file = pathlib.Path(path)
    output = shlex.quote(str(file.with_name(f"{file.stem}-utf8{file.suffix}")))
    convert = f"iconv -f {source} -t UTF-8 {shlex.quote(str(file))} > {output}"
    hint = f"it looks like {source}; convert it: {convert}" if source else "is it a table?"
    raise ValueError(f"{path} is not UTF-8 text (line {line}, byte 0x{data[place]:02x}); {hint}")


def _likely_encoding(data):
    """The name of the encoding of a text that is not UTF-8, "" if it is no text."""
    if data[1:2] == b"\0" or data[:1] == b"\0":
        return "UTF-16LE" if data[1:2] == b"\0" else "UTF-16BE"
    if b"\0" in data:
        return ""
    # Languages that take two bytes a character have few single ones outside ASCII.
    runs = re.findall(rb"[\x80-\xff]+", data)
    if sum(len(run) for run in runs if len(run) > 1) > 0.8 * sum(map(len, runs)):
        return "GB18030"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "WINDOWS-1252"


def _excel(path):
    """The rows of the first sheet of a workbook."""
    frame = _by_pandas("read_excel", path, header=None, dtype=object, na_filter=False)
    return list(enumerate(([_plain(x) for x in row] for row in frame.values.tolist()), 1))


def _parquet(path):
    """The rows of a Parquet file, after its column names; images inside are left out."""
    frame = _by_pandas("read_parquet", path, dtype_backend="pyarrow")
    columns = {str(name): frame[name].tolist() for name in frame}
    nested = (dict, list, bytes)
    columns = {
        name: [_plain(value) for value in values]
        for name, values in columns.items()
        if not any(isinstance(value, nested) for value in values)
    }
    return list(enumerate([[*columns], *map(list, zip(*columns.values(), strict=True))]))


def _by_pandas(function, path, **settings):
    """Calls a reader of pandas; ValueError for a file that it cannot read."""
    import pandas  # half a second, which only such files take

    try:
        return getattr(pandas, function)(path, **settings)
    except ImportError as error:
        raise ValueError(
            f"{path} needs {error.name or 'pyarrow'}: {shipped.install_hint('tables')}"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file raises whatever its parser meets
        raise ValueError(f"{path} is no table that pandas reads: {error}") from None


def _plain(value):
    """The text of a cell; "" without a value."""
    import pandas

    if isinstance(value, str):
        return value.strip()
    if value is None or value is pandas.NA or value is pandas.NaT or value != value:
        return ""
    # Spreadsheets store whole numbers as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _json_lines(path):
    """The rows of a file with a JSON object a line, after their keys; numbers keep their text."""
    texts, rows = read_text(path).split("\n"), []
    for line, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
        except ValueError as error:
            raise ValueError(f"{path}, line {line} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {line} is no JSON object: {text.strip()[:80]!r}")
        rows.append((line, row))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    return [(0, names), *((line, [_json(row.get(name)) for name in names]) for line, row in rows)]


def _json(value):
    """The text of a JSON value."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else json.dumps(value, ensure_ascii=False)


FORMATS = {".xlsx": _excel, ".xlsm": _excel, ".parquet": _parquet}
FORMATS |= dict.fromkeys((".jsonl", ".ndjson"), _json_lines)
