"""How a sweep tells its state, and the ends of the logs of its runs."""

import datetime
import shutil
import sys
import time

TELL = 60.0  # seconds between two states in a file
TAIL = 12  # lines of a log that are shown


class Screen:
    """What the sweep says, and below it the state of all runs: drawn again on a terminal, now and
    then a line in a file."""

    def __init__(self):
        self.drawn, self.told, self.is_terminal = 0, time.monotonic(), sys.stdout.isatty()

    def _wipe(self):
        if self.drawn:
            print(f"\x1b[{self.drawn}A\x1b[J", end="")
        self.drawn = 0

    def say(self, text):
        """A line that stays; "" only takes the state away."""
        self._wipe()
        print(text, end="\n" if text else "", flush=True)

    def show(self, lines):
        """The state, its first line the one of all runs."""
        if self.is_terminal:
            size = shutil.get_terminal_size()
            self._wipe()
            shown = lines[: size.lines - 1]
            print("\n".join(line[: size.columns - 1] for line in shown), flush=True)
            self.drawn = len(shown)
        elif time.monotonic() - self.told > TELL:
            self.told = time.monotonic()
            print("\n".join(lines), flush=True)


def last_words(file):
    """The end of a log, of a progress bar its last state."""
    if not file.exists():
        return "not begun yet"
    with open(file, "rb") as log:
        log.seek(max(0, file.stat().st_size - 2000))
        lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def tail(file):
    """The last lines of a log, of a progress bar its last state."""
    lines = (
        file.read_text(errors="replace").splitlines()
        if file.exists()
        else ["nothing: it was never begun"]
    )
    return "\n".join("  " + line.rpartition("\r")[2] for line in lines[-TAIL:])


def clock(seconds):
    """0:01:05"""
    return str(datetime.timedelta(seconds=round(seconds)))
