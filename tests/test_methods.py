"""Every method learns, and does on eight devices what it does on one; images with several labels;
points at means.

A method is losses, heads, parameter groups and stages, so the towers are of one layer here: with
real ones a step takes four times as long to compile. test_devices.py, test_train.py and
test_stages.py have real ones.
"""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import morph
from configs.pairs import FROM_SCRATCH, PAIRS
from jaxord import train
from jaxord.data.batches import eval_batches, train_batches
from jaxord.runtime import devices, signals
from jaxord.task import make_task
from jaxord.workdir import checkpoints, run_config
from jaxord.workdir.layout import selected
from tests import kinds

OPTIONS = {"fds": ",low=0,high=4,width=1"}


@pytest.fixture(autouse=True, scope="module")
def quick():
    with kinds.small_towers():
        yield


def config(photos, method):
    """Sixteen pixels; two of the four labels are rare; two augmentations of an image differ by
    their crops."""
    fields = {"data.flip": False, "data.grey": 0.0, "data.jitter.probability": 0.0}
    fields |= {"data.shift.labels": 2, "data.shift.keep": 0.3}
    c = kinds.config(
        "folder", f"method={method},backbone=tiny{OPTIONS.get(method, '')}", photos, **fields
    ).unlock()
    c.data.train_crop = ConfigDict(
        {"name": "random_crop" if c.data.copies > 1 else "center_crop"}, type_safe=False
    )
    if c.prompt.name == "RankFormer":
        c.prompt.settings.update({"width": 16, "heads": 2})
    return c.lock()


def steps(task, begun, first, count):
    """Takes steps `first` to `count`, and one more on the first batch of all.

    Returns:
      (metrics of each step, states after three and after all).
    """
    state, update = begun
    place = functools.partial(devices.put, sharding=devices.split(task.mesh))
    split = dataclasses.replace(task.splits["train"], place=place)
    labels, constants = devices.put(
        (task.labels["train"], task.constants), devices.replicated(task.mesh)
    )
    draw = functools.partial(train_batches, split, batch=task.config.data.batch, seed=0)
    metrics, early = [], None
    for number, batch in enumerate(
        [*itertools.islice(draw(start_step=first), count - first), next(draw())], first + 1
    ):
        state, values = update(state, batch, labels, constants)
        metrics.append({name: value.tolist() for name, value in jax.device_get(values).items()})
        if number == 3:
            early = jax.device_get(state)
    return metrics, early, state


PRINTED = (
    "mse",
    "rrt",
    "focal_r",
    "inverse",
    "lds",
    "fds",
    "ranksim",
    "group_dir",
)  # in the paper's table of STS-B
REST = [
    pytest.param("sentences", method, marks=pytest.mark.long)
    for method in PAIRS["stsb"]
    if method not in PRINTED
]
CASES = (
    [("folder", method) for method in FROM_SCRATCH]
    + [("sentences", method) for method in PRINTED]
    + REST
)
CASES += [("gazes", "conord"), ("photographs", "conord"), ("films", "conord"), ("faces", "fds")]


@pytest.mark.parametrize("kind, method", CASES)
def test_the_loss_falls_eight_devices_do_as_one_and_what_is_saved_goes_on(
    photos, tmp_path, kind, method
):
    whole, start = (
        config(photos, method) if kind == "folder" else kinds.KINDS[kind](tmp_path, method),
        None,
    )
    for k, stage in enumerate(
        [run_config.staged(whole, stage) for stage in whole.stages] or [whole]
    ):
        alone, together = (
            dataclasses.replace(make_task(stage, whole.fold, start), mesh=kinds.MESHES[n])
            for n in (1, 8)
        )
        state, update = train.begin(alone, lambda step: 1.0)
        one, after_one, state = steps(alone, (state, update), 0, 16)
        with checkpoints.Checkpoints(tmp_path / f"stage {k}") as saved:
            saved.save(3, after_one, {})
            again, _, same = steps(alone, (saved.restore(3, state), update), 3, 16)
        assert again == one[3:] and jax.tree.all(
            jax.tree.map(lambda a, b: (a == b).all(), state, same)
        )
        eight, after_eight, _ = steps(together, train.begin(together, lambda step: 1.0), 0, 3)
        for a, b in zip(one[:3], eight[:3], strict=True):
            for name in a:
                np.testing.assert_allclose(
                    b[name], a[name], rtol=1e-5, atol=1e-6, err_msg=name
                )  # measured: 2e-6
        for part in ("trained", "stats"):
            for path, array in getattr(after_one, part).items():
                np.testing.assert_allclose(
                    getattr(after_eight, part)[path], array, rtol=1e-5, atol=3e-7, err_msg=path
                )  # 3e-8
        first, last = one[0]["loss"], one[-1]["loss"]  # of the same images
        assert last < first - 0.02 * abs(first), stage.losses
        start = jax.device_get(state.variables)


def test_every_label_of_an_image_is_drawn_in_training_and_the_middle_one_evaluated(tmp_path):
    """The lists of OrdinalCLIP, where an image may have several ages."""
    lines = [
        "0.png 30",
        "1.png 20 22 27",
        "2.png 40 41",
        *(f"{i}.png {25 + i}" for i in range(3, 16)),
    ]
    (tmp_path / "ET_proto_train.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "ET_proto_val.txt").write_text("16.png 20 60 70\n")
    (tmp_path / "images").mkdir()
    for i in range(17):
        Image.new("RGB", (16, 16), (10 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
    c = morph.get_config("method=l1,backbone=tiny").unlock()
    c.data.update(
        {
            "root": str(tmp_path),
            "folds": (),
            "batch": 16,
            "eval_batch": 16,
            "image_size": 16,
            "stored_size": 16,
        }
    )
    c.data.reader.setting = "ordinalclip"
    task = make_task(c, "")

    @functools.partial(jax.jit, static_argnums=2)
    def labels(batch, columns, train):
        made = task.prepare(train)(batch, columns, task.constants)
        return {name: made[name] for name in ("index", "target", "rank")}

    drawn = {row: [] for row in range(16)}
    for batch in itertools.islice(
        train_batches(task.splits["train"], batch=16, seed=0), 24
    ):  # an epoch each
        found = jax.device_get(labels(batch, task.labels["annotations"], True))
        np.testing.assert_array_equal(found["rank"], found["target"] - 16)
        for row, target in zip(found["index"].tolist(), found["target"].tolist(), strict=True):
            drawn[row].append(target)
    assert (set(drawn[0]), set(drawn[1]), set(drawn[2]), set(drawn[3])) == (
        {30.0},
        {20.0, 22.0, 27.0},
        {40.0, 41.0},
        {28.0},
    )
    assert len(set(drawn[1][:6])) > 1, "not one label after the other"
    for name, expected in (("train", [30, 22, 41, 28]), ("test", [60])):
        batch = next(eval_batches(task.splits[name], batch=16))
        batch.pop("valid")
        found = labels(batch, task.labels[name], False)["target"][: len(expected)]
        np.testing.assert_array_equal(found, expected)


def test_reference_points_begin_at_the_mean_unit_features_of_their_labels(photos, tmp_path):
    c = config(photos, "conord,initial=mean")
    c.rules[0].k, c.train.duration, c.optim.warmup = 3, "0 steps", "0 steps"
    train.fit(c, "", tmp_path / "run", None, signals.Stop())
    before = selected(tmp_path / "run")
    task = make_task(c, "", before)
    p, features = (
        {path.removeprefix("vision_model/"): array for path, array in before["params"].items()},
        [],
    )
    for batch in eval_batches(task.splits["train"], batch=16):
        valid = batch.pop("valid")
        arrays = jax.jit(task.prepare(train=False))(batch, task.labels["train"], task.constants)
        features.append(
            np.tanh(
                np.asarray(arrays["image"]).reshape(16, -1) @ p["Dense_0/kernel"]
                + p["Dense_0/bias"]
            )[valid]
        )
    unit = (
        np.concatenate(features).astype(np.float64) @ before["params"]["visual_projection/kernel"]
    )
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    targets = task.splits["train"].records.targets
    points = before["params"]["reference_points/points"]
    np.testing.assert_allclose(
        points, [unit[targets == label].mean(0) for label in range(4)], atol=1e-6
    )
    assert np.abs(points).max() > 0.1


def test_groups_of_another_set_are_those_of_the_training(photos, tmp_path):
    """Ten groups over the labels of the training, 0 to 3, though the other set has labels up to
    7."""
    c = config(photos, "group_dir")
    task = make_task(c, "")
    for rank in range(8):
        (tmp_path / str(rank)).mkdir()
        for i in range(4):
            Image.new("RGB", (20, 20), (30 * rank, i, 0)).save(tmp_path / f"{rank}/{i}.png")
    start = {"params": {**task.trained, **task.frozen}, "stats": task.stats}
    facts = task.ranks, jax.device_get(task.constants), task.splits["train"].records.targets
    other = config(tmp_path, "group_dir")
    other.data.shift.labels = 0
    again = make_task(other, "", start, facts)
    targets, found = (
        again.splits["train"].records.targets,
        np.asarray(again.labels["train"]["group"]),
    )
    assert set(targets) == set(range(8))
    np.testing.assert_array_equal(found, np.minimum(targets / 3 * 10, 9).astype(int))
