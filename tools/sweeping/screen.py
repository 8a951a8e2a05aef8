"""The state of a sweep on a terminal or in a file, and the ends of its runs' logs."""

import datetime
import shutil
import sys
import time

PERIOD = 60.0  # seconds between two states in a file
END = 20_000  # bytes of a log that are read


class Screen:
    """Lines that stay, and below them the state: redrawn on a terminal, repeated in a file."""

    def __init__(self):
        self.drawn = 0
        self.shown_at = time.monotonic()
        self.is_terminal = sys.stdout.isatty()

    def _wipe(self):
        if self.drawn:
            print(f"\x1b[{self.drawn}A\x1b[J", end="")
        self.drawn = 0

    def say(self, text):
        """Prints a line that stays; "" only removes the state."""
        self._wipe()
        print(text, end="\n" if text else "", flush=True)

    def show(self, lines):
        """Shows the state: the line of all runs first."""
        if self.is_terminal:
            size = shutil.get_terminal_size()
            self._wipe()
            fitting = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
            print("\n".join(fitting), flush=True)
            self.drawn = len(fitting)
        elif time.monotonic() - self.shown_at > PERIOD:
            self.shown_at = time.monotonic()
            print("\n".join(lines), flush=True)


def last_lines(file, count):
    """The last lines of a log that are not blank; of a progress bar its last state."""
    if not file.exists():
        return ["not begun yet"]
    with open(file, "rb") as log:
        log.seek(max(0, file.stat().st_size - END))
        lines = log.read().decode(errors="replace").split("\n")
    states = [line.strip("\r").rpartition("\r")[2].rstrip() for line in lines]
    return [state for state in states if state][-count:]


def clock(seconds):
    """Seconds as 0:01:05."""
    return str(datetime.timedelta(seconds=round(seconds)))
