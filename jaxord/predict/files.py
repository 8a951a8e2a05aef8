"""Predictions for a folder, a list or a table as rows of a file, which a killed command resumes."""

import contextlib
import csv
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
from jaxord.workdir import files, layout, run_config

# Seconds between two syncs to disk.
PERIOD = 5.0
# Names that are no UTF-8 keep their bytes in CSV, and become escapes in JSON.
ERRORS = {".csv": "surrogateescape", ".jsonl": "backslashreplace"}


def predict_run(workdir, source, output, fold="", batch=0, root=""):
    """Write a row for each example, and print how many and how fast.

    CSV: path, value (value_0, value_1 for angles), rank, rank_name, `probability_<name>` of each
    rank if the model gives logits, neighbour_1... (labels, nearest first) if the headline rule is
    knn, uncertainty, `rule_<name>` of each further rule, error. JSON lines: `path` and the fields
    of `Prediction`. An unreadable example has an empty row (null) with the reason as its `error`.

    Whole batches are appended to `<output>.part`, which is renamed at the end. After a kill the
    same command resumes behind the last whole batch and ends with the same bytes.

    Args:
      workdir: of a finished run.
      source, root: images or videos as `jaxord.data.inputs.files` finds them; a table of pairs of
        sentences.
      output: file that ends in .csv or .jsonl; an older one is replaced.
      fold: required if the run has several.
      batch: examples read and written at once, 0 for config.data.eval_batch.

    Raises:
      ValueError: there is no finished run or no example, the output has another ending, or its
        .part belongs to another command or is in use.
    """
    output = pathlib.Path(output)
    kind = output.suffix.lower()
    if kind not in ERRORS or output.is_dir():
        raise ValueError(f"the output is {str(output)!r}; expected a file ending in .csv or .jsonl")
    if (count := jax.process_count()) > 1:
        raise ValueError(
            f"predicting takes one process, found {count}; divide the examples instead"
        )
    predictor = Predictor.load(workdir, fold, batch)
    names, examples = predictor.given.listed(source, root)
    noun, ranks = predictor.given.noun, predictor.run.ranks
    rows_of = {".csv": csv_rows, ".jsonl": json_rows}[kind]
    command = fingerprint(predictor, names, examples)
    with resumed_file(output, command, predictor.batch) as (file, done):
        start = synced = time.monotonic()
        # When the first batch was done and how many rows there were: the first one compiles.
        compiled = None
        at, broken = done, 0
        with tqdm.tqdm(total=len(names), initial=done, unit=f" {noun}", dynamic_ncols=True) as bar:
            for prediction in predictor.stream(examples, done):
                end = at + len(prediction.error)
                text = rows_of(prediction, names[at:end], ranks, header=at == 0)
                file.write(text.encode("utf-8", ERRORS[kind]))
                file.flush()
                if time.monotonic() - synced > PERIOD:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
                bar.update(end - at)
                at, broken = end, broken + int((prediction.error != "").sum())
                compiled = compiled or (time.monotonic(), at)
    now = time.monotonic()
    before = f" after {done:,} of an earlier command" if done else ""
    speed = ""
    if compiled and at > compiled[1]:
        speed = f", {(at - compiled[1]) / (now - compiled[0]):.0f} a second once compiled"
    summary = f"{at - done:,} {noun}{before} in {now - start:.1f} s{speed}"
    print(f"{summary}; {broken:,} could not be read: {output}")


def fingerprint(predictor, names, examples):
    """What a half-written file belongs to: the parameters, the examples, the batch."""
    folder = predictor.run.folder
    checkpoint = folder / "checkpoints" / str(layout.read_done(folder)["step"]) / "sha256.json"
    run = run_config.to_json(predictor.run.config).encode() + checkpoint.read_bytes()
    rows = hashlib.sha256()
    for row in zip(names, examples, strict=True):
        rows.update(json.dumps(row).encode())
    hashes = {"run": hashlib.sha256(run).hexdigest(), "examples": rows.hexdigest()}
    return {**hashes, "batch": predictor.batch}


@contextlib.contextmanager
def resumed_file(output, command, batch):
    """Open <output>.part behind its last whole batch and yield (file, number of rows).

    On success it becomes `output`. Meanwhile <output>.part.json holds `command`, and a lock file
    keeps other processes away.
    """
    endings = (".part", ".part.json", ".part.lock")
    part, mark, lock = (output.with_name(output.name + ending) for ending in endings)
    output.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process writes {part}; wait for it, or give another --output"
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.lock(lock, busy))
        # Removed while it is held, so no other process holds the file that goes.
        stack.callback(lock.unlink, missing_ok=True)
        file = stack.enter_context(open(part, "a+b"))
        if file.tell() and (not mark.exists() or files.read_json(mark) != command):
            raise ValueError(
                f"{part} belongs to another run, list of examples or --batch; finish that command, "
                "or remove it"
            )
        files.write_json(mark, command)
        place, rows = end_of_whole_batches(file, batch, output.suffix.lower() == ".csv")
        file.truncate(place)
        yield file, rows
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, output)
        mark.unlink()


def end_of_whole_batches(file, batch, table):
    """(bytes, rows) of the whole batches in a file, whose last row a kill may have cut."""
    # The header of a table is no row, and quoted names may hold line breaks.
    file.seek(0)
    at = place = whole_rows = quotes = 0
    rows = -1 if table else 0
    for line in file:
        at += len(line)
        quotes += line.count(b'"') if table else 0
        if line.endswith(b"\n") and quotes % 2 == 0:
            rows += 1
            if rows and rows % batch == 0:
                place, whole_rows = at, rows
    return place, whole_rows


def csv_rows(prediction, names, ranks, header):
    """The rows as CSV text, with or without a header line; see `predict_run`."""
    columns = [("path", names), *_columns("value", prediction.value)]
    if ranks:
        indices = ["" if rank < 0 else rank for rank in prediction.rank.tolist()]
        columns += [("rank", indices), ("rank_name", prediction.rank_name)]
    if prediction.probabilities is not None:
        for name, column in zip(ranks.names, prediction.probabilities.T, strict=True):
            columns += _columns(f"probability_{name}", column)
    if prediction.neighbours is not None:
        for place in range(prediction.neighbours.shape[1]):
            columns += _columns(f"neighbour_{place + 1}", prediction.neighbours[:, place])
    if prediction.uncertainty is None:
        columns.append(("uncertainty", [""] * len(names)))
    else:
        columns += _columns("uncertainty", prediction.uncertainty)
    for rule, values in prediction.others.items():
        columns += _columns(f"rule_{rule}", values)
    columns.append(("error", prediction.error))
    text = io.StringIO()
    # Its lines end in \r\n, so it quotes names that hold either character.
    writer = csv.writer(text)
    if header:
        writer.writerow([title for title, _ in columns])
    writer.writerows(zip(*(values for _, values in columns), strict=True))
    return text.getvalue()


def json_rows(prediction, names, ranks, header):
    """The rows as JSON text, one a line; see `predict_run`."""
    lines = []
    for row, (name, error) in enumerate(zip(names, prediction.error, strict=True)):

        def number(array, row=row, broken=bool(error)):
            return None if array is None or broken else _rounded(array[row])

        rank = None if error or not ranks else int(prediction.rank[row])
        line = {"path": name, "value": number(prediction.value), "rank": rank}
        line["rank_name"] = None if rank is None else ranks.names[rank]
        for field in ("probabilities", "neighbours", "uncertainty"):
            line[field] = number(getattr(prediction, field))
        line["others"] = {rule: number(values) for rule, values in prediction.others.items()}
        line["error"] = error
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _rounded(array):
    return [_rounded(part) for part in array] if array.ndim else float(f"{array:.6g}")


def _columns(title, array):
    """[(title, texts)] of an array [N]; of an array [N, A] one column per angle, title_0..."""
    if array.ndim == 1:
        return [(title, ["" if math.isnan(x) else f"{x:.6g}" for x in array.tolist()])]
    return [column for i, part in enumerate(array.T) for column in _columns(f"{title}_{i}", part)]
