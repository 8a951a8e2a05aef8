"""Checkpoints: complete or absent, and verified before they are read.

    <folder>/120/arrays/          orbax: one entry for each leaf of the state, named by its path
    <folder>/120/checkpoint.json  step, meta, and path -> [shape, dtype] of every leaf
    <folder>/120/sha256.json      name -> [bytes, sha256] of each of the files above

A checkpoint is written as `.unfinished-120` and renamed once all of it is on disk, so a kill never
leaves half of one. The checksums find accidents (flipped bits; files cut, lost, emptied or added),
not intent: whoever changes a file can change its checksum too.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxord import trees
from jaxord.runtime import hosts
from jaxord.workdir.files import sync, write_json

_Spec = collections.namedtuple("_Spec", "shape dtype")


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run: the last `keep`, and the one of the lowest score.

        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(120, state, dict(score=2.31))
            state = checkpoints.restore(checkpoints.latest(), state)

    Only `save` changes files, so reading a running or a read-only workdir is safe. Several
    processes make the same calls on one file system: each writes and reads its own arrays, process
    0 does the rest.
    """

    def __init__(self, folder, keep=2):
        self.folder = pathlib.Path(folder).absolute()
        self.keep = keep
        self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._pending = None  # the save under way
        self._damages = {}  # step -> what is wrong with its files; empty for a sound one

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Waits until all saves are on disk; raises their errors."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def steps(self):
        """The steps that have a checkpoint, sound or damaged, in order."""
        return self._ask(self._stored)

    def latest(self):
        """The newest sound step, None without checkpoints; ValueError if all are damaged."""
        return max(self._ask(self._sound), default=None)

    def best(self):
        """The sound step of the lowest score, the earlier of equal ones; None without scores."""
        return self._ask(lambda: self._best(self._sound()))

    def meta(self, step):
        """The `meta` that was saved with a step."""
        return self._ask(self._checked, step)["meta"]

    def save(self, step, state, meta):
        """Saves the state of a step in the background; the state may be donated at once.

        Does nothing if the step is stored already, unless its meta says `unjudged`. Renames damaged
        checkpoints of this and later steps to `<step>.damaged`. `meta` is a dict of JSON; the lower
        its `score` the better, and NaN is stored as no score.

        ValueError if a later step is stored and sound, or if the save before this one failed, as on
        a full disk, which leaves earlier checkpoints intact.
        """
        arrays = _by_path(state)
        specs = {path: [list(x.shape), str(x.dtype)] for path, x in arrays.items()}
        if not self._ask(self._begin, step, dict(step=step, meta=meta, arrays=specs)):
            return
        arrays = ocp.args.PyTreeSave({path: _once(leaf) for path, leaf in arrays.items()})
        with self._writing(step):
            self._orbax.save(self._unfinished(step) / "arrays", args=arrays)
        self._pending = self._thread.submit(self._finish, step)

    def restore(self, step, like, parts=()):
        """Reads the state of a step, bit by bit as it was saved.

        ValueError for a missing or damaged step; lists all paths, shapes and dtypes that differ.

        Args:
          step: one of `steps`.
          like: a tree of arrays or jax.ShapeDtypeStructs with the structure, shapes, dtypes and
            shardings of the result; a leaf without sharding comes to the first device.
          parts: fields of the state that `like` has, e.g. ("trained", "frozen"); () is all.
        """
        specs = self._ask(self._checked, step)["arrays"]
        chosen = [path for path in specs if not parts or path.split("/")[0] in parts]
        stored = {path: _Spec(*specs[path]) for path in chosen}
        targets = _by_path(like)
        expected = {path: _Spec(x.shape, str(x.dtype)) for path, x in targets.items()}
        folder = self.folder / str(step)
        lines = trees.difference(stored, expected, "the checkpoint", "this run")
        if lines:
            raise ValueError("\n  ".join([f"{folder} does not fit this run's state", *lines]))
        targets = {path: _target(leaf) for path, leaf in targets.items()}
        restore_args = ocp.checkpoint_utils.construct_restore_args(targets)
        args = ocp.args.PyTreeRestore(item=targets, restore_args=restore_args, partial_restore=True)
        arrays = self._orbax.restore(folder / "arrays", args=args)
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in targets])

    def read(self, step, parts):
        """Parts of a step on the host, {part: {path: numpy array}}, in the shapes it was saved."""
        like = {part: {} for part in parts}
        for path, (shape, dtype) in self._ask(self._checked, step)["arrays"].items():
            part, _, rest = path.partition("/")
            if part in like:
                like[part][rest] = np.empty(shape, jax.numpy.dtype(dtype))
        return self.restore(step, like, parts)

    def _ask(self, question, *arguments):
        """Waits for pending saves, runs `question` on process 0, broadcasts the answer."""
        self._wait()
        return hosts.first(question)(*arguments)

    def _wait(self):
        pending, self._pending = self._pending, None  # an error is raised once
        if pending:
            pending.result()

    def _unfinished(self, step):
        return self.folder / f".unfinished-{step}"

    def _stored(self):
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdecimal())

    def _sound(self):
        """The undamaged steps; ValueError if all are damaged, as starting again would hide that."""
        steps = self._stored()
        sound = [step for step in steps if not self._damage(step)]
        if steps and not sound:
            title = f"all checkpoints in {self.folder} are damaged; to start again, move them away"
            lines = [f"{step}: {'; '.join(self._damage(step))}" for step in steps]
            raise ValueError("\n  ".join([title, *lines]))
        return sound

    def _best(self, steps):
        scores = {step: self._record(step)["meta"].get("score") for step in steps}
        scored = [step for step in steps if scores[step] is not None]
        return min(scored, key=lambda step: (scores[step], step), default=None)

    def _begin(self, step, record):
        """Makes room for a step and writes its record; False if it is stored already."""
        stored = [s for s in self._stored() if s >= step]
        sound = [s for s in stored if not self._damage(s)]
        if sound == [step] and not self._record(step)["meta"].get("unjudged"):
            return False
        if sound and sound != [step]:
            later = f"step {step} is to be saved, and {self.folder} holds the later steps {sound}"
            raise ValueError(f"{later}; train on from the latest, or use another folder")
        for leftover in self.folder.glob(".unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A damaged checkpoint is kept aside under another name, for whoever looks for the cause.
        for damaged in [self.folder / str(s) for s in stored if s not in sound]:
            shutil.rmtree(f"{damaged}.damaged", ignore_errors=True)
            os.replace(damaged, f"{damaged}.damaged")
        with self._writing(step):
            self._unfinished(step).mkdir(parents=True)
            write_json(self._unfinished(step) / "checkpoint.json", record)
        return True

    @contextlib.contextmanager
    def _writing(self, step):
        """Turns a failed write into a ValueError, and removes its files, to free the disk."""
        try:
            yield
        except (OSError, ValueError) as error:  # orbax raises both
            if hosts.is_first():
                shutil.rmtree(self._unfinished(step), ignore_errors=True)
            before = [s for s in self._stored() if not self._damage(s)]
            state = f"that of step {before[-1]} is whole" if before else "there is none before it"
            # orbax adds pages of its own settings.
            reason = str(error).partition(" [tensorstore_spec")[0]
            title = f"the checkpoint of step {step} could not be written, {state}"
            advice = "make room, or remove the cause, and the same command goes on"
            raise ValueError(f"{title}; {advice}\n  {reason}") from error

    def _finish(self, step):
        """In the background: publishes the checkpoint by renaming it, removes the old ones."""
        with self._writing(step):
            self._orbax.wait_until_finished()  # until all processes have written
            if hosts.is_first():
                self._seal(step)
        if hosts.is_first():
            self._publish(step)
            steps = self._stored()
            best = self._best([s for s in steps if not self._damage(s)])
            for old in set(steps[: -self.keep]) - {best}:
                os.replace(self.folder / str(old), self._unfinished(old))
                shutil.rmtree(self._unfinished(old))

    def _seal(self, step):
        """Writes the checksums, and waits until all of a step is on disk."""
        folder = self._unfinished(step)
        write_json(folder / "sha256.json", _sums(folder))
        for path in folder.rglob("*"):
            sync(path)

    def _publish(self, step):
        self._damages[step] = []
        final, replaced = self.folder / str(step), self._unfinished(f"{step}.unjudged")
        # A kill between the two renames loses an unjudged checkpoint; the one before it stays.
        if final.exists():
            os.replace(final, replaced)
        os.replace(self._unfinished(step), final)
        sync(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def _record(self, step):
        return json.loads((self.folder / str(step) / "checkpoint.json").read_text())

    def _damage(self, step):
        """What is wrong with the files of a step, one line each; verified and logged once."""
        if step not in self._damages:
            folder = self.folder / str(step)
            lines = self._damages[step] = _compare(folder)
            if lines:
                text = "the checkpoint %s is damaged and passed over: %s"
                logging.warning(text, folder, "; ".join(lines))
        return self._damages[step]

    def _checked(self, step):
        """The record of a step whose files are sound."""
        steps = self._stored()
        if step not in steps:
            raise ValueError(f"{self.folder} has no checkpoint of step {step}; it has {steps}")
        if damage := self._damage(step):
            folder = self.folder / str(step)
            raise ValueError(f"the checkpoint {folder} is damaged: {'; '.join(damage)}")
        return self._record(step)


def _by_path(tree):
    """{'opt_state/0/mu/...': leaf}; NamedTuples and dataclasses need no care."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _once(leaf):
    """One device's copy of a replicated array, which orbax would otherwise cut into parts."""
    alone = jax.process_count() == 1 and isinstance(leaf, jax.Array) and leaf.is_fully_replicated
    return leaf.addressable_data(0) if alone else leaf


def _target(leaf):
    """The form of a leaf that orbax is to restore."""
    if isinstance(leaf, np.ndarray):
        return leaf
    first_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or first_device
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _sums(folder):
    """{name: [bytes, sha256]} of the files of a checkpoint, as in its sha256.json."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): _digest(path) for path in paths}
    return {name: entry for name, entry in sums.items() if name != "sha256.json"}


def _digest(path):
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _compare(folder):
    """The differences between the files of a checkpoint and its sha256.json, one line each."""
    try:
        written = json.loads((folder / "sha256.json").read_text())
    except (OSError, ValueError) as error:
        return [f"sha256.json cannot be read ({error})"]
    entries = written.values() if isinstance(written, dict) else [None]
    if not all(isinstance(entry, list) and len(entry) == 2 for entry in entries):
        return ["sha256.json has changed: it holds no sums"]
    found = _sums(folder)
    lines = [
        f"{name} has changed: {found.get(name, ['no'])[0]} bytes found, {size} written"
        for name, (size, digest) in written.items()
        if found.get(name) != [size, digest]
    ]
    return lines + [f"{name} was not written with it" for name in found if name not in written]
