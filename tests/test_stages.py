"""Runs of every kind of data killed anywhere go on exactly, between two stages too; finished runs
on other data.

The image towers are of one layer, or the smallest ResNet: a step of real ones takes four times as
long to compile.
"""

import functools
import json
import shutil

import numpy as np
import pytest

from configs.base import entries
from jaxord import evaluate, train
from jaxord.runtime import devices
from jaxord.task import make_task
from jaxord.workdir import run_config
from jaxord.workdir.checkpoints import Checkpoints
from jaxord.workdir.layout import selected
from tests.killing import kill_in_step
from tests.kinds import KINDS, MESHES, config, paint, small_towers


@pytest.fixture(autouse=True, scope="module")
def quick():
    with small_towers():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """kind -> (config, folder of its run on eight devices)."""

    @functools.cache
    def run(kind):
        root = tmp_path_factory.mktemp(kind)
        c = KINDS[kind](root)
        train.run(c, root / "run")
        return c, root / "run"

    return run


def changed(c, fields):
    c = run_config.from_json(run_config.to_json(c)).unlock()
    c.update_from_flattened_dict(fields)
    return c.lock()


def logged(workdir):
    (file,) = workdir.rglob("metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_whole_run_on_one_device_does_as_on_eight(finished, tmp_path, monkeypatch):
    """Losses, and figures of the neighbours among eight devices' galleries."""
    c, workdir = finished("photographs")
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    train.run(changed(c, {"train.duration": "4 steps"}), tmp_path)
    four = logged(tmp_path)
    assert four[-1]["step"] == 4
    for a, b in zip(four, logged(workdir), strict=False):
        assert (a.pop("step"), a.pop("split")) == (b.pop("step"), b.pop("split"))
        # Losses differ by up to 5e-6, figures of few validation images by up to 2e-5.
        assert b == pytest.approx(a, rel=2e-5 if "loss" in a else 1e-4, abs=1e-6, nan_ok=True)


def contents(workdir):
    """All that a run leaves but its events: bytes of files and of arrays."""
    left = [
        path
        for path in workdir.rglob("*")
        if path.is_file() and not {"checkpoints", "tensorboard"} & set(path.parts)
    ]
    found = {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in left
        if path.name not in (".lock", ".lock-owner", "run.json")
    }
    for checkpoints in workdir.rglob("checkpoints"):
        with Checkpoints(checkpoints) as saved:
            for step in saved.steps():
                for part, arrays in saved.read(
                    step, ("trained", "frozen", "stats", "opt_state")
                ).items():
                    where = f"{checkpoints.relative_to(workdir)}/{step}/{part}"
                    found |= {f"{where}/{path}": array.tobytes() for path, array in arrays.items()}
    return found


def kill(c, workdir, name, when):
    """Runs until `when(arguments)` of a call of train.<name> is true."""
    real = getattr(train, name)

    def dying(*arguments, **settings):
        if when(arguments):
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, name, dying)
        with pytest.raises(KeyboardInterrupt):
            train.run(c, workdir)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_exactly(finished, tmp_path, kind):
    """Crops, neighbours, statistics, angles, motion, dropout in sorted batches: killed in step 5,
    saved after step 3."""
    c, workdir = finished(kind)
    kill_in_step(c, tmp_path / "run", 4)
    train.run(c, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(workdir)


def staged(photos, **fields):
    """A regressor trained again on finished features, both stages of six steps, with two copies of
    each image."""
    return config(
        "folder",
        "method=rrt,backbone=tiny",
        photos,
        **{"train.duration": "12 steps", "data.copies": 2, **fields},
    )


@pytest.fixture(scope="module")
def two_stages(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stages") / "run"
    train.run(staged(photos), workdir)
    return workdir


def test_stages_killed_anywhere_go_on_exactly(photos, two_stages, tmp_path):
    c, workdir = staged(photos), tmp_path / "run"
    kill_in_step(c, workdir, 4)
    kill(c, workdir, "evaluate_and_write", lambda arguments: True)
    assert (workdir / "encoder/checkpoints/6").exists() and not (
        workdir / "encoder/DONE.json"
    ).exists()
    kill(c, workdir, "make_task", lambda arguments: arguments[2] is not None)
    assert (workdir / "encoder/DONE.json").exists() and not (workdir / "regressor").exists()
    kill_in_step(c, workdir, 1)
    kill_in_step(c, workdir, 5)
    train.run(c, workdir)
    assert contents(workdir) == contents(two_stages)


def test_a_stage_begins_with_what_the_one_before_selected(two_stages):
    done = json.loads((two_stages / "encoder/DONE.json").read_text())
    assert done["step"] < done["steps"]
    with Checkpoints(two_stages / "encoder/checkpoints") as saved:
        before = saved.read(done["step"], ("trained",))["trained"]
    after = selected(two_stages / "regressor")["params"]
    for path, array in before.items():
        assert np.array_equal(after[path], array) == (not path.startswith("regressor/")), path


def test_mistakes_between_stages_are_named(photos, two_stages, tmp_path):
    c = staged(photos)
    second = run_config.staged(c, c.stages[1])
    before = selected(two_stages / "encoder")
    for path in [path for path in before["params"] if path.startswith("vision_model/")]:
        del before["params"][path]
    with pytest.raises(
        ValueError, match=r"the stage before has no \['vision_model/.*named by the stage's `fresh`"
    ):
        make_task(second, "", before)
    with c.unlocked():
        c.stages = (c.stages[0], c.stages[0])
    with pytest.raises(
        ValueError,
        match=r"the stages are called \['encoder', 'encoder'\]; each needs a name of its own",
    ):
        train.run(c, tmp_path / "run")


def die(*given):
    raise KeyboardInterrupt


def own_results(workdir):
    return {
        name: text for name, text in contents(workdir).items() if not name.startswith("evaluated")
    }


def evaluated(workdir, other):
    """Predictions on another config, which leave the run as it is; the gallery stays where the
    training left it."""
    before, folder = own_results(workdir), workdir / "evaluated" / other.name
    evaluate.evaluate_run(workdir, other)
    assert own_results(workdir) == before and (folder / "DONE.json").exists()
    assert not (folder / "fold_0/gallery.npz").exists()
    return table(folder / "fold_0")


def table(folder):
    return np.genfromtxt(
        folder / "predictions.csv", delimiter=",", names=True, usecols=("target", "knn")
    )


def test_a_run_is_evaluated_with_another_k_and_on_damaged_images(finished, monkeypatch):
    c, workdir = finished("photographs")
    own = table(workdir / "fold_0")
    assert np.array_equal(evaluated(workdir, c), own)
    near = changed(c, {"rules": entries({"name": "knn", "k": 1})})
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
    ):  # between the files of the two
        patch.setattr(evaluate.files, "write_json", die)
        evaluate.evaluate_run(workdir, near)
    assert not list((workdir / "evaluated/koniq").rglob("DONE.json"))
    predicted = evaluated(workdir, near)
    labels = np.load(workdir / "fold_0/gallery.npz")["targets"]
    assert np.isin(predicted["knn"], labels).all() and not np.isin(own["knn"], labels).all()
    damaged = changed(c, {"data.corruption.name": "gaussian_noise", "data.corruption.severity": 5})
    predicted = evaluated(workdir, damaged)
    assert np.array_equal(predicted["target"], own["target"])
    assert np.abs(predicted["knn"] - own["knn"]).max() > 1
    results = json.loads((workdir / "evaluated/koniq/fold_0/results.json").read_text())["test"][
        "knn"
    ]
    assert results["mae"] == pytest.approx(
        np.abs(predicted["knn"] - predicted["target"]).mean(), rel=1e-5
    )


def test_a_run_is_evaluated_on_another_set_without_its_own_images(finished, tmp_path):
    """Neighbours are those of the training: of a scale of 20 to 80, though the other set has 0 to
    10."""
    c, workdir = finished("photographs")
    lines = [f"{i}.png,{i}" for i in range(10)]
    for i in range(10):
        paint(tmp_path / f"images/{i}.png", i / 10)
    (tmp_path / "meta_info_SPAQDataset.csv").write_text("\n".join(["name,mos", *lines]) + "\n")
    other = config("spaq", "fold=0,backbone=tiny", tmp_path)
    images = c.data.root + "/images"
    shutil.move(images, tmp_path / "away")
    try:
        with pytest.raises(ValueError, match="koniq: 40 of 40 images cannot be read"):
            evaluate.evaluate_run(workdir)
        predicted = evaluated(workdir, other)
    finally:
        shutil.move(tmp_path / "away", images)
    assert len(predicted) == 2 and predicted["target"].max() < 10 and predicted["knn"].min() > 20
