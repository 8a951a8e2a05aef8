"""The journal of an experiment: what happened to its runs, a JSON object a line, for people and for
the sweep that goes on.

    {"time": "2031-05-01T12:00:00.250", "event": "started", "run": "hci-coop-seed=0", "attempt": 1,
    "place": "gpu 0", ...}

begun       a sweep, with its command and the number of its places; attempts are counted from here
made        the config.json of a run, from these arguments and from config files of this digest
started     its process, or its job on a cluster; where, and which attempt of this sweep it is
found       a process that an earlier sweep has started and that goes on
ended       the process: its code (negative: the signal), seconds since this sweep has it
done, pruned, retried, given up, stopped    what followed from that
"""

import datetime
import json


def mend(file):
    """Removes a last line that a kill has cut."""
    text = file.read_bytes() if file.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        file.write_bytes(whole)


def last_begun(file):
    """The last sweep of a journal that a sweep may be writing; {} where there is none."""
    lines = (
        file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() if file.exists() else []
    )
    return next((json.loads(line) for line in reversed(lines) if '"event": "begun"' in line), {})


class Journal:
    """The events of an experiment so far; `write` adds one, on disk when it returns. One sweep at a
    time has it."""

    def __init__(self, file):
        mend(file)
        self._file = open(file, "a+", encoding="utf-8")
        self._file.seek(0)
        self._events = {}
        for number, line in enumerate(self._file, 1):
            try:
                self._keep(json.loads(line))
            except (ValueError, AttributeError):
                found = f"{file}:{number} is {line[:80]!r}"
                raise ValueError(f"{found}, expected a JSON object; remove the line") from None

    def _keep(self, line):
        self._events.setdefault(line.get("run", ""), []).append(line)

    def write(self, event, run="", **more):
        """Adds an event of a run, "" of the sweep, with what there is to say of it."""
        time = datetime.datetime.now().isoformat(timespec="milliseconds")
        line = {"time": time, "event": event, **({"run": run} if run else {}), **more}
        self._keep(line)
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def last(self, run, *events):
        """The last of these events of a run; {} where there is none."""
        return next(
            (line for line in reversed(self._events.get(run, [])) if line["event"] in events), {}
        )
