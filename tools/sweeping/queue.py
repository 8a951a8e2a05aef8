"""The runs of an experiment on their way: waiting, begun, then done, pruned or given up."""

import collections
import os
import shlex
import sys
import time

from jaxord.runtime import signals
from jaxord.workdir import layout
from tools.sweeping import launch
from tools.sweeping.plan import is_done, settle
from tools.sweeping.screen import Screen, clock, last_lines

COMMAND = (sys.executable, "-m", "jaxord.main")
ATTEMPTS = 3
LOOK = 0.1  # seconds between two looks at the processes
DRAW = 1.0  # seconds between two looks at their logs

# A run in progress: its process, its place, and since when this sweep has it.
Begun = collections.namedtuple("Begun", "run process place since")


class Queue:
    """Starts the runs in an experiment's folder, follows their processes, repeats what fails.

    `command` starts a run when --workdir and --config_json are added.
    """

    def __init__(self, folder, launcher, journal, command=COMMAND, search=None):
        self.folder = folder
        self.launcher = launcher
        self.journal = journal
        self.command = command
        self.search = search
        self.waiting, self.begun, self.failed = [], [], []
        self.stopping = set()  # trials that the search finds bad
        self.configs = {}
        self.attempts = collections.Counter()
        self.done, self.pruned = search.closed() if search else (0, 0)
        self.total = search.total if search else 0
        self.spent = []  # seconds of each process that has ended
        self.since = time.monotonic()
        self.screen = Screen()

    def log(self, run):
        return self.folder / f"{run.name}.log"

    def _is_done(self, run):
        return is_done(run, self.folder / run.name, self.configs[run])

    def _is_bad(self, run):
        folder = self.folder / run.name
        return bool(self.search) and self.search.is_bad(run, folder, self.configs[run])

    def _is_held(self, run):
        """Whether a process that this sweep did not start holds the run's folder or log."""
        try:
            with layout.locked(self.folder / run.name):
                return launch.is_held(self.log(run))
        except ValueError:
            return True

    def take(self, run):
        """Sorts a run in by its folder and journal: running, done, pruned or waiting."""
        self.configs[run] = settle(run, self.folder / run.name, self.journal)
        last = self.journal.last(run.name, "started", "found", "ended", "stopped")
        process = None
        if last.get("event") in ("started", "found"):  # nobody has seen its end
            process = self.launcher.find(last["process"], last["place"], self.log(run))
        if process:
            self.journal.write("found", run.name, place=last["place"], process=process.pid)
            self.begun.append(Begun(run, process, last["place"], time.monotonic()))
        elif self._is_done(run):
            known = self.journal.last(run.name, "done", "made", "started").get("event")
            self._close(run, "done", is_new=known != "done")
        elif self._is_bad(run):
            self._close(run, "pruned")
        else:
            self.waiting.append(run)

    def _close(self, run, event, is_new=True):
        """Counts a run as "done" or "pruned", and tells the journal and the search."""
        if is_new:
            self.journal.write(event, run.name)
        self.done += event == "done"
        self.pruned += event == "pruned"
        if self.search:
            is_pruned = event == "pruned"
            self.search.tell(run, self.folder / run.name, self.configs[run], is_pruned)

    def next(self):
        """The run to start now; None without one."""
        while True:
            run = next((run for run in self.waiting if not self._is_held(run)), None)
            if run:
                self.waiting.remove(run)
                if not self._is_done(run):
                    return run
                self._close(run, "done")  # another process has finished it
            elif trial := self.search and self.search.ask():
                self.take(trial)
            else:
                return None

    def dispatch(self):
        """Starts waiting runs at free places."""
        busy = collections.Counter(begun.place for begun in self.begun)
        free = collections.Counter(self.launcher.places) - busy
        # Seeds are constants of the compiled step, so the cache serves mainly resumed runs: it
        # saves 16 of their 39 s of CPU.
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.folder / ".cache"))
        environment = {"JAX_COMPILATION_CACHE_DIR": cache}
        while free and (run := self.next()):
            place = max(free, key=free.get)
            free -= collections.Counter([place])
            self.attempts[run] += 1
            process = self.launcher.start(self._command(run), self.log(run), place, environment)
            facts = {"attempt": self.attempts[run], "place": place, "process": process.pid}
            self.journal.write("started", run.name, **facts)
            self.begun.append(Begun(run, process, place, time.monotonic()))

    def _command(self, run):
        workdir = self.folder / run.name
        places = [f"--workdir={workdir}"]
        if run.of:
            trained = self.folder / run.of
            places = ["--mode=evaluate", f"--workdir={trained}", f"--output={workdir}"]
        return [*self.command, *places, f"--config_json={workdir / 'config.json'}"]

    def collect(self):
        """Takes back the runs whose processes have ended."""
        for begun in list(self.begun):
            code = begun.process.poll()
            if code is not None:
                self.begun.remove(begun)
                self._end(begun, code)

    def _end(self, begun, code):
        """Decides about a run whose process has ended: done, pruned, tried again or given up."""
        run = begun.run
        seconds = time.monotonic() - begun.since
        self.spent.append(seconds)
        self.journal.write("ended", run.name, code=code, seconds=round(seconds, 1))
        failure = f" FAILED ({code or '0, without DONE.json'}),"
        outcome = ""
        if self._is_done(run):
            self._close(run, "done")
        elif run in self.stopping:
            self._close(run, "pruned")
            outcome = " pruned,"
        elif code == signals.STOPPED:  # somebody else stopped it, so this attempt has not failed
            self.attempts[run] -= 1
            self.waiting.append(run)
            outcome = " stopped, goes on,"
        elif self.attempts[run] < ATTEMPTS:
            self.journal.write("retried", run.name)
            self.waiting.append(run)
            outcome = f"{failure} is tried again,"
        else:
            self.journal.write("given up", run.name)
            self.failed.append(run)
            outcome = f"{failure} given up after {ATTEMPTS} attempts,"
        count = f"{self.done}/{self.total}"
        self.screen.say(f"{count} {run.name}:{outcome} {seconds:.0f} s; {self._times()}")

    def prune(self):
        """Stops the trials that the search finds bad."""
        for begun in self.begun:
            if begun.run not in self.stopping and self._is_bad(begun.run):
                self.stopping.add(begun.run)
                begun.process.terminate()

    def _times(self):
        gone = f"{clock(time.monotonic() - self.since)} gone"
        if not self.spent:
            return gone
        left = self.total - self.done - self.pruned - len(self.failed)
        seconds = sum(self.spent) / len(self.spent) * left / len(self.launcher.places)
        return f"{gone}, {clock(seconds)} to go"

    def lines(self):
        """The state: a line for all runs, and one for each in progress with its last words."""
        counts = {"pruned": self.pruned, "given up": len(self.failed), "running": len(self.begun)}
        others = "".join(f", {count} {name}" for name, count in counts.items() if count)
        lines = [f"{self.done} of {self.total} runs are done{others}; {self._times()}"]
        for begun in self.begun:
            words = "".join(last_lines(self.log(begun.run), 1)).strip()
            lines.append(f"  {begun.run.name} ({begun.place}): {words}")
        return lines

    def run(self, runs):
        """Runs what is not done of [Run]; returns those given up.

        With a search they are its open trials. On any exception the processes get SIGTERM.
        """
        self.total = self.total or len(runs)
        facts = {"runs": self.total, "places": len(self.launcher.places)}
        self.journal.write("begun", command=shlex.join(sys.orig_argv), **facts)
        try:
            for run in runs:
                self.take(run)
            self.screen.say(f"{self.folder}: {self.done} of {self.total} runs are done")
            drawn_at = 0.0
            while True:
                self.collect()
                self.dispatch()
                if not self.waiting and not self.begun:
                    return self.failed
                if time.monotonic() - drawn_at > DRAW:
                    drawn_at = time.monotonic()
                    self.prune()
                    self.screen.show(self.lines())
                time.sleep(LOOK)
        finally:
            # The processes have sessions of their own, so a signal to the sweep reaches none.
            self.screen.say("")
            launch.stop([begun.process for begun in self.begun])
            for begun in self.begun:
                self.journal.write("stopped", begun.run.name, code=begun.process.poll())
