"""A finished run as a function of what people have: images as paths, PIL images, arrays; videos by
paths; pairs of sentences.

Shapes: N examples, B batch, K ranks, k neighbours, A angles of a label (gaze).
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

import jax
import numpy as np
from jax.sharding import PartitionSpec
from PIL import Image

from jaxord import inference
from jaxord.binding import bind, configured
from jaxord.data.inputs import as_sequence, input_kind
from jaxord.predict import trained_model
from jaxord.runtime import devices, flops
from jaxord.task import configured_rules
from jaxord.trees import nested

WORK = {
    "cpu": 2**27
}  # operations of a call of the model on one device: milliseconds, long beside what a call takes
WORK_ACCELERATED = 2**43
Example = str | os.PathLike[str] | Image.Image | np.ndarray | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says about N examples, in their order. A broken one has nan, rank -1 and the rank
    name "".

    Attributes:
      value: f32[N] (f32[N, A] for angles), by the headline rule, on the label's scale.
      rank: i32[N], index of the value's rank; None for angles.
      rank_name: texts [N]; None for angles.
      probabilities: f32[N, K] over the ranks; None where the model gives no logits.
      neighbours: f32[N, k] (f32[N, k, A]), labels of the training images that the headline rule
        `knn` found, nearest first; None under another rule.
      uncertainty: f32[N] on the label's scale: the standard deviation of the neighbours' labels y_j
        under `knn`, sqrt(mean_j (y_j - mean y)^2), of several angles the root of the sum of their
        variances; else that of the distribution over the ranks' values v_k, sqrt(sum_k p_k (v_k -
        sum_l p_l v_l)^2); None where there is neither.
      others: name of each further rule -> f32[N] (f32[N, A]).
      error: texts [N]: why an example could not be read, "" where it could.
    """

    value: np.ndarray
    rank: np.ndarray | None
    rank_name: np.ndarray | None
    probabilities: np.ndarray | None
    neighbours: np.ndarray | None
    uncertainty: np.ndarray | None
    others: dict[str, np.ndarray]
    error: np.ndarray


class Predictor:
    """A finished run, ready to predict; reads nothing but its workdir, and may be shared by
    threads.

        predictor = Predictor.load("runs/hci-numclip", fold="3")
        print(predictor(["a.jpg", "b.jpg"]).value)

    What an example is the data of the run say: an image, a video's file, a pair of sentences
    (`jaxord.data.inputs`).

    Runs on all devices of this process. A row does not depend on the rows beside it, nor on the
    batch or the number of devices: each sees pieces of always as many examples. For float sums vary
    with the shape of an array, and neighbours whose distances differ by less than that would change
    places.
    """

    def __init__(self, run: trained_model.Finished, batch: int = 0) -> None:
        """Takes what `finished.load` gives.

        Args:
          run: jaxord.predict.trained_model.Finished.
          batch: examples that are read and yielded at once, of which the model sees piece by piece;
            0 is config.data.eval_batch.

        Raises:
          ValueError: a run whose headline rule reads labels, or that lacks what its kind of
            examples needs.
        """
        if batch < 0:
            raise ValueError(
                f"batch is {batch}; expected a number of examples, or 0 for the run's own"
            )
        self.run, self.batch = run, batch or run.config.data.eval_batch
        self.given = input_kind(run.config.data, run.vocabulary)
        self._mesh = devices.data_mesh(jax.local_devices())
        self._rules = list(configured_rules(run.config))
        whole, rows = PartitionSpec(), PartitionSpec("data")
        forward = functools.partial(_forward, run)
        self._forward = jax.jit(
            jax.shard_map(
                forward,
                mesh=self._mesh,
                in_specs=(whole, whole, rows),
                out_specs=rows,
                check_vma=False,
            )
        )
        self._held = devices.put((run.variables, run.constants), devices.replicated(self._mesh))
        self._piece = _piece(run, self._empty(1))
        shapes = jax.eval_shape(self._forward, *self._held, self._empty(self._mesh.size))
        if self._rules[0] not in shapes:
            raise ValueError(
                f"{run.folder}: the first rule, {self._rules[0]!r}, reads labels; others are {self._rules[1:]}"
            )

    @classmethod
    def load(cls, workdir: str | os.PathLike[str], fold: str = "", batch: int = 0) -> Self:
        """The predictor of a run's folder; ValueError where it is not finished, or has several
        folds and none is chosen."""
        return cls(trained_model.load(workdir, fold), batch)

    def __reduce__(self):
        return Predictor, (self.run, self.batch)

    def __call__(
        self, given: Example | Iterable[Example], broken: Literal["raise", "report"] = "raise"
    ) -> Prediction:
        """Predicts.

        Args:
          given: of images a sequence of paths, PIL images and u8 arrays [H, W, 3] or [H, W] (grey);
            an array u8[N, H, W, 3] or u8[N, H, W]; or one path, PIL image or array [H, W, 3] or [H,
            W]. Of videos a sequence of paths, or one. Of pairs of sentences a sequence of pairs of
            texts.
          broken: "raise" a ValueError where an example cannot be read, or "report" it in the field
            `error`.

        Returns:
          Prediction.
        """
        if broken not in ("raise", "report"):
            raise ValueError(f"broken is {broken!r}; it takes 'raise' or 'report'")
        each, noun = as_sequence(given), self.given.noun
        if not len(each):
            raise ValueError(f"no {noun}; expected at least one")
        parts = list(self.stream(each))
        error = np.concatenate([part.error for part in parts])
        if broken == "raise" and any(error):
            rows = np.flatnonzero(error != "")
            shown = [f"{row}{_known_as(each[row])}: {error[row]}" for row in rows[:5]]
            raise ValueError(
                "\n  ".join([f"{len(rows)} of {len(each)} {noun} cannot be read", *shown])
            )
        return _joined(parts)

    def stream(self, given: Sequence[Example], start: int = 0) -> Iterator[Prediction]:
        """Predicts batch by batch, and holds no more than a few; threads read two batches ahead.

        Args:
          given: a sequence, see `__call__`.
          start: the first one to predict, a multiple of the batch.

        Yields:
          Prediction of `batch` examples, of the last batch perhaps of fewer.
        """
        size = self._piece * self._mesh.size
        read = _ahead(self._read, given[start:], self.run.config.data.workers, 2 * self.batch)
        late = None  # the batch before, fetched while the devices work on this one
        with contextlib.closing(read):
            while batch := list(itertools.islice(read, self.batch)):
                outputs = [
                    self._call([found for found, _ in batch[at : at + size]])
                    for at in range(0, len(batch), size)
                ]
                if late:
                    yield self._prediction(*late)
                late = outputs, np.array([reason for _, reason in batch], object)
        if late:
            yield self._prediction(*late)

    def _read(self, example):
        """({name: array}, "") of one example; nothing and the reason where it cannot be read."""
        try:
            return self.given.read(example), ""
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        return {}, reason

    def _empty(self, rows):
        """{name: array [rows, ...]} of examples that are none."""
        arrays = self.given.placeholder
        return {name: np.repeat(array[None], rows, 0) for name, array in arrays.items()}

    def _call(self, examples):
        """{name: array} on the devices, of a piece for each of them, or of fewer examples, which
        are filled up."""
        arrays = self._empty(self._piece * self._mesh.size)
        for row, found in enumerate(examples):
            for name, array in found.items():
                arrays[name][row] = array
        return self._forward(*self._held, devices.put(arrays, devices.split(self._mesh)))

    def _prediction(self, calls, error):
        """The Prediction of the rows that have an entry in `error`; what fills up the last call is
        cut off."""
        calls = jax.device_get(calls)
        outputs = {
            name: np.concatenate([call[name] for call in calls])[: len(error)] for name in calls[0]
        }
        bad, ranks = error != "", self.run.ranks
        values = {rule: outputs[rule] for rule in self._rules if rule in outputs}
        probabilities, neighbours = outputs.get("probabilities"), outputs.get("neighbours")
        rank = names = None
        if ranks:
            rank = ranks.index(values[self._rules[0]])
            names = np.where(bad, "", np.array(ranks.names, object)[rank])
            rank[bad] = -1
        uncertainty = None
        if neighbours is not None:
            spread = neighbours.astype(np.float64).var(axis=1)
            uncertainty = np.sqrt(spread if spread.ndim == 1 else spread.sum(1)).astype(np.float32)
        elif probabilities is not None and ranks:
            p, v = probabilities.astype(np.float64), ranks.values.astype(np.float64)
            uncertainty = np.sqrt((p * (v - (p @ v)[:, None]) ** 2).sum(1)).astype(np.float32)
        value, *others = ((rule, _without(array, bad)) for rule, array in values.items())
        rest = (_without(array, bad) for array in (probabilities, neighbours, uncertainty))
        return Prediction(value[1], rank, names, *rest, dict(others), error)


def _piece(run, example):
    """How many examples a device sees at once: by their work in the model, a power of two,
    config.data.eval_batch at most."""

    def model(variables, constants, given):
        return run.model.apply(nested(variables), {**constants, **run.inputs(given)})

    work = flops.count(model, run.variables, run.constants, example)
    most = min(
        WORK.get(jax.default_backend(), WORK_ACCELERATED) // max(work, 1),
        run.config.data.eval_batch,
    )
    return 1 << max(most.bit_length() - 1, 0)


def _forward(run, variables, constants, given):
    return answers(run, variables, constants, run.inputs(given))


def answers(run, variables, constants, inputs):
    """Each rule's value, `probabilities` where there are logits, `neighbours` where the first rule
    is knn; for jit.

    Args:
      run, variables, constants: as of `finished.Finished.outputs`.
      inputs: of the model.
    """
    arrays = run.outputs(variables, constants, inputs)
    found = {rule: arrays[rule] for rule in configured_rules(run.config) if rule in arrays}
    if "logits" in arrays:
        found["probabilities"] = jax.nn.softmax(arrays["logits"].astype(np.float32), axis=-1)
    first = run.config.rules[0]
    if first["name"] == "knn":
        nearest = configured(inference, {**first, "name": "neighbours"})
        labels = bind(nearest, {**constants, **arrays}, first.get("arrays") or {})
        found["neighbours"] = run.config.data.target_scale * labels
    return found


def _without(array, bad):
    """The array with nan in the bad rows; None stays."""
    return (
        array
        if array is None
        else np.where(bad.reshape(-1, *[1] * (array.ndim - 1)), np.float32(np.nan), array)
    )


def _joined(parts):
    """Several Predictions as one."""

    def join(values):
        if isinstance(values[0], dict):
            return {name: join([value[name] for value in values]) for name in values[0]}
        return None if values[0] is None else np.concatenate(values)

    return Prediction(
        *(
            join([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Prediction)
        )
    )


def _known_as(example):
    return f", {example}" if isinstance(example, (str, os.PathLike)) else ""


def _ahead(function, items, workers, depth):
    """Yields function(item) of each item in order; threads work up to `depth` items ahead."""
    pool, pending = concurrent.futures.ThreadPoolExecutor(workers), collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also where the consumer stops early: do not wait for the rest
        pool.shutdown(wait=False, cancel_futures=True)
