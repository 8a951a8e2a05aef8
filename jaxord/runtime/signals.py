"""Signals that ask a run to stop: obeyed at once where nothing would be lost, noted where something
is unsaved."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

# Exit code of a run that was asked to stop: EX_TEMPFAIL of sysexits.h, the same command goes on
# later
STOPPED = 75
PATIENCE = (
    3.0  # seconds until a process with nothing unsaved ends even in the middle of a compilation
)


class Stopped(SystemExit):
    """A signal has ended what was under way; as an exit it has the code STOPPED."""

    def __init__(self, where=""):
        super().__init__(STOPPED)
        self.where = where


class Stop:
    """What SIGTERM, SIGUSR1 and SIGINT do while a run is under way.

        with Stop() as stop:
            prepare                         # a signal raises Stopped here
            for step in range(n):
                update
                stop.unsaved = True         # from here on it is noted
                if stop:
                    save
                    raise Stopped(f"at step {step}")
                with stop.at_once(save):
                    evaluate                # raises Stopped again
            save
            stop.saved()

    While nothing is `unsaved` the process ends PATIENCE seconds after a signal at the latest,
    whatever it is waiting for. So it does in a block that does not hear it, `at_once`, when another
    thread has called the block's `save`.

    Of several processes that are not to leave `alone` jax watches SIGTERM
    (jaxord.runtime.devices.stopping), the other two become it, and nothing is raised: all leave at the
    same step. Outside the main thread, which signals do not reach, nothing happens. A second SIGINT
    does what it did before.

    Args:
      alone: whether this process leaves without the others, or has none.

    Attributes:
      name: of the first signal, "" before one came; with it the object is true.
      unsaved: whether leaving now would lose something.
    """

    def __init__(self, alone=True):
        self.name, self.unsaved = "", False
        self._old, self._raises, self._save, self._turn, self._alone = (
            {},
            False,
            None,
            threading.Lock(),
            alone,
        )

    def __bool__(self):
        return bool(self.name)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (
                signal.SIGUSR1,
                signal.SIGINT,
                *([signal.SIGTERM] if self._alone else []),
            ):
                self._old[number] = signal.signal(number, self._note)
            if self._alone:
                # Python hears of a signal when the call that it is in returns; the byte comes at
                # once, even in a compilation.
                self._ear, self._mouth = socket.socketpair()
                self._mouth.setblocking(False)
                self._before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
                threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind, error, trace):
        for number, old in self._old.items():
            signal.signal(number, old)
        if self._old and self._alone:
            signal.set_wakeup_fd(self._before)
            self._mouth.close()
        self.unsaved = True  # for the watch: what comes now is not the run's
        if isinstance(error, Stopped):
            self._tell(error.where)

    @contextlib.contextmanager
    def at_once(self, save):
        """A block that a signal ends, though something is unsaved: who catches Stopped will save
        it.

        Where the block hears nothing, in one long call, `save()` is called beside it: what that
        saves must not change here.
        """
        if self._alone:
            self._raises, self._save = True, save
        try:
            if self.name and self._raises:
                raise Stopped
            yield
        finally:
            self._raises = False
            with self._turn:  # who saves beside the block ends the process
                self._save = None

    def saved(self):
        """Nothing is unsaved any more; raises Stopped where a signal was noted."""
        self.unsaved = False
        if self.name and self._alone:
            raise Stopped

    def _note(self, number, frame):
        self.name = self.name or signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._old[number])
        if not self._alone:
            signal.raise_signal(signal.SIGTERM)
        elif self._raises or not self.unsaved:
            self._raises = False  # the same signal again must not interrupt the saving
            raise Stopped

    def _watch(self):
        while heard := self._ear.recv(1):
            if heard[0] in self._old:
                time.sleep(
                    PATIENCE
                )  # for Python's handler, and for threads that what it raises may wait for
                with self._turn:
                    if self.unsaved and self._save:
                        self._save()
                        self.unsaved = False
                    if not self.unsaved:
                        self.name = self.name or signal.Signals(heard[0]).name
                        self._tell("")
                        os._exit(STOPPED)

    def _tell(self, where):
        by = self.name or "a signal"  # which another process has seen
        print(
            f"stopped by {by}{where and ' '}{where}; the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
