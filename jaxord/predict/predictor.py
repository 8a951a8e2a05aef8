"""Predicts with a finished run: images as paths, PIL images or arrays; videos; sentence pairs.

Shapes: N examples, B batch, K ranks, k neighbours, A angles of a label (gaze).
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
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

# Operations per call and device: milliseconds of work, long beside the overhead of a call.
WORK = {"cpu": 2**27}
WORK_ACCELERATED = 2**43
Example = str | os.PathLike[str] | Image.Image | np.ndarray | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Predictions for N examples, in order. A broken one has nan, rank -1 and the rank name "".

    Attributes:
      value: f32[N] (f32[N, A] for angles), by the headline rule, on the label's scale.
      rank: i32[N], index of the value's rank; None for angles.
      rank_name: texts [N]; None for angles.
      probabilities: f32[N, K] over the ranks; None if the model gives no logits.
      neighbours: f32[N, k] (f32[N, k, A]), labels of the training examples that the headline rule
        `knn` found, nearest first; None under another rule.
      uncertainty: f32[N] on the label's scale. Under `knn` the standard deviation of the
        neighbours' labels y_j, sqrt(mean_j (y_j - mean y)^2), for angles the root of the summed
        variances; otherwise that of the distribution over the rank values v_k,
        sqrt(sum_k p_k (v_k - sum_l p_l v_l)^2); None without either.
      others: name of each further rule -> f32[N] (f32[N, A]).
      error: texts [N]: why an example could not be read, otherwise "".
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
    """A finished run, ready to predict; reads only its workdir, and threads may share it.

        predictor = Predictor.load("runs/hci-numclip", fold="3")
        print(predictor(["a.jpg", "b.jpg"]).value)

    The run's data set decides what an example is: an image, a video file or a pair of sentences
    (`jaxord.data.inputs`).

    Runs on all devices of this process. A row depends neither on the rows beside it nor on the
    batch or the number of devices: batch shape changes float sums slightly and could swap
    near-equal neighbours, so every device sees fixed-size pieces.
    """

    def __init__(self, run: trained_model.TrainedModel, batch: int = 0) -> None:
        """Take a run; `batch` examples are read and yielded at once, 0 for config.data.eval_batch.

        Raises ValueError if the headline rule reads labels, or the run lacks what examples need.
        """
        if batch < 0:
            raise ValueError(f"batch is {batch}; expected a number of examples, or 0 for the run's")
        self.run, self.batch = run, batch or run.config.data.eval_batch
        self.given = input_kind(run.config.data, run.vocabulary)
        self._mesh = devices.data_mesh(jax.local_devices())
        self._rules = list(configured_rules(run.config))
        replicated, rows = PartitionSpec(), PartitionSpec("data")
        specs = {"in_specs": (replicated, replicated, rows), "out_specs": rows}

        def forward(variables, constants, given):
            return answers(run, variables, constants, run.inputs(given))

        self._forward = jax.jit(jax.shard_map(forward, mesh=self._mesh, check_vma=False, **specs))
        self._held = devices.put((run.variables, run.constants), devices.replicated(self._mesh))
        self._piece = _piece(run, self._empty(1))
        shapes = jax.eval_shape(self._forward, *self._held, self._empty(self._mesh.size))
        # A rule that reads labels gives no value without them.
        headline, *others = self._rules
        if headline not in shapes:
            raise ValueError(
                f"{run.folder}: the first rule, {headline!r}, reads labels; others are {others}"
            )

    @classmethod
    def load(cls, workdir: str | os.PathLike[str], fold: str = "", batch: int = 0) -> Self:
        """Read a finished run; ValueError if there is none, or several folds and none is chosen."""
        return cls(trained_model.load(workdir, fold), batch)

    def __reduce__(self):
        return Predictor, (self.run, self.batch)

    def __call__(
        self, given: Example | Iterable[Example], broken: Literal["raise", "report"] = "raise"
    ) -> Prediction:
        """Predict.

        Args:
          given: of images a sequence of paths, PIL images and u8 arrays [H, W, 3] or [H, W] (grey);
            an array u8[N, H, W, 3] or u8[N, H, W]; or one of these images. Of videos a sequence of
            paths, or one. Of pairs of sentences a sequence of pairs of texts.
          broken: "raise" a ValueError if an example cannot be read, or "report" it in `error`.
        """
        if broken not in ("raise", "report"):
            raise ValueError(f"broken is {broken!r}; it takes 'raise' or 'report'")
        examples, noun = as_sequence(given), self.given.noun
        if not len(examples):
            raise ValueError(f"no {noun}; expected at least one")
        prediction = _joined(list(self.stream(examples)))
        rows = np.flatnonzero(prediction.error != "")
        if broken == "raise" and len(rows):
            reasons = [f"{_title(i, examples[i])}: {prediction.error[i]}" for i in rows[:5]]
            summary = f"{len(rows)} of {len(examples)} {noun} cannot be read"
            raise ValueError("\n  ".join([summary, *reasons]))
        return prediction

    def stream(self, given: Sequence[Example], start: int = 0) -> Iterator[Prediction]:
        """Yield the Prediction of each batch; threads read two batches ahead.

        Args:
          given: a sequence, see `__call__`.
          start: the first one to predict, a multiple of the batch.
        """
        size = self._piece * self._mesh.size
        read = _ahead(self._read, given[start:], self.run.config.data.workers, 2 * self.batch)
        # Each batch is fetched while the devices work on the next one.
        previous = None
        with contextlib.closing(read):
            while batch := list(itertools.islice(read, self.batch)):
                examples = [arrays for arrays, _ in batch]
                pieces = [examples[at : at + size] for at in range(0, len(batch), size)]
                calls = [self._call(piece) for piece in pieces]
                if previous:
                    yield self._prediction(*previous)
                previous = calls, np.array([error for _, error in batch], object)
        if previous:
            yield self._prediction(*previous)

    def _read(self, example):
        """({name: array}, "") of one example; ({}, reason) if it cannot be read."""
        try:
            return self.given.read(example), ""
        except OSError as error:
            return {}, error.strerror or str(error)
        except ValueError as error:
            return {}, str(error)

    def _empty(self, rows):
        """{name: array [rows, ...]} of placeholders."""
        return {
            name: np.repeat(array[None], rows, 0) for name, array in self.given.placeholder.items()
        }

    def _call(self, examples):
        """{name: array} on the devices; placeholders fill up the last piece."""
        arrays = self._empty(self._piece * self._mesh.size)
        for row, example in enumerate(examples):
            for name, array in example.items():
                arrays[name][row] = array
        return self._forward(*self._held, devices.put(arrays, devices.split(self._mesh)))

    def _prediction(self, calls, error):
        """The Prediction of as many rows as `error` has; the rest are placeholders."""
        calls = jax.device_get(calls)
        outputs = {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}
        outputs = {name: array[: len(error)] for name, array in outputs.items()}
        bad, ranks = error != "", self.run.ranks
        rank = names = None
        if ranks:
            rank = ranks.index(outputs[self._rules[0]])
            names = np.where(bad, "", np.array(ranks.names, object)[rank])
            rank[bad] = -1
        # Placeholders of broken examples have predictions too, which nan replaces.
        arrays = {**outputs, "uncertainty": _uncertainty(outputs, ranks)}
        for name, array in arrays.items():
            if array is not None:
                rows = bad.reshape(-1, *[1] * (array.ndim - 1))
                arrays[name] = np.where(rows, np.float32(np.nan), array)
        value, *others = (rule for rule in self._rules if rule in outputs)
        optional = map(arrays.get, ("probabilities", "neighbours", "uncertainty"))
        others = {rule: arrays[rule] for rule in others}
        return Prediction(arrays[value], rank, names, *optional, others, error)


def _uncertainty(outputs, ranks):
    """As of `Prediction`, computed in float64."""
    names = ("neighbours", "probabilities")
    wide = (outputs[n].astype(np.float64) if n in outputs else None for n in names)
    values = ranks.values.astype(np.float64) if ranks else None
    spread = inference.uncertainty(*wide, values)
    return None if spread is None else spread.astype(np.float32)


def _piece(run, example):
    """Examples per call and device: a power of two, by the model's work, at most eval_batch."""

    def model(variables, constants, given):
        return run.model.apply(nested(variables), {**constants, **run.inputs(given)})

    work = flops.count(model, run.variables, run.constants, example)
    budget = WORK.get(jax.default_backend(), WORK_ACCELERATED)
    most = min(budget // max(work, 1), run.config.data.eval_batch)
    return 1 << max(most.bit_length() - 1, 0)


def answers(run, variables, constants, inputs):
    """Rules' values by name, `probabilities` and `neighbours`; arguments as of `run.outputs`."""
    arrays = run.outputs(variables, constants, inputs)
    results = {rule: arrays[rule] for rule in configured_rules(run.config) if rule in arrays}
    if "logits" in arrays:
        results["probabilities"] = jax.nn.softmax(arrays["logits"].astype(np.float32), axis=-1)
    first = run.config.rules[0]
    if first["name"] == "knn":
        neighbours = configured(inference, {**first, "name": "neighbours"})
        labels = bind(neighbours, {**constants, **arrays}, first.get("arrays") or {})
        results["neighbours"] = run.config.data.target_scale * labels
    return results


def _joined(predictions):
    """Several Predictions as one."""

    def join(values):
        if isinstance(values[0], dict):
            return {name: join([value[name] for value in values]) for name in values[0]}
        return None if values[0] is None else np.concatenate(values)

    names = [field.name for field in dataclasses.fields(Prediction)]
    return Prediction(*(join([getattr(part, name) for part in predictions]) for name in names))


def _title(row, example):
    return f"{row}, {example}" if isinstance(example, (str, os.PathLike)) else str(row)


def _ahead(function, items, workers, depth):
    """Yield function(item) of each item in order; threads work up to `depth` items ahead."""
    pool, pending = concurrent.futures.ThreadPoolExecutor(workers), collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # If the consumer stops early, do not wait for the rest.
        pool.shutdown(wait=False, cancel_futures=True)
