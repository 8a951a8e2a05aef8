"""The journal of an experiment: a JSON object per event, for people and to resume a sweep from.

    {"time": "2031-05-01T12:00:00.250", "event": "started", "run": "hci-coop-seed=0", "attempt": 1,
    "place": "gpu 0", ...}

begun       a sweep, with its command and number of places; attempts are counted from here
made        the config.json of a run, from these arguments and config files of this digest
started     a process or job, with its place and the attempt of this sweep
found       a process that an earlier sweep started and that still runs
ended       a process, with its code (negative: the signal) and its seconds under this sweep
done, pruned, retried, given up, stopped    what the sweep then did with the run
"""

import datetime
import json


def mend(file):
    """Removes a last line that a kill has cut."""
    text = file.read_bytes() if file.exists() else b""
    complete = text[: text.rfind(b"\n") + 1]
    if complete != text:
        file.write_bytes(complete)


def last_begun(file):
    """The event of the last sweep in a journal that may be being written; {} if it has none."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = text.rpartition("\n")[0].splitlines()
    return next((json.loads(line) for line in reversed(lines) if '"event": "begun"' in line), {})


class Journal:
    """The events of an experiment so far, for one sweep at a time."""

    def __init__(self, file):
        mend(file)
        self._file = open(file, "a+", encoding="utf-8")
        self._file.seek(0)
        self._events = {}
        for number, line in enumerate(self._file, 1):
            try:
                self._keep(json.loads(line))
            except (ValueError, AttributeError):
                fault = f"{file}:{number} is {line[:80]!r}"
                raise ValueError(f"{fault}, expected a JSON object; remove the line") from None

    def _keep(self, event):
        self._events.setdefault(event.get("run", ""), []).append(event)

    def write(self, event, run="", **details):
        """Adds an event of a run, or "" of the sweep; the file has it when this returns."""
        time = datetime.datetime.now().isoformat(timespec="milliseconds")
        line = {"time": time, "event": event, **({"run": run} if run else {}), **details}
        self._keep(line)
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def last(self, run, *events):
        """The last of these events of a run; {} if it has none."""
        known = reversed(self._events.get(run, []))
        return next((line for line in known if line["event"] in events), {})
