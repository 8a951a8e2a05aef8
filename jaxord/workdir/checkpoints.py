"""Checkpoints that are whole or not there and are checked before they are read.

    <folder>/120/arrays/          orbax: one entry for each leaf of the state, named by its path
    <folder>/120/checkpoint.json  step, meta, and path -> [shape, dtype] of every leaf
    <folder>/120/sha256.json      name -> [bytes, sha256] of each of the files above

A checkpoint is written as `.unfinished-120` and renamed when all of it is on disk, so a kill never
leaves half of one.

What happens to a file by accident is found: bits that flip, a file that is cut, lost or emptied,
one that was not written. It is no protection against intent: who changes a file and its sum in
sha256.json alike is believed.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxord import trees
from jaxord.runtime import devices
from jaxord.workdir.files import sync, write_json

_Spec = collections.namedtuple("_Spec", "shape dtype")


class Checkpoints:
    """The checkpoints of one run: the last `keep`, and the one of the lowest score.

        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(120, state, dict(score=2.31))
            state = checkpoints.restore(checkpoints.latest(), state)

    Only `save` writes, moves or removes anything, so reading a running or a read-only workdir is
    safe. Several processes call the same methods, on one file system: each writes and reads its
    arrays, all else is what the first one finds.
    """

    def __init__(self, folder, keep=2):
        self.folder, self.keep = pathlib.Path(folder).absolute(), keep
        self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._pending = None  # the save under way
        self._damages = {}  # step -> what is wrong with its files; empty for a sound one

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Waits until what was saved is durable; raises what went wrong in writing it."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def steps(self):
        """The steps that have a checkpoint, sound or damaged, in order."""
        return self._ask(self._stored)

    def latest(self):
        """The newest step whose files are sound, or None where there is no checkpoint.

        Raises:
          ValueError: there are checkpoints and all are damaged; starting again would hide that.
        """
        return max(self._ask(self._sound), default=None)

    def best(self):
        """The sound step of the lowest score, the earliest of equal ones, or None where none has a
        score."""
        return self._ask(lambda: self._best(self._sound()))

    def meta(self, step):
        """The `meta` that was saved with a step."""
        return self._ask(self._checked, step)["meta"]

    def save(self, step, state, meta):
        """Stores the state of a step; the writing goes on in the background, the state may be
        donated at once.

        Nothing is done where the step is stored already, so evaluate first: `meta` should hold its
        score; but one whose meta says `unjudged` is replaced. Damaged checkpoints of this or a
        later step are set aside as `<step>.damaged`.

        Args:
          step: int, the updates made.
          state: a tree of arrays.
          meta: a dict that JSON can hold; `score`, if it is there, is better when lower; NaN is
            never the best and comes back as None.

        Raises:
          ValueError: a sound checkpoint of a later step is there: the run did not go on from it. Or
            the step before could not be written, as on a full disk: what was there before that one
            is as it was.
        """
        arrays = _by_path(state)
        specs = {path: [list(x.shape), str(x.dtype)] for path, x in arrays.items()}
        if self._ask(self._begin, step, dict(step=step, meta=meta, arrays=specs)):
            arrays = {path: _once(leaf) for path, leaf in arrays.items()}
            with self._writing(step):
                self._orbax.save(
                    self._unfinished(step) / "arrays", args=ocp.args.PyTreeSave(arrays)
                )
            self._pending = self._thread.submit(self._finish, step)

    def restore(self, step, like, parts=()):
        """Reads the state of a step.

        Args:
          step: from `latest` or `best`.
          like: a tree of arrays or jax.ShapeDtypeStructs with the structure, shapes, dtypes and
            shardings to give back; a leaf without sharding comes to the first device. The saving
            run may have had other devices.
          parts: the state's fields to read, e.g. ("trained", "frozen"), where `like` has only
            those; () is all.

        Returns:
          A tree like `like`, equal to what was saved bit by bit.

        Raises:
          ValueError: no such step, damaged files, or paths, shapes or dtypes that differ, all of
            them listed.
        """
        arrays = self._ask(self._checked, step)["arrays"]
        stored = {
            path: _Spec(*spec)
            for path, spec in arrays.items()
            if not parts or path.split("/")[0] in parts
        }
        targets = _by_path(like)
        asked = {path: _Spec(x.shape, str(x.dtype)) for path, x in targets.items()}
        lines = trees.difference(stored, asked, "the checkpoint", "this run")
        if lines:
            raise ValueError(
                f"{self.folder / str(step)} does not fit this run's state\n  " + "\n  ".join(lines)
            )
        targets = {path: _target(leaf) for path, leaf in targets.items()}
        restore_args = ocp.checkpoint_utils.construct_restore_args(targets)
        args = ocp.args.PyTreeRestore(item=targets, restore_args=restore_args, partial_restore=True)
        found = self._orbax.restore(self.folder / str(step) / "arrays", args=args)
        return jax.tree.unflatten(jax.tree.structure(like), [found[path] for path in targets])

    def read(self, step, parts):
        """The parts of a step as they were saved, on the host: {part: {path: numpy array}}; needs
        to know no shapes."""
        like = {part: {} for part in parts}
        for path, (shape, dtype) in self._ask(self._checked, step)["arrays"].items():
            part, _, rest = path.partition("/")
            if part in like:
                like[part][rest] = np.empty(shape, jax.numpy.dtype(dtype))
        return self.restore(step, like, parts)

    def _ask(self, question, *arguments):
        """What the first process answers once all that was saved is on disk; the methods below are
        such questions."""
        self._wait()
        return devices.first(question)(*arguments)

    def _unfinished(self, step):
        return self.folder / f".unfinished-{step}"

    def _stored(self):
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdecimal())

    def _sound(self):
        """The steps without damage; where all have some, starting again would hide that, and
        ValueError says so."""
        steps = self._stored()
        sound = [step for step in steps if not self._damage(step)]
        if steps and not sound:
            lines = "".join(f"\n  {step}: {'; '.join(self._damage(step))}" for step in steps)
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged; to start again, move them away{lines}"
            )
        return sound

    def _begin(self, step, record):
        """Makes room for a step and writes its record; False where it is stored already."""
        stored = [s for s in self._stored() if s >= step]
        sound = [s for s in stored if not self._damage(s)]
        if sound == [step] and not self._record(step)["meta"].get("unjudged"):
            return False
        if sound and sound != [step]:
            raise ValueError(
                f"step {step} is to be saved, and {self.folder} holds the later steps {sound}; train on "
                "from the latest, or use another folder"
            )
        stored = [s for s in stored if s not in sound]
        for left in [
            *self.folder.glob(".unfinished-*"),
            *(self.folder / f"{s}.damaged" for s in stored),
        ]:
            shutil.rmtree(left, ignore_errors=True)
        for s in stored:
            os.replace(self.folder / str(s), self.folder / f"{s}.damaged")
        with self._writing(step):
            self._unfinished(step).mkdir(parents=True)
            write_json(self._unfinished(step) / "checkpoint.json", record)
        return True

    @contextlib.contextmanager
    def _writing(self, step):
        """Makes one ValueError of what the system refuses to write, and leaves nothing of the step,
        which would take room."""
        try:
            yield
        except (OSError, ValueError) as error:  # the latter is orbax's
            if devices.is_first():
                shutil.rmtree(self._unfinished(step), ignore_errors=True)
            before = [s for s in self._stored() if not self._damage(s)]
            whole = f"that of step {before[-1]} is whole" if before else "there is none before it"
            reason = str(error).partition(" [tensorstore_spec")[
                0
            ]  # which is long and tells nobody anything
            raise ValueError(
                f"the checkpoint of step {step} could not be written, {whole}; make room, or mend what is said "
                f"here, and the same command goes on\n  {reason}"
            ) from error

    def _record(self, step):
        return json.loads((self.folder / str(step) / "checkpoint.json").read_text())

    def _best(self, steps):
        scores = {s: self._record(s)["meta"].get("score") for s in steps}
        judged = (
            s for s in steps if scores[s] is not None and not math.isnan(scores[s])
        )  # nan: of older runs
        return min(judged, key=lambda s: (scores[s], s), default=None)

    def _wait(self):
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _finish(self, step):
        """In the background: the rename that makes the checkpoint exist, removal of those not
        kept."""
        with self._writing(step):
            self._orbax.wait_until_finished()  # until all processes have written
            if devices.is_first():
                self._seal(step)
        if devices.is_first():
            self._damages[step] = []
            folder = self._unfinished(step)
            if (
                self.folder / str(step)
            ).exists():  # unjudged; a process that ends between the lines leaves the one before
                os.replace(self.folder / str(step), self._unfinished(f"{step}.unjudged"))
            os.replace(folder, self.folder / str(step))
            sync(self.folder)
            shutil.rmtree(self._unfinished(f"{step}.unjudged"), ignore_errors=True)
            steps = self._stored()
            for old in set(steps[: -self.keep]) - {
                self._best([s for s in steps if not self._damage(s)])
            }:
                os.replace(self.folder / str(old), self._unfinished(old))
                shutil.rmtree(self._unfinished(old))

    def _seal(self, step):
        """Writes the checksums, and waits until all of a step is on disk."""
        folder = self._unfinished(step)
        write_json(
            folder / "sha256.json",
            {str(path.relative_to(folder)): _digest(path) for path in _files(folder)},
        )
        for path in folder.rglob("*"):
            sync(path)

    def _damage(self, step):
        """What is wrong with the files of a step, one line each; read once, and reported once."""
        if step not in self._damages:
            folder = self.folder / str(step)
            lines = self._damages[step] = _compare(folder)
            if lines:
                logging.warning(
                    "the checkpoint %s is damaged and passed over: %s", folder, "; ".join(lines)
                )
        return self._damages[step]

    def _checked(self, step):
        """The record of a step whose files are sound."""
        if step not in self._stored():
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}; it has {self._stored()}"
            )
        if self._damage(step):
            raise ValueError(
                f"the checkpoint {self.folder / str(step)} is damaged: {'; '.join(self._damage(step))}"
            )
        return self._record(step)


def _by_path(tree):
    """{'opt_state/0/mu/...': leaf}. Names are stored, not containers, so NamedTuples and
    dataclasses need no care."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _once(leaf):
    """One device's copy of an array that all have: orbax would cut it in as many parts, though one
    process writes them all."""
    alone = jax.process_count() == 1 and isinstance(leaf, jax.Array) and leaf.is_fully_replicated
    return leaf.addressable_data(0) if alone else leaf


def _target(leaf):
    """What orbax is to give back for a leaf."""
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0]
    )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path):
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _compare(folder):
    """The differences between the files of a checkpoint and its sha256.json."""
    try:
        written = json.loads((folder / "sha256.json").read_text())
    except (OSError, ValueError) as error:
        return [f"sha256.json cannot be read ({error})"]
    if not isinstance(written, dict) or not all(
        isinstance(sum_, list) and len(sum_) == 2 for sum_ in written.values()
    ):
        return ["sha256.json has changed: it holds no sums"]
    there = {str(path.relative_to(folder)) for path in _files(folder)} - {"sha256.json"}
    found = {name: _digest(folder / name) if name in there else ["no"] for name in written}
    return [
        *(
            f"{name} has changed: {found[name][0]} bytes found, {expected[0]} written"
            for name, expected in written.items()
            if found[name] != expected
        ),
        *(f"{name} was not written with it" for name in sorted(there - written.keys())),
    ]
