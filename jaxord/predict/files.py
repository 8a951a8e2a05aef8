"""A finished run's predictions for a folder, a list or a table, as rows of a file that a killed
command goes on with."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import time

import jax
import tqdm

from jaxord.predict.predictor import Predictor
from jaxord.workdir import files as run_files
from jaxord.workdir import run_config
from jaxord.workdir.layout import read_done

PERIOD = 5.0  # seconds between two moments at which what is written is forced onto the disk
ERRORS = {
    ".csv": "surrogateescape",
    ".jsonl": "backslashreplace",
}  # names that are no UTF-8: their bytes, or JSON's escapes


def predict_run(workdir, source, output, fold="", batch=0, root=""):
    """Writes a row for each example, and prints how many and how fast.

    CSV: path, value (value_0, value_1 for angles), rank, rank_name, probability_<rank's name>...
      where the model gives logits,
    neighbour_1... (labels, nearest first) where the headline rule is knn, uncertainty, rule_<name>
    of each further rule, error. JSON lines: the fields of `Prediction` under their names, with
    `path`. What cannot be read has an empty row (null) and the reason as its `error`.

    Rows are appended to <output>.part in whole batches and it is renamed at the end; the same
    command after a kill goes on behind the last whole batch and ends with the same bytes.

    Args:
      workdir: of a finished run.
      source, root: images or videos as `jaxord.data.inputs.files` finds them; a table of pairs of
        sentences.
      output: file that ends in .csv or .jsonl; an older one is replaced.
      fold: which fold, where the run has several.
      batch: examples that are read and written at once; 0 is config.data.eval_batch. The numbers do
        not depend on it.

    Raises:
      ValueError: no finished run, no examples, another kind of output, a .part that belongs to
        another command or is in use.
    """
    output = pathlib.Path(output)
    kind = output.suffix.lower()
    if kind not in ERRORS or output.is_dir():
        raise ValueError(
            f"the output is {str(output)!r}; expected a file that ends in .csv or .jsonl"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"predicting takes one process, found {jax.process_count()}; give each its own part of the examples"
        )
    predictor = Predictor.load(workdir, fold, batch)
    noun = predictor.given.noun
    names, given = predictor.given.listed(source, root)
    rows_of = {".csv": csv_rows, ".jsonl": json_rows}[kind]
    broken = 0
    with growing(output, identity(predictor, names, given), predictor.batch) as (file, done):
        start = synced = time.monotonic()
        compiled = None  # when the first batch came, and how many rows were there then
        with tqdm.tqdm(total=len(names), initial=done, unit=f" {noun}", dynamic_ncols=True) as bar:
            at = done
            for prediction in predictor.stream(given, done):
                count = len(prediction.error)
                text = rows_of(
                    prediction, names[at : at + count], predictor.run.ranks, header=at == 0
                )
                file.write(text.encode("utf-8", ERRORS[kind]))
                file.flush()
                if time.monotonic() - synced > PERIOD:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
                at, broken = at + count, broken + int((prediction.error != "").sum())
                bar.update(count)
                compiled = compiled or (time.monotonic(), at)
    end = time.monotonic()
    before = f" after {done:,} of an earlier command" if done else ""
    speed = (
        f", {(at - compiled[1]) / (end - compiled[0]):.0f} a second once compiled"
        if compiled and at > compiled[1]
        else ""
    )
    print(
        f"{at - done:,} {noun}{before} in {end - start:.1f} s{speed}; {broken:,} could not be read: {output}"
    )


def identity(predictor, names, given):
    """What a half-written file belongs to: the parameters, the examples, the batch."""
    folder = predictor.run.folder
    step = read_done(folder)["step"]
    run = (
        run_config.to_json(predictor.run.config).encode()
        + (folder / "checkpoints" / str(step) / "sha256.json").read_bytes()
    )
    rows = hashlib.sha256()
    for row in zip(names, given, strict=True):
        rows.update(json.dumps(row).encode())
    return {
        "run": hashlib.sha256(run).hexdigest(),
        "examples": rows.hexdigest(),
        "batch": predictor.batch,
    }


@contextlib.contextmanager
def growing(output, belongs, batch):
    """The file <output>.part, open behind its last whole batch, and the rows that those have; in
    the end it is `output`.

    What it belongs to lies beside it as <output>.part.json while it grows.

    Raises:
      ValueError: it belongs to something else, or another process writes it.
    """
    part, mark = (output.with_name(output.name + end) for end in (".part", ".part.json"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process writes {part}; wait for it, or give another --output"
            ) from None
        if file.tell() and (not mark.exists() or run_files.read_json(mark) != belongs):
            raise ValueError(
                f"{part} belongs to another run, list of examples or --batch; finish that command, or remove it"
            )
        run_files.write_json(mark, belongs)
        place, rows = whole(file, batch, output.suffix.lower() == ".csv")
        file.truncate(place)
        yield file, rows
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, output)  # while it is locked: who waits for it finds no mark
        mark.unlink()


def whole(file, batch, table):
    """(bytes, rows) of the whole batches at the beginning of a file, whose last row a kill may have
    cut."""
    file.seek(0)
    at = place = rows = quotes = 0
    found = -1 if table else 0  # the header is no row
    for line in file:
        at += len(line)
        quotes += (
            line.count(b'"') if table else 0
        )  # a line break between quotes belongs to a name; in JSON there is none
        if line.endswith(b"\n") and quotes % 2 == 0:
            found += 1
            if found and found % batch == 0:
                place, rows = at, found
    return place, rows


def csv_rows(prediction, names, ranks, header):
    """The rows as CSV text, under a header line or without; see `predict_run`."""
    columns = {"path": names, **_texts("value", prediction.value)}
    if ranks:
        columns["rank"] = ["" if rank < 0 else rank for rank in prediction.rank.tolist()]
        columns["rank_name"] = prediction.rank_name
    titled = list(columns.items())
    if prediction.probabilities is not None:
        titled += zip(
            (f"probability_{name}" for name in ranks.names),
            map(_text, prediction.probabilities.T),
            strict=True,
        )
    if prediction.neighbours is not None:
        for place in range(prediction.neighbours.shape[1]):
            titled += _texts(f"neighbour_{place + 1}", prediction.neighbours[:, place]).items()
    spread = prediction.uncertainty
    titled.append(("uncertainty", [""] * len(names) if spread is None else _text(spread)))
    for rule, values in prediction.others.items():
        titled += _texts(f"rule_{rule}", values).items()
    titled.append(("error", prediction.error))
    text = io.StringIO()
    writer = csv.writer(text)  # its lines end in \r\n, so that it quotes names with either
    if header:
        writer.writerow([title for title, _ in titled])
    writer.writerows(zip(*(values for _, values in titled), strict=True))
    return text.getvalue()


def json_rows(prediction, names, ranks, header):
    """The rows as JSON text, one a line; see `predict_run`."""
    lines = []
    for row, (name, error) in enumerate(zip(names, prediction.error, strict=True)):

        def of(array, row=row, bad=bool(error)):
            return None if array is None or bad else _rounded(array[row])

        rank = None if error or not ranks else int(prediction.rank[row])
        lines.append(
            {
                "path": name,
                "value": of(prediction.value),
                "rank": rank,
                "rank_name": None if rank is None else ranks.names[rank],
                "probabilities": of(prediction.probabilities),
                "neighbours": of(prediction.neighbours),
                "uncertainty": of(prediction.uncertainty),
                "others": {rule: of(values) for rule, values in prediction.others.items()},
                "error": error,
            }
        )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _rounded(array):
    return [_rounded(part) for part in array] if array.ndim else float(f"{array:.6g}")


def _text(array):
    return ["" if math.isnan(number) else f"{number:.6g}" for number in array.tolist()]


def _texts(title, array):
    """{title: texts}; of several numbers a row each has its own column, title_0, title_1."""
    return (
        {title: _text(array)}
        if array.ndim == 1
        else {f"{title}_{i}": _text(part) for i, part in enumerate(array.T)}
    )
