"""Ordinal regression of images as a scikit-learn estimator: `fit` is `train.run` in a folder."""

import contextlib
import copy
import dataclasses
import hashlib
import numbers
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from jaxord import train
from jaxord.data.inputs import as_sequence, encoded
from jaxord.predict.predictor import Example, Predictor
from jaxord.workdir import files, run_config


@dataclasses.dataclass(eq=False, repr=False)
class OrdinalRegressor(RegressorMixin, BaseEstimator):
    """A method of a config, trained on images in memory or in files.

        model = jaxord.OrdinalRegressor(method="l1", steps=500).fit(images, ages)
        model.predict(others), model.score(others, their_ages)
        model.predictor_(others).uncertainty

    `score` is scikit-learn's R2 = 1 - sum (y - f)^2 / sum (y - mean y)^2: 1 at best, 0 for the
    mean. Images are u8[N, H, W, 3], u8[N, H, W], or a sequence of paths, PIL images and such
    arrays, as of `Predictor`. `fit` checks the settings.

    Args:
      config: a config with its argument as on the command line; the config.json of a run; or a
        ConfigDict. Its data are not read.
      method: overrides the argument's method=; "" keeps the config's.
      steps: of training; 0 keeps the config's duration.
      image_size: pixels that the model sees, of images stored at 8/7 of it; 0 keeps the config's.
      seed: of everything.
      holdout: share of the samples, at least one, that is not trained on but scored in
        results.json. The parameters are those of the last step.
      settings: further fields of the config, {"optim.rates.all.lr": 1e-3}.
      workdir: of the run, where the same fit resumes or is done already; "" is a temporary one.

    Attributes:
      predictor_: jaxord.Predictor of the run, after `fit`: probabilities, neighbours, uncertainty,
        all rules.
    """

    config: str | os.PathLike[str] | ConfigDict = "folder:backbone=tiny"
    _: dataclasses.KW_ONLY
    method: str = ""
    steps: int = 0
    image_size: int = 0
    seed: int = 0
    holdout: float = 0.1
    settings: Mapping[str, Any] | None = None
    workdir: str | os.PathLike[str] = ""
    predictor_: Predictor = dataclasses.field(init=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Iterable[Example], y: ArrayLike) -> Self:
        """Trains on N images X and their N numbers y.

        Raises:
          ValueError: labels that are no finite numbers, or not as many as images; images that
            cannot be read; a workdir that holds another fit; all that training raises.
        """
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        images, targets = samples(X), column_or_1d(y, warn=True)
        targets = check_array(targets, ensure_2d=False, dtype=np.float64, input_name="y")
        check_consistent_length(images, targets)
        if not 0 < self.holdout < 1 or len(images) < 3:
            problem = f"holdout is {self.holdout} of n_samples = {len(images)}"
            raise ValueError(f"{problem}; expected a share between 0 and 1, of at least 3 samples")
        # Without a workdir the run is gone afterwards; the predictor holds all that it needs.
        temporary = not self.workdir and tempfile.TemporaryDirectory(prefix="jaxord-")
        with temporary or contextlib.nullcontext(self.workdir) as folder:
            workdir = pathlib.Path(folder)
            config = self._config(workdir / "data")
            write_samples(workdir / "data", images, targets, self.holdout, self.seed)
            train.run(config, workdir)
            self.predictor_ = Predictor.load(workdir)
        return self

    def predict(self, X: Iterable[Example]) -> np.ndarray:
        """Predictions f32[N] by the run's headline rule; ValueError if an image cannot be read."""
        check_is_fitted(self)
        return self.predictor_(samples(X)).value

    def _config(self, root):
        """The finished config, on the samples under `root`."""
        for name in ("steps", "image_size"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < 0:
                expected = "expected a whole number, 0 for the config's own"
                raise ValueError(f"{name} is {value!r}; {expected}")
        c = read_config(self.config, self.method).unlock()
        c.data.reader = ConfigDict({"name": "sources.own"}, type_safe=False)
        c.data.update({"root": str(root), "table": "table.csv", "folds": ()})
        c.update({"fold": "", "seed": int(self.seed), "select": "last"})
        c.train.evaluate_every = c.train.checkpoint_every = "20 percent"
        if self.steps:
            c.train.duration = f"{self.steps} steps"
        if self.image_size:
            c.data.image_size = int(self.image_size)
            c.data.stored_size = -(-8 * c.data.image_size // 7)
        c.lock()  # so that a mistyped field is an error
        try:
            c.update_from_flattened_dict(self.settings or {})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"settings are {self.settings}: {error}") from None
        return c


def samples(X):
    """X as a list of images: the first axis of an array is the samples', one path is a list."""
    return list(X) if isinstance(X, np.ndarray) else as_sequence(X)


def read_config(config, method=""):
    """The ConfigDict that OrdinalRegressor's `config` and `method` name.

    Raises:
      ValueError: no such config; a method beside a config that is finished.
    """
    if not isinstance(config, ConfigDict) and not str(config).endswith(".json"):
        path, _, argument = str(config).partition(":")
        options = ",".join(filter(None, [argument, method and f"method={method}"]))
        return run_config.load_config(f"{path}:{options}" if options else path)
    finished = (
        copy.deepcopy(config) if isinstance(config, ConfigDict) else run_config.load_config(config)
    )
    if method and method != finished.method:
        problem = f"method is {method!r}, but the config given is finished, of {finished.method!r}"
        raise ValueError(f"{problem}; give a config file")
    return finished


def write_samples(root, images, targets, holdout, seed):
    """Writes the samples as a user's own table: <root>/table.csv (path, label, split) and images.

    File names hash the images' bytes, so that equal tables mean equal samples.

    Raises:
      ValueError: images that cannot be read; a table of other samples.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    split = np.full(len(images), "train", object)
    split[order[: max(1, round(holdout * len(images)))]] = "test"
    table, lines = root / "table.csv", ["path,label,split"]
    finished = table.exists()  # it is written last
    (root / "images").mkdir(parents=True, exist_ok=True)
    for row, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
        try:
            content = encoded(image)
        except (OSError, ValueError) as error:
            raise ValueError(f"image {row} cannot be read: {error}") from None
        path = f"images/{row:06d}-{hashlib.sha256(content).hexdigest()[:16]}"
        lines.append(f"{path},{target!r},{split[row]}")
        if not finished:
            (root / path).write_bytes(content)
    text = "\n".join(lines) + "\n"
    if finished and table.read_text() != text:
        remedy = "give another workdir, or remove it"
        raise ValueError(f"{root.parent} holds the fit of other samples; {remedy}")
    if not finished:
        with files.replacing(table) as file:
            file.write(text)
