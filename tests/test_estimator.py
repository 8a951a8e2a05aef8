"""The estimator for notebooks: the run that it trains, the forms of images, scikit-learn's own
checks, and the notebook."""

import contextlib
import json
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

import jaxord
from configs import folder
from jaxord import OrdinalRegressor, estimator, train
from jaxord.models import clip
from jaxord.predict.predictor import Predictor
from jaxord.workdir import run_config
from tests.kinds import Flat, compiled_fast

ROOT = pathlib.Path(__file__).parent.parent
SMALL = {"data.batch": 16, "data.eval_batch": 16}
NOTEBOOK = ROOT / "examples/notebook.ipynb"


@pytest.fixture(autouse=True, scope="module")
def quick():
    """A tower of one layer, and code that is compiled fast."""
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(clip, "VisionModel", Flat)
        yield


def samples(count=40):
    """Images whose brightness is their label, and the labels."""
    y = np.arange(count) % 4 + 0.5
    noise = np.random.default_rng(0).normal(0, 10, (count, 20, 20, 3))
    return np.clip(20 + 50 * y[:, None, None, None] + noise, 0, 255).astype(np.uint8), y


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("fit") / "run"
    return OrdinalRegressor(
        method="l1", steps=40, image_size=16, seed=3, settings=SMALL, workdir=workdir
    ).fit(*samples())


def test_a_fit_is_a_run(fitted):
    workdir = fitted.workdir
    c = run_config.from_json((workdir / "config.json").read_text())
    assert (c.method, c.seed, c.data.image_size, c.data.stored_size, c.data.batch) == (
        "l1",
        3,
        16,
        19,
        16,
    )
    assert json.loads((workdir / "DONE.json").read_text())["step"] == 40
    assert (
        len((workdir / "predictions.csv").read_text().splitlines()) == 1 + 4
    )  # a tenth is held out
    X, y = samples()
    predicted = fitted.predict(X)
    assert fitted.score(X, y) == r2_score(y, predicted) > 0.5
    np.testing.assert_allclose(Predictor.load(workdir)(X).value, predicted, rtol=1e-6)


def test_the_same_fit_again_is_done_and_another_refused(fitted, monkeypatch):
    X, y = samples()
    monkeypatch.setattr(train, "make_train_step", None)
    again = clone(fitted).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    before = sorted((fitted.workdir / "data/images").iterdir())
    for other in ((X[::-1], y), (X, y + 1), (X[1:], y[1:])):
        with pytest.raises(
            ValueError, match="run holds the fit of other samples; give another workdir"
        ):
            clone(fitted).fit(*other)
    with pytest.raises(ValueError, match="holds another config"):
        clone(fitted).set_params(steps=41).fit(X, y)
    assert sorted((fitted.workdir / "data/images").iterdir()) == before and len(before) == 40


def test_files_and_images_are_arrays_too(fitted, tmp_path):
    X, y = samples(8)
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i} é.png")
    files = [tmp_path / f"{i} é.png" for i in range(8)]
    expected = fitted.predict(X)
    for images in (files, tuple(map(str, files)), [Image.open(file) for file in files], list(X)):
        np.testing.assert_array_equal(fitted.predict(images), expected)
    narrow = fitted.predict(
        X[:, :, :3, 0]
    )  # eight grey images three pixels wide, not one coloured one
    np.testing.assert_array_equal(narrow, fitted.predict(list(X[:, :, :3, 0])))
    grey = fitted.predict(X[..., 0])
    np.testing.assert_array_equal(grey, fitted.predict(np.repeat(X[..., :1], 3, axis=-1)))
    with pytest.raises(
        ValueError, match=r"1 of 2 images cannot be read\n  1, nowhere.png: No such file"
    ):
        fitted.predict([files[0], "nowhere.png"])
    estimator.write_samples(tmp_path / "data", [*files[:4], *X[4:]], y, 0.25, 0)
    lines = (tmp_path / "data/table.csv").read_text().splitlines()
    assert (
        lines[0] == "path,label,split"
        and sum(line.endswith(",0.5,train") for line in lines)
        + sum(line.endswith(",test") for line in lines)
        >= 2
        and sum(line.endswith(",test") for line in lines) == 2
    )


def test_a_fitted_one_travels(fitted):
    X, _ = samples(8)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(again.predict(X), fitted.predict(X), rtol=1e-6)
    other = clone(fitted)
    assert other.get_params() == fitted.get_params() and not hasattr(other, "predictor_")
    other.set_params(method="mse", steps=2)
    assert (other.method, other.steps, fitted.method) == ("mse", 2, "l1")


def test_configs_of_every_kind(tmp_path, monkeypatch):
    c = folder.get_config("method=l1,backbone=tiny")
    (tmp_path / "config.json").write_text(run_config.to_json(c))
    (tmp_path / "own.py").write_text(
        "from configs import folder\ndef get_config(): return folder.get_config('backbone=tiny')"
    )
    monkeypatch.chdir(tmp_path)  # configs/folder.py is found in the checkout
    path = list(sys.path)
    for config, method in (
        (c, ""),
        (str(tmp_path / "config.json"), "l1"),
        ("configs/folder.py:backbone=tiny", "l1"),
    ):
        assert run_config.to_json(estimator.read_config(config, method)) == run_config.to_json(c)
    assert estimator.read_config("own.py").method == "ce_l1" and sys.path == path
    assert jaxord.load_config("folder:backbone=tiny").method == "ce_l1"
    assert estimator.read_config(c) is not c
    for wrong, words in (
        (
            {"config": c, "method": "mse"},
            "method is 'mse', but the config given is finished, of 'l1'",
        ),
        ({"config": "nowhere.py"}, "no config 'nowhere.py', neither here nor in the package"),
        ({"config": ""}, "no config ''"),
        ({"method": "mes"}, "folder has no method 'mes'. Did you mean 'mse'"),
        ({"steps": -1}, "steps is -1"),
        ({"image_size": 16.5}, "image_size is 16.5"),
        ({"holdout": 0}, "holdout is 0 of n_samples = 8"),
        ({"settings": {"optim.lrr": 1}}, "lrr"),
    ):
        with pytest.raises(ValueError, match=words):
            OrdinalRegressor(**wrong).fit(*samples(8))


def test_labels_and_images_are_checked(tmp_path):
    X, y = samples(8)
    model = OrdinalRegressor(workdir=tmp_path / "run")
    for images, labels, words in (
        (X, y[1:], "inconsistent numbers of samples"),
        (X, y * np.nan, "NaN"),
        (X, [*"abcdefgh"], "could not convert"),
        (X, None, "requires y to be passed"),
        (X / 255, y, "image 0 cannot be read: an array float64"),
        (X[:2], y[:2], "n_samples = 2"),
        (X[:, 0, :, 0], y, r"an array uint8\[20\] is no image"),
    ):
        with pytest.raises(ValueError, match=words):
            model.fit(images, labels)
    assert not (tmp_path / "run/config.json").exists()


class Rows(OrdinalRegressor):
    """Takes a table of numbers, as scikit-learn's checks give: a row is an image of one line, its
    numbers scaled to 8 bits."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        tags.regressor_tags.poor_score = True
        return tags

    def fit(self, X, y=None):
        if y is None:
            return super().fit(X, y)
        X = validate_data(self, X, dtype=np.float64)
        self.range_ = X.min(), np.ptp(X) or 1.0
        return super().fit(self._drawn(X), y)

    def predict(self, X):
        check_is_fitted(self)
        return super().predict(self._drawn(validate_data(self, X, dtype=np.float64, reset=False)))

    def _drawn(self, X):
        low, span = self.range_
        return np.clip(255 * (X - low) / span, 0, 255).astype(np.uint8)[:, None]


class Brightness:
    """In place of a trained predictor: brightness is the value."""

    @staticmethod
    def load(workdir):
        return Brightness()

    def __call__(self, images):
        return types.SimpleNamespace(
            value=np.array([np.mean(image) for image in images], np.float32)
        )


def test_scikit_learn_finds_an_estimator(monkeypatch):
    """Its checks know tables of numbers only, so `Rows` makes images of them; each of some hundred
    fits is not trained."""
    monkeypatch.setattr(train, "run", lambda config, workdir: None)
    monkeypatch.setattr(estimator, "Predictor", Brightness)
    results = check_estimator(Rows(), on_fail=None, on_skip=None)
    assert not [
        (result["check_name"], result["exception"])
        for result in results
        if result["status"] == "failed"
    ]
    assert sum(result["status"] == "passed" for result in results) >= 40
    with pytest.warns(UserWarning, match="Can't test estimator OrdinalRegressor"):
        check_estimator(
            OrdinalRegressor(), on_skip=None
        )  # no table: there is nothing that it would check


def test_a_search_over_methods(monkeypatch, tmp_path):
    """Images and paths are cut into folds by scikit-learn."""
    seen = []
    monkeypatch.setattr(
        train, "run", lambda config, workdir: seen.append((config.method, config.seed))
    )
    monkeypatch.setattr(estimator, "Predictor", Brightness)
    X, y = samples(12)
    search = GridSearchCV(
        OrdinalRegressor(seed=5), {"method": ["l1", "mse"]}, cv=2, refit=False
    ).fit(X, y)
    assert (
        seen == [("l1", 5)] * 2 + [("mse", 5)] * 2
        and np.isfinite(search.cv_results_["mean_test_score"]).all()
    )


@pytest.mark.long
def test_the_notebook_runs(capsys):
    """Its cells, with few steps on few tiles; as it stands, with a real tower, it takes minutes."""
    cells = [
        cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names = {}
    with contextlib.chdir(ROOT):
        for cell in cells:
            exec(
                "".join(cell["source"])
                .replace("STEPS = 600", "STEPS = 20")
                .replace("stride=48", "stride=150"),
                names,
            )
    assert len(names["train_images"]) == 285
    assert names["model"].steps == 20 and names["picture"].size == (640, 256)
    assert "mean absolute error" in capsys.readouterr().out
