"""What a run tells: metrics.jsonl and TensorBoard events in the workdir, a progress bar on stderr,
tables of results.

Values are Python numbers, and the caller decides when to fetch them. Of several processes the first
one tells.
"""

import json
import math
import os
import pathlib
import sys

import tqdm

from jaxord.runtime import devices
from jaxord.workdir.files import json_value


class Log:
    """The log of one training run; of several processes, that of the first.

        with Log(workdir, restored=120, total=5000, batch=32) as log:
            log.scalars(140, "train", dict(loss=1.25))
            log.progress(140, "loss 1.25")

    metrics.jsonl has a line for each call of `scalars`, {"step": 140, "split": "train", "loss":
    1.25}, and no clock: the file of a resumed run is that of an uninterrupted one, byte for byte,
    if a step is logged before it is saved. A number that is not finite is null there, and no point
    in TensorBoard.
    """

    def __init__(self, workdir, *, restored, total, batch, bar=True):
        """Opens the log.

        Args:
          workdir: where metrics.jsonl and tensorboard/ are; made if need be.
          restored: the step training goes on from: what was logged after it is dropped. -1 starts
            again: all is.
          total: steps of the training, for the bar.
          batch: examples of a step, for the bar.
          bar: whether there is one.

        Raises:
          ValueError: a line of metrics.jsonl that is not JSON; the last one may be, a kill cuts it.
        """
        from tensorboardX import SummaryWriter  # here, because it takes a second

        folder, writes = pathlib.Path(workdir), devices.is_first()
        folder.mkdir(parents=True, exist_ok=True)
        devices.first(_drop)(folder / "metrics.jsonl", restored)
        self._file = open(folder / "metrics.jsonl" if writes else os.devnull, "a")
        # Older event files stay, and TensorBoard hides what they say from purge_step on. The suffix
        # keeps a file of the same second from being overwritten.
        first = restored + 1
        self._board = SummaryWriter(
            str(folder / "tensorboard"),
            purge_step=first,
            filename_suffix=f".{first}",
            write_to_disk=writes,
        )
        self._bar = tqdm.tqdm(
            disable=not (writes and bar),
            initial=max(restored, 0),
            total=total,
            unit="img",
            unit_scale=batch,
            dynamic_ncols=True,
            mininterval=0.2
            if sys.stderr.isatty()
            else 10.0,  # seconds between two lines; few in a file
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the bar and closes the files."""
        self._bar.close()
        self._file.close()
        self._board.close()

    def scalars(self, step, split, values):
        """Logs the values of a step, on disk when it returns.

        Args:
          step: int.
          split: "train", "val" or another prefix.
          values: name -> Python number.

        Raises:
          ValueError: a value that is no Python number, such as an array that is still on a device.
        """
        for name, value in values.items():
            if not isinstance(value, (int, float)):
                kind = type(value).__name__
                raise ValueError(
                    f"{split}/{name} at step {step} is a {kind}, expected a Python number: fetch it first"
                )
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
    """Removes the lines of later steps, and a last line that a kill has cut."""
    if not path.exists():
        return
    lines, kept = path.read_text().splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                found = f"{path}:{number} is {line[:80]!r}"
                raise ValueError(
                    f"{found}, expected a JSON object with a step; remove the line"
                ) from None
            continue
        if step <= restored:
            kept.append(line + "\n")
    temporary = path.with_name(".metrics.jsonl")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def table(rows, columns):
    """A plain text table.

    Args:
      rows: mappings of column -> text, int or float; a missing one or nan prints "-". Floats get
        four significant digits.
      columns: names, in order.

    Returns:
      Lines of equal columns, two blanks apart; columns that hold numbers are right-aligned.
    """
    cells = [[_cell(row.get(column, "-")) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]

    def line(texts):
        aligned = (
            t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(columns), line("-" * width for width in widths), *map(line, cells)])


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
