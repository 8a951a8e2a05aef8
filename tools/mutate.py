"""Breaks the files of a checkpoint at random and counts what a run that goes on makes of it.

    python tools/mutate.py [--count=1000] [--seed=0]

Two steps are saved; one file of the second is cut, emptied, removed, overwritten in part, swapped
for one of the first, joined by another, or has one bit flipped; then the folder is opened as a run
opens it. `found`: the second is passed over by name, refused on request, and the first comes back
bit by bit. `harmless`: it is taken, and all arrays and the meta are as saved. `silent`: anything
else, which ends with the exit code 1.
"""

import collections
import pathlib
import random
import shutil
import sys
import tempfile

import jax
import numpy as np
from absl import logging

from jaxord import shipped
from jaxord.workdir.checkpoints import Checkpoints

shipped.make_importable()
from tools.benching import options

KINDS = ("cut", "empty", "remove", "flip", "overwrite", "swap", "add")


def states():
    """Two states of a small training: {step: tree}."""

    def state(step):
        draw = np.random.default_rng(step)
        shapes = {f"layer_{i}/kernel": (8, 4 + i) for i in range(4)}
        trained = {path: draw.normal(size=s).astype(np.float32) for path, s in shapes.items()}
        stats = {"mean": draw.normal(size=5).astype(np.float32)}
        return {"step": np.int32(step), "trained": trained, "stats": stats}

    return {step: jax.tree.map(jax.numpy.asarray, state(step)) for step in (1, 2)}


def files(folder):
    """Names of all files of a checkpoint, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def mutate(folder, before, name, kind, draw):
    """Breaks a file of a checkpoint's folder by one of KINDS; False if that changes no byte.

    "add" puts a file beside it; "swap" takes the same file, or else any, of the folder `before`.
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
    head, tail, after = content[:place], content[place + 1 :], content[place + 64 :]
    if kind == "cut":
        changed = head
    elif kind == "empty":
        changed = b""
    elif kind == "flip":
        changed = head + bytes(byte ^ bit for byte in content[place : place + 1]) + tail
    elif kind == "overwrite":
        changed = head + draw.randbytes(len(content[place : place + 64])) + after
    else:
        names = files(before)
        changed = (before / (name if name in names else draw.choice(names))).read_bytes()
    path.write_bytes(changed)
    return changed != content


def same(restored, expected):
    """Whether two trees hold the same dtypes and bytes."""
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True)
    arrays = ((np.asarray(a), np.asarray(b)) for a, b in pairs)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)


def outcome(folder, trees, warned):
    """Opens a folder: "found", "harmless" or "silent"; `warned` collects texts of warnings."""
    warned.clear()
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest()
        restored = checkpoints.restore(latest, trees[latest])
        score = {"score": 1.0 / latest}
        if not same(restored, trees[latest]) or checkpoints.meta(latest) != score:
            return "silent"
        if latest == 2:
            return "harmless"
        try:
            checkpoints.restore(2, trees[2])
        except ValueError as error:
            named = any(str(folder / "2") in text for text in warned)
            return "found" if named and "is damaged" in str(error) else "silent"
    return "silent"


def survey(folder, broken, warned):
    """(Counter of (kind, outcome), the silent ones), made in a folder.

    `broken` gives [(name, kind, random.Random)] for names of files, as `each` does; `warned` is the
    list that texts of warnings are appended to.
    """
    trees = states()
    original, copy = folder / "whole", folder / "run"
    with Checkpoints(original) as checkpoints:
        for step, tree in trees.items():
            checkpoints.save(step, tree, {"score": 1.0 / step})
    counts, silent = collections.Counter(), []
    for name, kind, draw in broken(files(original / "2")):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        if not mutate(copy / "2", copy / "1", name, kind, draw):
            continue
        result = outcome(copy, trees, warned)
        counts[kind, result] += 1
        silent += [f"{kind} {name}"] if result == "silent" else []
    return counts, silent


def each(names):
    """Every kind for every file once."""
    return [(name, kind, random.Random(f"{name} {kind}")) for name in names for kind in KINDS]


def drawn(count, seed):
    """A function like `each` of `count` files and kinds at random."""
    draw = random.Random(seed)
    return lambda names: ((draw.choice(names), draw.choice(KINDS), draw) for _ in range(count))


def main(arguments=None):
    settings = {"count": (1000, "mutations"), "seed": (0, "of them")}
    flags = options.parser(__doc__, settings).parse_args(arguments)
    warned = []
    # Warnings are collected, not printed: append gives None, which is False.
    logging.get_absl_logger().addFilter(lambda record: warned.append(record.getMessage()))
    with tempfile.TemporaryDirectory() as folder:
        counts, silent = survey(pathlib.Path(folder), drawn(flags.count, flags.seed), warned)
    for kind in KINDS:
        results = [f"{n} {result}" for (of, result), n in sorted(counts.items()) if of == kind]
        print(f"{kind:9}", ", ".join(results))
    end = f"{counts.total():,} mutations that changed a byte, {len(silent)} of them silent"
    print("\n".join([*silent, end]))
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
