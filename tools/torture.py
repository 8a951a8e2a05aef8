"""Kills a training again and again, wherever it is, and compares what comes out with an undisturbed
one, byte by byte.

    python tools/torture.py --kills=100 [--devices=4] [--processes=4] [--seed=0]
    [--signals=KILL,TERM] [--steps=24]

The run is the command itself: two folds of two stages (L2RCLIP) on drawn images, checkpoints every
  other step, evaluations
every third, epochs of four. Half of the kills come after a time drawn from the seed, at most a
little more than a whole run takes; the others in a phase drawn from the seed, as soon as the run is
in it. The same command goes on; when it is done it begins anew, until the kills are spent. Each
time that it is done the selected parameters of every stage, predictions, results, logs and
DONE.json are compared. Compiled programs are kept, or most kills would fall into compilations;
--cold keeps none. Ctrl-C and SIGTERM end it with what there is so far.

With --processes the devices are shared by so many processes, and one of them is killed: the others
have to end by themselves within half a minute.
"""

import argparse
import collections
import hashlib
import json
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

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ and tools/ lie in the repository and are not installed

from jaxord.runtime import signals
from jaxord.workdir import layout

KEPT = ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
EVERY = 3  # steps between evaluations
FIELDS = {
    "data.batch": 8,
    "data.eval_batch": 8,
    "data.tier": "cached",
    "data.folds": "('0','1')",
    "fold": "all",
    "train.log_every": "1 steps",
    "train.checkpoint_every": "2 steps",
    "train.evaluate_every": f"{EVERY} steps",
}
PHASES = (
    "start and data",
    "compiling",
    "steps",
    "evaluation",
    "saving",
    "last step and report",
    "between stages and folds",
)
LOOK = 0.01  # seconds between two looks at a run
ENDING = 30  # seconds that the other processes of a killed one have


def photographs(root):
    """Four ranks of twelve noisy images each, a folder per rank."""
    for rank in range(4):
        (root / str(rank)).mkdir(parents=True)
        for i in range(12):
            noise = np.random.default_rng(100 * rank + i).normal(50 + 50 * rank, 20, (48, 48, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(
                root / str(rank) / f"{i}.png"
            )
    return root


class Victim:
    """The command.

    Args:
      folder: of the images, and of the workdirs.
      devices: CPU devices that all its processes see.
      processes: how many share them.
      cold: without a cache of compiled programs.
      steps: of each stage.
    """

    def __init__(self, folder, devices=1, processes=1, cold=False, steps=24):
        self.folder, self.processes, self.started = folder, processes, []
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            f"--xla_force_host_platform_device_count={devices // processes}",
        }
        if cold:
            self.environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        else:
            self.environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
            self.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        fields = {
            **FIELDS,
            "train.duration": f"{steps} steps",
            "data.root": photographs(folder / "photographs"),
        }
        self.fields = [f"--config.{name}={value}" for name, value in fields.items()]

    def log(self, number=0):
        """What a process has said."""
        return self.folder / f"output-{number}.log"

    def start(self, place):
        """The processes of the command on a workdir."""
        command = [
            sys.executable,
            "-m",
            "jaxord.main",
            "--config=configs/folder.py:method=l2rclip,backbone=tiny",
            f"--workdir={place}",
            *self.fields,
        ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.started = []
        for number in range(self.processes):
            among = (
                {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": str(self.processes),
                    "JAX_PROCESS_ID": str(number),
                }
                if self.processes > 1
                else {}
            )
            with open(self.log(number), "wb") as log:
                process = subprocess.Popen(
                    command, cwd=ROOT, env=self.environment | among, stdout=log, stderr=log
                )
            self.started.append(process)
        return self.started

    def check(self, started):
        """Waits for the end; exits where a process fails."""
        codes = [process.wait() for process in started]
        for number, code in enumerate(codes):
            if code:
                sys.exit(
                    f"the command failed, {codes}:\n{self.log(number).read_text(errors='replace')[-3000:]}"
                )

    def finish(self, place):
        """Seconds that the command takes to the end."""
        began = time.monotonic()
        self.check(self.start(place))
        return time.monotonic() - began


def stages(place):
    return sorted(
        path.parent for path in place.rglob("DONE.json") if (path.parent / "checkpoints").exists()
    )


def rows(stage):
    """What a stage has logged, but for a line that is being written."""
    log = stage / "metrics.jsonl"
    return (
        [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()]
        if log.exists()
        else []
    )


def course(place):
    """{stage: (its steps, those that are judged)} of a finished run."""
    done = {
        stage: json.loads((stage / "DONE.json").read_text())["steps"] for stage in stages(place)
    }
    return {
        stage.relative_to(place): (
            steps,
            {row["step"] for row in rows(stage) if row["split"] == "val"},
        )
        for stage, steps in done.items()
    }


def phase(place, said, began, of):
    """Where an attempt is, one of PHASES, as its folder and its words show it.

    Args:
      place: the workdir.
      said: the attempt's log.
      began: when it did, seconds since the epoch.
      of: from `course`.
    """
    lines = said.read_text(errors="replace").splitlines()
    at = max(
        (number for number, line in enumerate(lines) if line.startswith(f"{place}/")), default=None
    )
    if at is None:
        return "start and data"
    stage = pathlib.Path(lines[at])
    if (stage / "DONE.json").exists():
        return "between stages and folds"
    if any(path.stat().st_mtime > began for path in (stage / "checkpoints").glob(".unfinished-*")):
        return "saving"
    log, restored = (
        rows(stage),
        [int(line.split()[4]) for line in lines[at:] if line.startswith("goes on from step")],
    )
    if not log or (stage / "metrics.jsonl").stat().st_mtime < began:
        return "compiling"
    total, judged = of[stage.relative_to(place)]
    if log[-1]["step"] == total:
        return "last step and report"
    if log[-1]["step"] in restored:
        return "compiling"
    return "evaluation" if log[-1]["split"] == "train" and log[-1]["step"] in judged else "steps"


def fingerprint(place):
    """{file or parameter of each stage: sha256}."""
    found = {}
    for stage in stages(place):
        name = stage.relative_to(place)
        found |= {
            f"{name}/{file}": hashlib.sha256((stage / file).read_bytes()).hexdigest()
            for file in KEPT
            if (stage / file).exists()
        }
        for part, arrays in layout.selected(stage).items():
            found |= {
                f"{name}/{part}/{path}": hashlib.sha256(array.tobytes()).hexdigest()
                for path, array in arrays.items()
            }
    return found


class Tally:
    """What has happened so far.

    Attributes:
      fell: Counter of the phases in which kills fell.
      codes: Counter of (signal, exit code).
      rounds: finished runs.
      wrong: [text] of what should not be.
    """

    def __init__(self):
        self.fell, self.codes, self.rounds, self.wrong = (
            collections.Counter(),
            collections.Counter(),
            0,
            [],
        )

    def lines(self):
        counts = [
            ("fell", self.fell.most_common()),
            ("ended by", [(" ".join(map(str, k)), n) for k, n in self.codes.items()]),
        ]
        return [f"{title:<10}{name:<30}{n:>5}" for title, pairs in counts for name, n in pairs]


def strike(victim, place, of, longest, numbers, draw, tally):
    """One attempt, which is killed unless it ends before; whether it did."""
    wanted, wait = draw.choice((None, draw.choice(PHASES))), draw.uniform(0.0, longest * 1.1)
    number, target, began = draw.choice(numbers), draw.randrange(victim.processes), time.time()
    started = victim.start(place)
    while (
        time.time() - began < wait
        if wanted is None
        else phase(place, victim.log(), began, of) != wanted
    ):
        if all(process.poll() is not None for process in started):
            victim.check(started)
            return True
        time.sleep(LOOK)
    where = phase(place, victim.log(), began, of)
    started[target].send_signal(number)
    sent = time.monotonic()
    code = started[target].wait()
    tally.fell[where] += 1
    tally.codes[number.name, code] += 1
    if code not in (-signal.Signals[number.name], signals.STOPPED, 0):
        tally.wrong.append(f"{number.name} in {where} ends by {code}")
    for process in started:
        try:
            process.wait(max(0.1, sent + ENDING - time.monotonic()))
        except subprocess.TimeoutExpired:
            tally.wrong.append(
                f"{number.name} of process {target} in {where}: another one goes on after {ENDING} s"
            )
            process.kill()
            process.wait()
    print(
        f"{sum(tally.fell.values()):>4}  {number.name:<8}{where:<26}after {time.time() - began:5.1f} s, "
        f"all have ended after {time.monotonic() - sent:.1f} s",
        flush=True,
    )
    return False


def torture(victim, kills, numbers, draw, tally):
    """Kills until the kills are spent, then lets the run end."""
    calm, warm, place = (victim.folder / name for name in ("calm", "warm", "run"))
    victim.finish(calm)
    longest = victim.finish(warm)  # with what is compiled
    expected, of = fingerprint(calm), course(calm)
    print(
        f"a whole run takes {longest:.0f} s and leaves {len(expected)} files and parameters",
        flush=True,
    )
    if fingerprint(warm) != expected:
        sys.exit("two undisturbed runs differ")
    while place.exists() or sum(tally.fell.values()) < kills:
        if sum(tally.fell.values()) >= kills:
            victim.finish(place)
        elif not strike(victim, place, of, longest, numbers, draw, tally):
            continue
        tally.rounds += 1
        found = fingerprint(place)
        changed = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        tally.wrong += [f"run {tally.rounds}: {name} differs" for name in changed]
        print(f"run {tally.rounds} is done: {len(changed)} of {len(expected)} differ", flush=True)
        shutil.rmtree(place)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of the run")
    parser.add_argument(
        "--processes", type=int, default=1, help="that share the devices; one of them is killed"
    )
    parser.add_argument("--seed", type=int, default=0, help="of times and phases")
    parser.add_argument(
        "--signals", default="KILL", help="drawn from for each kill: KILL,TERM,USR1,INT"
    )
    parser.add_argument("--cold", action="store_true", help="every attempt compiles anew")
    parser.add_argument("--steps", type=int, default=24, help="of each stage")
    given = parser.parse_args(arguments)
    if given.devices % given.processes:
        parser.error(f"--devices={given.devices} does not divide by --processes={given.processes}")
    numbers, tally = [signal.Signals[f"SIG{name}"] for name in given.signals.split(",")], Tally()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(
            pathlib.Path(folder), given.devices, given.processes, given.cold, given.steps
        )
        try:
            torture(victim, given.kills, numbers, random.Random(given.seed), tally)
        except KeyboardInterrupt:
            for process in victim.started:
                process.kill()
                process.wait()
    print("\n".join(tally.lines()))
    same = f"{tally.rounds} runs on {given.devices} devices, {sum(tally.fell.values())} kills: the same bytes"
    print("\n".join(tally.wrong) or same)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
