"""Signals that stop a run: at once where nothing is unsaved, else after the next save."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

# Exit code of a stopped run: EX_TEMPFAIL of sysexits.h, the same command resumes it later.
STOPPED = 75
# Seconds until a process with nothing unsaved exits, even in the middle of a compilation.
PATIENCE = 3.0


class Stopped(SystemExit):
    """A signal stopped the run; exits with the code STOPPED."""

    def __init__(self, where=""):
        super().__init__(STOPPED)
        self.where = where


class Stop:
    """Handles SIGTERM, SIGUSR1 and SIGINT while a run is under way.

        with Stop() as stop:
            prepare                         # a signal raises Stopped here
            for step in range(n):
                update
                stop.unsaved = True         # from here on a signal is only noted
                if stop:
                    save
                    raise Stopped(f"at step {step}")
                with stop.at_once(save):
                    evaluate                # a signal raises Stopped again
            save
            stop.saved()

    If nothing is unsaved, exits within PATIENCE seconds of a signal, even inside a blocking call;
    inside `at_once` another thread calls `save` first. `name` is that of the first signal, ""
    before one came, and the object is true after it. A second SIGINT has its former effect. Outside
    the main thread, which signals do not reach, nothing happens.

    Of several processes none may leave `alone`: jax watches SIGTERM, the other two signals become
    SIGTERM, nothing is raised, and all leave at the same step (jaxord.runtime.hosts.stopping).
    """

    def __init__(self, alone=True):
        self.name = ""
        self.unsaved = False
        self._alone = alone
        self._old = {}  # signal -> the handler before
        self._raises = False  # whether a signal raises Stopped although something is unsaved
        self._save = None
        self._turn = threading.Lock()

    def __bool__(self):
        return bool(self.name)

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGUSR1, signal.SIGINT, *([signal.SIGTERM] * self._alone)]
            for number in numbers:
                self._old[number] = signal.signal(number, self._note)
            if self._alone:
                # Python calls a handler once the running call returns; the byte arrives at once,
                # even during a compilation.
                self._receiver, self._sender = socket.socketpair()
                self._sender.setblocking(False)
                descriptor = self._sender.fileno()
                self._before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
                threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind, error, trace):
        for number, old in self._old.items():
            signal.signal(number, old)
        if self._old and self._alone:
            signal.set_wakeup_fd(self._before)
            self._sender.close()
        self.unsaved = True  # later signals are not the run's: the watching thread must not exit
        if isinstance(error, Stopped):
            self._tell(error.where)

    @contextlib.contextmanager
    def at_once(self, save):
        """A block that a signal ends by Stopped although something is unsaved; the caller saves it.

        In a long call another thread calls `save`, so the block must not change what that writes.
        """
        if self._alone:
            self._raises, self._save = True, save
        try:
            if self.name and self._raises:
                raise Stopped
            yield
        finally:
            self._raises = False
            with self._turn:  # a thread that is saving goes on to end the process
                self._save = None

    def saved(self):
        """Declares that nothing is unsaved any more; raises Stopped if a signal was noted."""
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
        """In a thread: exits PATIENCE seconds after a signal if the main thread has not."""
        while received := self._receiver.recv(1):
            if received[0] in self._old:
                time.sleep(PATIENCE)  # for the handler, and for threads that Stopped waits for
                with self._turn:
                    self._leave(signal.Signals(received[0]).name)

    def _leave(self, name):
        if self.unsaved and self._save:
            self._save()
            self.unsaved = False
        if not self.unsaved:
            self.name = self.name or name
            self._tell("")
            os._exit(STOPPED)

    def _tell(self, where):
        cause = self.name or "a signal"  # the signal may have come to another process
        place = f" {where}" if where else ""
        text = f"stopped by {cause}{place}; the same command goes on from there"
        print(text, file=sys.stderr, flush=True)
