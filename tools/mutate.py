"""Breaks the files of a checkpoint at random, again and again, and counts what a run that goes on
makes of it.

    python tools/mutate.py [--count=1000] [--seed=0]

Two steps are saved; one file of the second is cut, emptied, removed, overwritten in part, swapped
for one of the first, joined by another, or has one bit flipped; then the folder is opened as a run
opens it. `found`: the second is passed over by name, refused when asked for, and the first comes
back bit by bit. `harmless`: it is taken, and all arrays and the meta are what was saved. `silent`:
anything else, which ends with the exit code 1.
"""

import argparse
import collections
import pathlib
import random
import shutil
import sys
import tempfile

import jax
import numpy as np
from absl import logging

from jaxord.workdir.checkpoints import Checkpoints

KINDS = ("cut", "empty", "remove", "flip", "overwrite", "swap", "add")


def states():
    """Two states of a small training: {step: tree}."""

    def draw(step):
        generator = np.random.default_rng(step)
        arrays = {
            f"layer_{i}/kernel": generator.normal(size=(8, 4 + i)).astype(np.float32)
            for i in range(4)
        }
        return {
            "step": np.int32(step),
            "trained": arrays,
            "stats": {"mean": generator.normal(size=5).astype(np.float32)},
        }

    return {step: jax.tree.map(jax.numpy.asarray, draw(step)) for step in (1, 2)}


def save(folder, trees):
    with Checkpoints(folder) as checkpoints:
        for step, tree in trees.items():
            checkpoints.save(step, tree, {"score": 1.0 / step})


def files(folder):
    """Names of all files of a checkpoint, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def mutate(folder, before, name, kind, draw):
    """Breaks one file of a checkpoint; False where that changes no byte.

    Args:
      folder: of the step.
      before: of the step before, for "swap": its file of the same name, or any where it has none.
      name: of the file.
      kind: one of KINDS; "add" puts a file beside the named one.
      draw: random.Random.
    """
    path = folder / name
    content = path.read_bytes()
    if kind == "remove":
        path.unlink()
        return True
    if kind == "add":
        path.with_name(f"{path.name}.{draw.randrange(1000)}").write_bytes(draw.randbytes(9))
        return True
    place, bit = draw.randrange(max(len(content), 1)), 1 << draw.randrange(8)
    changed = {
        "cut": lambda: content[:place],
        "empty": lambda: b"",
        "flip": lambda: (
            content[:place]
            + bytes(byte ^ bit for byte in content[place : place + 1])
            + content[place + 1 :]
        ),
        "overwrite": lambda: (
            content[:place]
            + draw.randbytes(len(content[place : place + 64]))
            + content[place + 64 :]
        ),
        "swap": lambda: (
            before / (name if name in files(before) else draw.choice(files(before)))
        ).read_bytes(),
    }[kind]()
    path.write_bytes(changed)
    return changed != content


def same(found, expected):
    return all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


def outcome(folder, trees, warned):
    """ "found", "harmless" or "silent", see above; `warned` are the texts of the warnings, to be
    empty before."""
    warned.clear()
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest()
        restored = checkpoints.restore(latest, trees[latest])
        right = same(restored, trees[latest]) and checkpoints.meta(latest) == {
            "score": 1.0 / latest
        }
        if not right:
            return "silent"
        if latest == 2:
            return "harmless"
        try:
            checkpoints.restore(2, trees[2])
        except ValueError as error:
            refused = "is damaged" in str(error)
            return (
                "found"
                if refused and any(str(folder / "2") in text for text in warned)
                else "silent"
            )
    return "silent"


def survey(folder, broken, warned):
    """Counter of (kind, outcome), and the silent ones.

    Args:
      folder: where to work.
      broken: names of the files -> [(name, kind, random.Random)], as `each` and what `drawn` gives.
      warned: the list that logging's warnings are appended to.
    """
    trees = states()
    whole, place = folder / "whole", folder / "run"
    save(whole, trees)
    counts, silent = collections.Counter(), []
    for name, kind, draw in broken(files(whole / "2")):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        if mutate(place / "2", place / "1", name, kind, draw):
            found = outcome(place, trees, warned)
            counts[kind, found] += 1
            if found == "silent":
                silent.append(f"{kind} {name}")
    return counts, silent


def each(names):
    """Every kind for every file once."""
    return [(name, kind, random.Random(f"{name} {kind}")) for name in names for kind in KINDS]


def drawn(count, seed):
    draw = random.Random(seed)

    def broken(names):
        return ((draw.choice(names), draw.choice(KINDS), draw) for _ in range(count))

    return broken


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    warned = []
    logging.set_verbosity(logging.ERROR)
    logging.warning = lambda text, *values: warned.append(text % values)
    with tempfile.TemporaryDirectory() as folder:
        counts, silent = survey(pathlib.Path(folder), drawn(given.count, given.seed), warned)
    for kind in KINDS:
        print(
            f"{kind:9}",
            ", ".join(f"{n} {result}" for (of, result), n in sorted(counts.items()) if of == kind),
        )
    print(
        "\n".join(
            [
                *silent,
                f"{counts.total():,} mutations that changed a byte, {len(silent)} of them silent",
            ]
        )
    )
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
