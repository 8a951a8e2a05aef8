"""Kills a training again and again, wherever it is, and compares what comes out with an undisturbed one, byte by byte.

    python tools/torture.py --kills=100 [--devices=4] [--seed=0] [--signals=KILL,TERM]

The run is the command itself: two folds of two stages (L2RCLIP) on drawn images, checkpoints every other step, evaluations in
between. It is killed after a time drawn from the seed, at most a little more than a whole run takes, and gone on with by the
same command; when it is done it begins anew, until the kills are spent. After each time that it is done the selected
parameters of every stage, predictions, results, logs and DONE.json are compared. What the workdir held when a kill fell tells
the phase. Compiled programs are kept, or most kills would fall into compilations; --cold keeps none.
"""

import argparse
import collections
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ and tools/ lie in the repository and are not installed

from jaxord import signals, workdir  # noqa: E402

KEPT = ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
FIELDS = {
    "data.batch": 8, "data.eval_batch": 8, "data.tier": "cached", "data.folds": "('0','1')", "fold": "all",
    "train.duration": "24 steps", "train.log_every": "1 steps", "train.checkpoint_every": "2 steps",
    "train.evaluate_every": "3 steps",
}  # fmt: skip


def photographs(root):
    """Four ranks of twelve noisy images each, a folder per rank."""
    for rank in range(4):
        (root / str(rank)).mkdir(parents=True)
        for i in range(12):
            noise = np.random.default_rng(100 * rank + i).normal(50 + 50 * rank, 20, (48, 48, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(root / str(rank) / f"{i}.png")
    return root


class Victim:
    """The command on a workdir.

    Args:
      folder: of the images and of the workdirs.
      devices: CPU devices that it sees.
      cold: without a cache of compiled programs.
    """

    def __init__(self, folder, devices, cold):
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
                            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}  # fmt: skip
        if not cold:
            self.environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
                                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
        fields = {**FIELDS, "data.root": photographs(folder / "photographs")}
        self.fields = [f"--config.{name}={value}" for name, value in fields.items()]

    def start(self, place):
        command = [sys.executable, "-m", "jaxord.main", "--config=configs/folder.py:method=l2rclip,backbone=tiny",
                   f"--workdir={place}", *self.fields]  # fmt: skip
        with open(self.folder / "output.log", "wb") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def finish(self, place):
        """Seconds that the command takes to the end."""
        began, process = time.monotonic(), self.start(place)
        if process.wait():
            sys.exit(f"the command failed:\n{(self.folder / 'output.log').read_text()[-3000:]}")
        return time.monotonic() - began


def stages(place):
    return sorted(path.parent for path in place.rglob("DONE.json"))


def phase(place):
    """Where a training is, as its folder shows it."""
    begun = sorted((path.parent for path in place.rglob("metrics.jsonl")), key=lambda folder: folder.stat().st_ctime)
    if list(place.rglob(".unfinished-*")):
        return "saving"
    if not begun:
        return "before the first step"
    if not list(begun[-1].glob("checkpoints/[0-9]*")):
        return "first steps of a stage"
    if (begun[-1] / "DONE.json").exists():
        return "between stages and folds"
    return "report" if (begun[-1] / "predictions.csv").exists() else "steps and evaluations"


def fingerprint(place):
    """{file or parameter of each stage: sha256}."""
    found = {}
    for stage in stages(place):
        name = stage.relative_to(place)
        found |= {f"{name}/{file}": hashlib.sha256((stage / file).read_bytes()).hexdigest()
                  for file in KEPT if (stage / file).exists()}  # fmt: skip
        for part, arrays in workdir.selected(stage).items():
            found |= {f"{name}/{part}/{path}": hashlib.sha256(array.tobytes()).hexdigest() for path, array in arrays.items()}
    return found


def torture(victim, kills, numbers, draw):
    """Kills until the kills are spent, then lets the run end.

    Returns:
      (Counter of phases, Counter of (signal, exit code), number of finished runs, [what differs in one]).
    """
    calm = victim.folder / "calm"
    victim.finish(calm)
    expected, phases, codes, different, rounds = fingerprint(calm), collections.Counter(), collections.Counter(), [], 0
    longest = victim.finish(victim.folder / "warm")  # with what is compiled
    if fingerprint(victim.folder / "warm") != expected:
        sys.exit("two undisturbed runs differ")
    place = victim.folder / "run"
    while kills or not rounds or place.exists():
        process, wait = victim.start(place), draw.uniform(0.0, longest * 1.1) if kills else None
        began = time.monotonic()
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            number = draw.choice(numbers)
            where = phase(place) if place.exists() else "before the first step"
            process.send_signal(number)
            codes[number.name, process.wait()] += 1
            phases[where] += 1
            kills -= 1
            told = f"{number.name} after {time.monotonic() - began:.1f} s, {where}; {kills} left"
            print(told, flush=True)
            continue
        if process.returncode:
            sys.exit(f"the command failed:\n{(victim.folder / 'output.log').read_text()[-3000:]}")
        rounds += 1
        found = fingerprint(place)
        different += [f"run {rounds}: {name}" for name in {**expected, **found} if expected.get(name) != found.get(name)]
        shutil.rmtree(place)
    return phases, codes, rounds, different


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of the run")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--signals", default="KILL", help="drawn from for each kill: KILL,TERM,USR1,INT")
    parser.add_argument("--cold", action="store_true", help="every attempt compiles anew")
    given = parser.parse_args(arguments)
    numbers = [signal.Signals[f"SIG{name}"] for name in given.signals.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(pathlib.Path(folder), given.devices, given.cold)
        phases, codes, rounds, different = torture(victim, given.kills, numbers, random.Random(given.seed))
    for title, counts in (("fell", phases), ("exit codes", codes)):
        print(f"{title}: " + ", ".join(f"{name if isinstance(name, str) else ' '.join(map(str, name))} {n}"
                                       for name, n in counts.most_common()))  # fmt: skip
    wrong = [f"{name}: {code}" for name, code in codes if code not in (-signal.Signals[name], signals.STOPPED, 0)]
    same = f"{rounds} runs on {given.devices} devices, {sum(phases.values())} kills: the same bytes"
    print("\n".join([*different, *wrong]) or same)
    return 1 if different or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
