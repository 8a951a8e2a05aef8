"""Where the processes of runs go: slots on GPUs, cores of this machine, or jobs of SLURM.

`Machine` and `Cluster` have `places`, a name for each process that may run at a time;
`start(command, log, place, environment)`, which returns the process of a command; and
`find(pid, place, log)`, the process that an earlier sweep started, None if it has ended. A process
has `pid`, `poll()`, its exit code or None while it runs, and `terminate()`, which sends SIGTERM.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

from jaxord import shipped

# Any of these says how much of a GPU's memory a process takes.
MEMORY = (
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


def open_log(file):
    """Opens the log of a run, locked: a process that inherits it holds the lock until it ends."""
    log = open(file, "ab")
    # The lock belongs to the open file, so it outlives a sweep that is killed. filelock cannot hand
    # its lock to a child, and a run's own lock on its workdir comes seconds after its start.
    fcntl.flock(log, fcntl.LOCK_EX)
    return log


def is_held(file):
    """Whether the process that writes a log still runs."""
    if not file.exists():
        return False
    with open(file, "ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def spawn(command, log, environment):
    """Starts a command that writes into its log.

    Its own session keeps signals to the terminal or to all of a job, such as Ctrl-C, from it.
    """
    environment = {**os.environ, **environment}
    with open_log(log) as file:
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def stop(processes, again=10):
    """Ends processes by SIGTERM, on which they save; repeats it after `again` seconds."""
    while processes := [process for process in processes if process.poll() is None]:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + again
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.1)


def visible_gpus():
    """Names of the GPUs that CUDA shows to a process; ValueError if the driver does not answer."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name for name in names if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    reply = subprocess.run(query, capture_output=True, text=True)
    if reply.returncode:
        fault = (reply.stdout + reply.stderr).strip()
        raise ValueError(f"nvidia-smi fails: {fault}; JAX_PLATFORMS=cpu takes no GPU")
    return reply.stdout.split()


def chosen_gpus(text):
    """The GPUs of --gpus: "all", or names with commas between them."""
    visible = visible_gpus()
    chosen = visible if text == "all" else text.split(",")
    if not set(chosen) <= set(visible) or len(set(chosen)) < len(chosen):
        names = ", ".join(visible) or "none"
        raise ValueError(f"--gpus is {text}; there are {names}, and each is named once")
    return chosen


def shares(slots):
    """[cores of each slot], disjoint; an empty set binds nothing (one slot, or no affinities)."""
    if slots == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * slots
    cores = sorted(os.sched_getaffinity(0))
    if slots > len(cores):
        raise ValueError(f"--slots is {slots}, but a slot takes a core and there are {len(cores)}")
    return [set(cores[slot::slots]) for slot in range(slots)]


@contextlib.contextmanager
def bound(cores):
    """Binds this thread, and the processes it starts in the block, to cores; none bind nothing."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Machine:
    """This machine: `slots` processes on each GPU, or without GPUs on their share of the cores."""

    def __init__(self, gpus, slots):
        self.gpus = {f"gpu {name}": name for name in gpus}
        self.cores = {} if gpus else {f"cpu {i}": cores for i, cores in enumerate(shares(slots))}
        self.places = [place for place in self.gpus for _ in range(slots)] or list(self.cores)
        # By default jax takes three quarters of a GPU's memory for each process.
        shared = gpus and slots > 1
        self.memory = {"XLA_CLIENT_MEM_FRACTION": f"{0.9 / slots:.3f}"} if shared else {}

    def environment(self, place):
        """Environment variables of a process at a place."""
        if place not in self.gpus:
            return {}
        variables = {"CUDA_VISIBLE_DEVICES": self.gpus[place]}
        if "CUDA_VISIBLE_DEVICES" not in os.environ:
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbers as nvidia-smi gives them
        return variables if set(MEMORY) & set(os.environ) else variables | self.memory

    def start(self, command, log, place, environment):
        """Starts a command in the current folder."""
        with bound(self.cores.get(place)):
            return spawn(command, log, {**environment, **self.environment(place)})

    def find(self, pid, place, log):
        """The process of an earlier sweep, wherever it runs; None if it has ended."""
        return Orphan(pid, log) if isinstance(pid, int) and is_held(log) else None


class Orphan:
    """A process of an earlier sweep, whose exit code cannot be known."""

    def __init__(self, pid, log):
        self.pid = pid
        self._log = log

    def poll(self):
        return None if is_held(self._log) else "unknown"

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class Cluster:
    """Jobs of SLURM ("slurm"), or of submitit's executor for this machine ("local").

    At most `slots` jobs are in the queue. `folder` is for their files and seen by all machines;
    `settings` are those of submitit's update_parameters.
    """

    def __init__(self, kind, slots, folder, settings):
        try:
            # Both come with the extra `sweep`.
            import cloudpickle
            import submitit
        except ImportError:
            hint = shipped.install_hint("sweep")
            raise ValueError(f"--launcher needs submitit: {hint}") from None
        try:
            # Before its time is over a job saves and is queued again, as often as it takes.
            self.executor = submitit.AutoExecutor(folder, cluster=kind, slurm_max_num_timeout=10**6)
            self.executor.update_parameters(**{"timeout_min": 24 * 60, **settings})
        except (RuntimeError, AssertionError, NameError, ValueError) as error:
            raise ValueError(f"--launcher={kind}: {error}") from None
        # A job starts in any folder, where this module may not be importable: Task travels whole.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.kind = kind
        self.places = [kind] * slots
        self.folder = folder
        self.job = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[kind]

    def start(self, command, log, place, environment):
        """Submits a command as a job."""
        job = self.executor.submit(Task(list(command), str(log), environment))
        return Submitted(job, self.kind, log)

    def find(self, pid, place, log):
        """The process of an earlier sweep's job; None if it has ended."""
        if place != self.kind:
            return None
        process = Submitted(self.job(self.folder, pid), self.kind, log)
        return process if process.poll() is None else None


class Submitted:
    """The process of a job."""

    def __init__(self, job, kind, log):
        self.pid = job.job_id
        self._job = job
        self._kind = kind
        self._log = log

    def poll(self):
        if not self._job.done() or is_held(self._log):
            return None
        if not self._job.paths.result_pickle.exists():
            return 1  # the job ended before its process did
        outcome, code = self._job._get_outcome_and_result()  # result() would wait and raise
        return code if outcome == "success" else 1

    def terminate(self):
        if self._kind == "local":
            # The signal goes to the job's controller, which passes it on.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.pid), signal.SIGTERM)
            return
        # A waiting job is taken back, a running one saves.
        for option in ("--state=PENDING", "--signal=TERM"):
            subprocess.run(["scancel", option, self.pid], stderr=subprocess.DEVNULL)


class Task:
    """A command as a job, which passes SIGTERM on to its process."""

    def __init__(self, command, log, environment):
        self.command = command
        self.log = log
        self.environment = environment

    def __call__(self):
        self.process = spawn(self.command, self.log, self.environment)
        signal.signal(signal.SIGTERM, lambda *_: self.process.terminate())
        try:
            return self.process.wait()
        finally:
            self.process.terminate()  # if something else ends the wait

    def checkpoint(self):
        """Lets the process save before the job's time ends or it is preempted; requeues the job."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        # Popen.wait would block: the wait that was interrupted holds its lock.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Task(self.command, self.log, self.environment))
