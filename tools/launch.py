"""Where the processes of runs are: on this machine, one to a slot of a GPU or on CPU cores of its
own, or jobs of SLURM.

`Machine` and `Cluster` have `places`, names with repetition, one for each process that may run at a
time; `start`, the process of a command at a place; and `find`, the one that an earlier sweep has
started there, None where it has ended. A process has `pid`, `poll()`, None as long as it runs and
then its code, and `terminate()`, SIGTERM.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def open_log(file):
    """The log of a run, open for its process, which holds a lock on it for as long as it runs,
    whoever started it."""
    log = open(file, "ab")
    fcntl.flock(log, fcntl.LOCK_EX)
    return log


def held(file):
    """Whether the process of a log runs."""
    if not file.exists():
        return False
    with open(file, "ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop(processes, again=10):
    """Ends processes by SIGTERM, on which they save; one that does not hear it gets it again after
    so many seconds."""
    while processes := [process for process in processes if process.poll() is None]:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + again
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.1)


def visible_gpus():
    """Names of the GPUs that CUDA would show to a process, [] without any.

    Raises:
      ValueError: there is a driver, and it does not answer.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [
            name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name not in ("", "-1")
        ]
    if not shutil.which("nvidia-smi"):
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
    )
    if asked.returncode:
        raise ValueError(
            f"nvidia-smi fails: {(asked.stdout + asked.stderr).strip()}; JAX_PLATFORMS=cpu takes no GPU"
        )
    return asked.stdout.split()


def chosen_gpus(wanted):
    """The GPUs of --gpus: "all", or names with commas between them."""
    there = visible_gpus()
    chosen = there if wanted == "all" else wanted.split(",")
    unknown = [name for name in chosen if name not in there]
    if unknown or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"--gpus is {wanted}; there are {', '.join(there) or 'none'}, and each is named once"
        )
    return chosen


def shares(slots):
    """[cores of each slot], apart from each other; {} where a slot is not bound: one slot, or a
    system without affinities."""
    if slots == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * slots
    cores = sorted(os.sched_getaffinity(0))
    if slots > len(cores):
        raise ValueError(
            f"--slots is {slots}, and there are {len(cores)} cores; a slot takes one at least"
        )
    return [set(cores[slot::slots]) for slot in range(slots)]


@contextlib.contextmanager
def bound(cores):
    """This thread, and so what it starts meanwhile, runs on these cores only; {} changes
    nothing."""
    before = os.sched_getaffinity(0) if cores else cores
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, before)


class Machine:
    """This machine: `slots` processes on each of the GPUs, or without GPUs so many, each with its
    share of the cores."""

    def __init__(self, gpus, slots):
        self.gpus = {f"gpu {name}": name for name in gpus}
        self.cores = (
            {} if gpus else {f"cpu {slot}": cores for slot, cores in enumerate(shares(slots))}
        )
        self.places = [place for place in self.gpus for _ in range(slots)] or list(self.cores)
        # jax takes three quarters of a GPU's memory for each process, unless it is told otherwise.
        self.memory = (
            {"XLA_CLIENT_MEM_FRACTION": f"{0.9 / slots:.3f}"} if gpus and slots > 1 else {}
        )

    def environment(self, place):
        """What the environment of a process has at a place."""
        if place not in self.gpus:
            return {}
        chosen = {"CUDA_VISIBLE_DEVICES": self.gpus[place]}
        if "CUDA_VISIBLE_DEVICES" not in os.environ:
            chosen["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the numbers are those of nvidia-smi
        told = {
            "XLA_CLIENT_MEM_FRACTION",
            "XLA_PYTHON_CLIENT_MEM_FRACTION",
            "XLA_PYTHON_CLIENT_PREALLOCATE",
        } & set(os.environ)
        return chosen if told else chosen | self.memory

    def start(self, command, log, place, environment):
        """The process of a command. It has a session of its own, so that Ctrl-C reaches the sweep
        alone."""
        with open_log(log) as file, bound(self.cores.get(place)):
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment, **self.environment(place)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def find(self, pid, place, log):
        return Found(pid, log) if isinstance(pid, int) and held(log) else None


class Found:
    """A process that another sweep has started; of its code nobody knows."""

    def __init__(self, pid, log):
        self.pid, self._log = pid, log

    def poll(self):
        return None if held(self._log) else "unknown"

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class Cluster:
    """Jobs of SLURM, or of submitit's executor for this machine ("local"), at most `slots` in the
    queue at a time.

    Args:
      kind: "slurm" or "local".
      slots: jobs at a time.
      folder: for the files of the jobs, seen by all machines.
      settings: {name: value} of submitit's update_parameters.
    """

    def __init__(self, kind, slots, folder, settings):
        try:
            import submitit  # of the extra `sweep`, and only here
        except ImportError:
            raise ValueError("--launcher needs submitit: pip install -e '.[sweep]'") from None
        # Before its time is over a job saves and is queued again, as often as it takes.
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=kind, slurm_max_num_timeout=10**6)
            self.executor.update_parameters(**{"timeout_min": 24 * 60, **settings})
        except (RuntimeError, AssertionError, NameError, ValueError) as error:
            raise ValueError(f"--launcher={kind}: {error}") from None
        self.kind, self.places, self.folder = kind, [kind] * slots, folder
        self.job = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[kind]

    def start(self, command, log, place, environment):
        return Submitted(
            self.executor.submit(Task(list(command), str(log), environment)), self.kind, log
        )

    def find(self, pid, place, log):
        if place != self.kind:
            return None
        found = Submitted(self.job(self.folder, pid), self.kind, log)
        return found if found.poll() is None else None


class Submitted:
    """The process of a job."""

    def __init__(self, job, kind, log):
        self.pid, self._job, self._kind, self._log = job.job_id, job, kind, log

    def poll(self):
        if not self._job.done() or held(self._log):
            return None
        if not self._job.paths.result_pickle.exists():
            return 1  # the job has ended before its process did
        outcome, code = self._job._get_outcome_and_result()  # result() would wait and raise
        return code if outcome == "success" else 1

    def terminate(self):
        if self._kind == "local":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.pid), signal.SIGTERM)  # of its controller, which passes it on
            return
        for which in (
            "--state=PENDING",
            "--signal=TERM",
        ):  # one that waits is taken back, one that runs saves
            subprocess.run(["scancel", which, self.pid], stderr=subprocess.DEVNULL)


class Task:
    """A command as a job: all that submitit pickles is these texts.

    It passes SIGTERM on. The process has a session of its own, because SLURM tells all of the job's
    that its time is over.
    """

    def __init__(self, command, log, environment):
        self.command, self.log, self.environment = command, log, environment

    def __call__(self):
        with open_log(self.log) as file:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        signal.signal(signal.SIGTERM, lambda *_: self.process.terminate())
        try:
            return self.process.wait()
        finally:
            self.process.terminate()  # where something else ends the wait

    def checkpoint(self):
        """Before the job's time is over, or before it makes room: the process saves, and the same
        job goes on later."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        os.waitid(
            os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT
        )  # the wait that was interrupted has Popen's lock
        return DelayedSubmission(Task(self.command, self.log, self.environment))
