"""The log of a training: metrics.jsonl, TensorBoard, the progress bar; and plain text tables."""

import contextlib
import json
import math
import os
import pathlib
import sys

import tqdm

from jaxord.runtime import hosts
from jaxord.workdir.files import json_value, replacing


class Log(contextlib.AbstractContextManager):
    """The log of one training; of several processes, only process 0 writes it.

        with Log(workdir, restored=120, total=5000, batch=32) as log:
            log.scalars(140, "train", dict(loss=1.25))
            log.progress(140, "loss 1.25")

    A call of `scalars` is a line of metrics.jsonl, {"step": 140, "split": "train", "loss": 1.25}.
    It has no clock: if a step is logged before it is saved, a resumed run leaves the same bytes as
    an uninterrupted one. A number that is not finite is null there, and absent from TensorBoard.

    Args:
      workdir: folder of metrics.jsonl and tensorboard/; created if needed.
      restored: the step that training resumes from; drops all lines after it. -1 drops all.
      total, batch: steps of the training and examples of a step, for the bar.
      bar: whether to show the bar.
    """

    def __init__(self, workdir, *, restored, total, batch, bar=True):
        from tensorboardX import SummaryWriter  # here, because it takes a second

        folder, writes = pathlib.Path(workdir), hosts.is_first()
        folder.mkdir(parents=True, exist_ok=True)
        hosts.first(_drop)(folder / "metrics.jsonl", restored)
        self._file = open(folder / "metrics.jsonl" if writes else os.devnull, "a")
        # TensorBoard hides the points of older event files from purge_step on. The suffix keeps a
        # file of the same second from being overwritten.
        self._board = SummaryWriter(
            str(folder / "tensorboard"),
            purge_step=restored + 1,
            filename_suffix=f".{restored + 1}",
            write_to_disk=writes,
        )
        self._bar = tqdm.tqdm(
            disable=not (writes and bar),
            initial=max(restored, 0),
            total=total,
            unit="img",
            unit_scale=batch,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,  # seconds: few lines in a file
        )

    def __exit__(self, *error):
        self._bar.close()
        self._file.close()
        self._board.close()

    def scalars(self, step, split, values):
        """Logs {name: number} of a step under the prefix `split`, such as "train" or "val".

        ValueError for an array: the caller decides when to fetch it from a device.
        """
        for name, value in values.items():
            if not isinstance(value, (int, float)):
                place = f"{split}/{name} at step {step}"
                kind = type(value).__name__
                raise ValueError(f"{place} is a {kind}, expected a Python number: fetch it first")
        line = {"step": step, "split": split, **values}
        self._file.write(json.dumps(json_value(line), allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(f"{split}/{name}", value, step)

    def progress(self, step, note=""):
        """Moves the bar to a step; it shows img/s and the time left."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(step - self._bar.n)


def _drop(path, restored):
    """Removes the lines of later steps, and a last line that a kill has cut; others must parse."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] <= restored:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                rule = "expected a JSON object with a step; remove the line"
                raise ValueError(f"{path}:{number} is {line[:80]!r}, {rule}") from None
    with replacing(path) as file:
        file.writelines(kept)


def table(rows, columns):
    """A plain text table, columns two blanks apart and those with numbers right-aligned.

    `rows` are mappings of column -> text, int or float; missing ones and nan print "-", floats four
    significant digits.
    """
    cells = [[_cell(row.get(column, "-")) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]

    def line(texts):
        sides = [str.rjust if is_right else str.ljust for is_right in right]
        aligned = (side(t, w) for side, t, w in zip(sides, texts, widths, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(columns), line("-" * width for width in widths), *map(line, cells)])


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
