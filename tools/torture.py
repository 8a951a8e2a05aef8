"""Kills a training again and again and compares the result with an undisturbed one, byte by byte.

    python tools/torture.py --kills=100 [--devices=4] [--processes=4] [--seed=0]
    [--signals=KILL,TERM] [--steps=24]

The run is the command itself: two folds of two stages (L2RCLIP) on drawn images, checkpoints every
other step, evaluations every third. The seed draws the kills: half come after a time, at most a
little more than a whole run takes; the others in a phase, as soon as the run is in it. The same
command goes on; when it is done it begins anew, until the kills are spent. Each finished run is
compared: selected parameters of every stage, predictions, results, logs and DONE.json. Compiled
programs are kept, or most kills would hit a compilation; --cold keeps none. Ctrl-C and SIGTERM end
it with the tally so far.

With --processes so many processes share the devices, and one of them is killed: the others have to
end by themselves within half a minute.
"""

import collections
import hashlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from jaxord import shipped
from jaxord.runtime import signals
from jaxord.workdir import files, layout

shipped.make_importable()
from tools.benching import drawn, options, subject

CONFIG = "configs/folder.py:method=l2rclip,backbone=tiny"
KEPT = ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
FIELDS = {
    "data.batch": 8,
    "data.eval_batch": 8,
    "data.tier": "cached",
    "data.folds": "('0','1')",
    "fold": "all",
    "train.log_every": "1 steps",
    "train.checkpoint_every": "2 steps",
    "train.evaluate_every": "3 steps",
}
START, COMPILING, STEPS, EVALUATION, SAVING, END, BETWEEN = PHASES = (
    *("start and data", "compiling", "steps", "evaluation", "saving"),
    *("last step and report", "between stages and folds"),
)
LOOK = 0.01  # seconds between two looks at a run
ENDING = 30  # seconds that the other processes of a killed one have
SETTINGS = {
    "kills": (100, "in all"),
    "devices": (1, "CPU devices of the run"),
    "processes": (1, "that share the devices; one of them is killed"),
    "seed": (0, "of times and phases"),
    "signals": ("KILL", "drawn from for each kill: KILL,TERM,USR1,INT"),
    "cold": (False, "every attempt compiles anew"),
    "steps": (24, "of each stage"),
}


class Victim:
    """The command, with its images and workdirs in `folder`, and a tally of its kills.

    Attributes:
      phases: Counter of the phases in which kills fell.
      codes: Counter of "signal exit code".
      runs, faults: finished ones; texts.
    """

    def __init__(self, folder, flags):
        self.folder, self.processes, self.started = folder, flags.processes, []
        self.phases, self.codes = collections.Counter(), collections.Counter()
        self.runs, self.faults = 0, []
        devices = f"--xla_force_host_platform_device_count={flags.devices // flags.processes}"
        xla = f"{os.environ.get('XLA_FLAGS', '')} {devices}"
        cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        if flags.cold:
            cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        programs = {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
        self.environment = {**programs, **subject.environment(), **cache, "XLA_FLAGS": xla}
        root = drawn.photographs(folder / "photographs")
        self.fields = FIELDS | {"train.duration": f"{flags.steps} steps", "data.root": root}

    def log(self, number=0):
        """The output of a process."""
        return self.folder / f"output-{number}.log"

    def start(self, workdir):
        """Starts the processes of the command on a workdir."""
        command = subject.command(CONFIG, workdir, self.fields)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        group = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(self.processes)}
        self.started = []
        for number in range(self.processes):
            among = {**group, "JAX_PROCESS_ID": str(number)} if self.processes > 1 else {}
            with open(self.log(number), "wb") as log:
                settings = {"cwd": shipped.ROOT, "env": self.environment | among}
                process = subprocess.Popen(command, **settings, stdout=log, stderr=log)
            self.started.append(process)

    def check(self):
        """Waits for the end; exits if a process fails."""
        codes = [process.wait() for process in self.started]
        for number in [number for number, code in enumerate(codes) if code]:
            output = self.log(number).read_text(errors="replace")[-3000:]
            sys.exit(f"the command failed, {codes}:\n{output}")

    def finish(self, workdir):
        """Runs the command to its end; returns the seconds it takes."""
        began = time.monotonic()
        self.start(workdir)
        self.check()
        return time.monotonic() - began

    def kill(self):
        """Kills the processes that still run."""
        for process in self.started:
            process.kill()
            process.wait()


def stages(workdir):
    """Folders of the finished stages."""
    folders = sorted(path.parent for path in workdir.rglob("DONE.json"))
    return [folder for folder in folders if (folder / "checkpoints").exists()]


def course(workdir):
    """{stage: (its steps, the steps that are evaluated)} of a finished run."""

    def steps(stage):
        judged = {row["step"] for row in subject.rows(stage) if row["split"] == "val"}
        return files.read_json(stage / "DONE.json")["steps"], judged

    return {stage.relative_to(workdir): steps(stage) for stage in stages(workdir)}


def phase(workdir, output, began, steps):
    """Where an attempt that began at a time is, one of PHASES, by its workdir and output.

    `steps` come from `course`.
    """
    lines = output.read_text(errors="replace").splitlines()
    titles = [number for number, line in enumerate(lines) if line.startswith(f"{workdir}/")]
    if not titles:
        return START
    stage, lines = pathlib.Path(lines[titles[-1]]), lines[titles[-1] :]
    if (stage / "DONE.json").exists():
        return BETWEEN
    if any(path.stat().st_mtime > began for path in (stage / "checkpoints").glob(".unfinished-*")):
        return SAVING
    restored = [int(line.split()[4]) for line in lines if line.startswith("goes on from step")]
    rows = subject.rows(stage)
    if not rows or (stage / "metrics.jsonl").stat().st_mtime < began:
        return COMPILING
    last, (total, judged) = rows[-1], steps[stage.relative_to(workdir)]
    if last["step"] == total:
        return END
    if last["step"] in restored:
        return COMPILING
    return EVALUATION if last["split"] == "train" and last["step"] in judged else STEPS


def fingerprint(workdir):
    """{file or parameter of each stage: sha256}."""
    contents = {}
    for stage in stages(workdir):
        name = stage.relative_to(workdir)
        kept = [file for file in KEPT if (stage / file).exists()]
        contents |= {f"{name}/{file}": (stage / file).read_bytes() for file in kept}
        for part, arrays in layout.selected(stage).items():
            contents |= {f"{name}/{part}/{path}": x.tobytes() for path, x in arrays.items()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def strike(victim, workdir, steps, longest, numbers, draw):
    """Runs one attempt and kills it, unless it ends before; returns whether it did."""
    target_phase, wait = draw.choice((None, draw.choice(PHASES))), draw.uniform(0.0, longest * 1.1)
    number, target = draw.choice(numbers), draw.randrange(victim.processes)
    began = time.time()
    victim.start(workdir)

    def now():
        return phase(workdir, victim.log(), began, steps)

    while time.time() - began < wait if target_phase is None else now() != target_phase:
        if all(process.poll() is not None for process in victim.started):
            victim.check()
            return True
        time.sleep(LOOK)
    fell_in = now()
    victim.started[target].send_signal(number)
    sent = time.monotonic()
    code = victim.started[target].wait()
    victim.phases[fell_in] += 1
    victim.codes[f"{number.name} {code}"] += 1
    if code not in (-number, signals.STOPPED, 0):
        victim.faults.append(f"{number.name} in {fell_in} ends by {code}")
    try:
        for process in victim.started:
            process.wait(max(0.1, sent + ENDING - time.monotonic()))
    except subprocess.TimeoutExpired:
        kill = f"{number.name} of process {target} in {fell_in}"
        victim.faults.append(f"{kill}: another one goes on after {ENDING} s")
        victim.kill()
    kill = f"{victim.phases.total():>4}  {number.name:<8}{fell_in:<26}"
    ended = f"all have ended after {time.monotonic() - sent:.1f} s"
    print(f"{kill}after {time.time() - began:5.1f} s, {ended}", flush=True)
    return False


def torture(victim, kills, numbers, draw):
    """Kills until the kills are spent, then lets the run end."""
    calm, warm, workdir = (victim.folder / name for name in ("calm", "warm", "run"))
    victim.finish(calm)
    # The second run has its programs compiled, as the attempts have.
    longest = victim.finish(warm)
    expected, steps = fingerprint(calm), course(calm)
    leaves = f"leaves {len(expected)} files and parameters"
    print(f"a whole run takes {longest:.0f} s and {leaves}", flush=True)
    if fingerprint(warm) != expected:
        sys.exit("two undisturbed runs differ")
    while workdir.exists() or victim.phases.total() < kills:
        if victim.phases.total() >= kills:
            victim.finish(workdir)
        elif not strike(victim, workdir, steps, longest, numbers, draw):
            continue
        victim.runs += 1
        result = fingerprint(workdir)
        names = {**expected, **result}
        changed = [name for name in names if expected.get(name) != result.get(name)]
        victim.faults += [f"run {victim.runs}: {name} differs" for name in changed]
        print(f"run {victim.runs} is done: {len(changed)} of {len(expected)} differ", flush=True)
        shutil.rmtree(workdir)


def main(arguments=None):
    parser = options.parser(__doc__, SETTINGS)
    flags = parser.parse_args(arguments)
    if flags.devices % flags.processes:
        parser.error(f"--devices={flags.devices} does not divide by --processes={flags.processes}")
    numbers = [signal.Signals[f"SIG{name}"] for name in flags.signals.split(",")]
    # A shell's background jobs ignore the first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(pathlib.Path(folder), flags)
        try:
            torture(victim, flags.kills, numbers, random.Random(flags.seed))
        except KeyboardInterrupt:
            victim.kill()
    for title, counts in (("fell", victim.phases), ("ended by", victim.codes)):
        for name, n in counts.most_common():
            print(f"{title:<10}{name:<30}{n:>5}")
    runs = f"{victim.runs} runs on {flags.devices} devices, {victim.phases.total()} kills"
    print("\n".join(victim.faults) or f"{runs}: the same bytes")
    return 1 if victim.faults else 0


if __name__ == "__main__":
    sys.exit(main())
