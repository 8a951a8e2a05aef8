"""What a run tells: metrics.jsonl and TensorBoard events in the workdir, a progress line on stderr, tables of results.

Nothing here touches a device: values are Python numbers, and the caller decides when to fetch them.
"""

import json
import os
import pathlib
import sys
import time

EVERY = {True: 0.2, False: 10.0}  # seconds between two progress lines: on a terminal, elsewhere


class Log:
    """The log of one training run.

        with Log(workdir, restored=120, total=5000, batch=32) as log:
            log.scalars(140, "train", dict(loss=1.25))
            log.progress(140, "loss 1.25")

    metrics.jsonl has a line for each call of `scalars`, {"step": 140, "split": "train", "loss": 1.25}, and no clock:
    the file of a resumed run is that of an uninterrupted one, byte for byte, if a step is logged before it is saved.
    """

    def __init__(self, workdir, *, restored, total, batch, stream=None):
        """Opens the log.

        Args:
          workdir: where metrics.jsonl and tensorboard/ are; made if need be.
          restored: the step training goes on from: what was logged after it is dropped. -1 starts again: all is.
          total: steps of the training, for the progress line.
          batch: examples of a step, for the progress line.
          stream: of the progress line; stderr by default.

        Raises:
          ValueError: a line of metrics.jsonl that is not JSON; the last one may be, a kill cuts it.
        """
        from tensorboardX import SummaryWriter  # here, because it takes a second

        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        _drop(folder / "metrics.jsonl", restored)
        self._file = open(folder / "metrics.jsonl", "a")
        # Older event files stay, and TensorBoard hides what they say from purge_step on. The suffix keeps a file of the
        # same second from being overwritten.
        first = restored + 1
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first, filename_suffix=f".{first}")
        self._total, self._batch, self._stream = total, batch, stream or sys.stderr
        self._line = False  # an unfinished progress line is on the terminal
        self._then, self._step, self._rate = time.monotonic(), max(restored, 0), 0.0  # of the last progress line

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the progress line and closes the files."""
        self._end_line()
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
                raise ValueError(f"{split}/{name} at step {step} is a {kind}, expected a Python number: fetch it first")
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def progress(self, step, note=""):
        """Shows the step, img/s and the time left, at most 5 times a second on a terminal and every 10 s elsewhere.

        img/s is over the time since the last line, averaged with the lines before it; waiting for evaluations counts.
        """
        now, terminal = time.monotonic(), self._stream.isatty()
        if step <= self._step or (now - self._then < EVERY[terminal] and step < self._total):
            return
        rate = (step - self._step) / max(now - self._then, 1e-9)
        # The weight of the old lines falls by half in 10 s, however often there is one.
        keep = 0.5 ** ((now - self._then) / 10) if self._rate else 0.0
        self._then, self._step, self._rate = now, step, keep * self._rate + (1 - keep) * rate
        left = max(self._total - step, 0) / self._rate
        share, speed = f"{100 * step // self._total:3d} %", f"{self._rate * self._batch:.1f} img/s"
        text = f"{share}  step {step}/{self._total}  {speed}  {duration(left)} left  {note}".rstrip()
        self._stream.write(f"\r\033[K{text}" if terminal else text + "\n")
        self._stream.flush()
        self._line = terminal

    def message(self, text):
        """A line of its own on the progress stream."""
        self._end_line()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _end_line(self):
        if self._line:
            self._stream.write("\n")
            self._stream.flush()
        self._line = False


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
                raise ValueError(f"{found}, expected a JSON object with a step; remove the line") from None
            continue
        if step <= restored:
            kept.append(line + "\n")
    temporary = path.with_name(".metrics.jsonl")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def duration(seconds):
    """'42 s', '3:05 min', '2:07 h' or '3.1 days'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    if seconds < 86400:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"
    return f"{seconds / 86400:.1f} days"


def table(rows, columns):
    """A plain text table.

    Args:
      rows: mappings of column -> text, int or float; a missing entry prints "-". Floats get four significant digits.
      columns: names, in order.

    Returns:
      Lines of equal columns, two blanks apart; columns that hold numbers are right-aligned.
    """
    cells = [[_cell(row.get(column, "-")) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]

    def line(texts):
        aligned = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(columns), line("-" * width for width in widths), *map(line, cells)])


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
