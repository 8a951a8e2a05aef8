"""Every method learns, and does on eight devices what it does on one; images with several labels; points at means.

A method is losses, heads, parameter groups and stages, so the towers are of one layer here: with real ones a step takes four
times as long to compile. test_devices.py, test_train.py and test_stages.py have real ones.
"""

import contextlib
import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image

from configs import folder, morph
from configs.pairs import FROM_SCRATCH
from jaxord import optim, settings, sharding, step, train
from jaxord.assemble import assemble
from jaxord.data import pipeline
from jaxord.models import clip
from jaxord.workdir import selected

MESHES = {n: sharding.data_mesh(jax.devices()[:n]) for n in (1, 8)}
OPTIONS = {"fds": ",low=0,high=4,width=1"}


class Flat(nn.Module):
    """In place of the image tower."""

    settings: clip.ClipSettings
    dtype: object
    remat: bool = False

    @nn.compact
    def __call__(self, image):
        return nn.tanh(nn.Dense(self.settings.vision.width)(image.reshape(len(image), -1)))


class Words(nn.Module):
    """In place of the text tower: the mean of the words through one layer."""

    config: clip.ClipSettings
    dtype: object
    remat: bool = False

    def setup(self):
        width = self.config.text.width
        self.embeddings, self.layer = nn.Embed(self.config.vocab_size, width), nn.Dense(width)

    def embed(self, tokens):
        return self.embeddings(tokens)

    def __call__(self, embeddings, end):
        return nn.tanh(self.layer(embeddings.mean(1)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Towers of one layer, and code that is compiled fast and kept for methods that differ in their labels only."""
    monkeypatch.setattr(clip, "VisionModel", Flat)
    monkeypatch.setattr(clip, "TextModel", Words)
    with compiled_fast():
        yield


@contextlib.contextmanager
def compiled_fast():
    """Without optimising: compiling counts for more than the speed of a few steps. What took a tenth of a second is kept."""
    settings = {"jax_disable_most_optimizations": (True, False), "jax_persistent_cache_min_compile_time_secs": (0.1, 0.5)}
    for name, (now, _) in settings.items():
        jax.config.update(name, now)
    yield
    for name, (_, before) in settings.items():
        jax.config.update(name, before)


def config(photos, method):
    """Sixteen pixels; two of the four labels are rare; two augmentations of an image differ by their crops."""
    c = folder.get_config(f"method={method},backbone=tiny{OPTIONS.get(method, '')}").unlock()
    c.data.root, c.data.batch, c.data.eval_batch = str(photos), 16, 16
    c.data.image_size, c.data.stored_size, c.data.flip, c.data.grey, c.data.jitter.probability = 16, 20, False, 0.0, 0.0
    c.data.train_crop = ConfigDict({"name": "random_crop" if c.data.copies > 1 else "center_crop"}, type_safe=False)
    c.data.shift.update({"labels": 2, "keep": 0.3})
    if c.prompt.name == "RankFormer":
        c.prompt.settings.update({"width": 16, "heads": 2})
    return c


def steps(task, mesh, count):
    """Metrics of each step, parameters and statistics after three, and the last state; the first batch comes again at the end.

    Momentum keeps the size of gradients: Adam's first step would be their sign, and blow up rounding around zero. The square
    of the noise is the unit of balanced MSE's loss, so it must change little for losses to be compared.
    """
    o = task.config.optim.copy_and_resolve_references()
    o.update({"name": "sgd", "clip": 1.0})
    for group in o.rates:
        o.rates[group] = {"lr": 1e-3 if group == "noise" else 0.02, "weight_decay": 0.0}
    replicated = sharding.replicated(mesh)
    optimizer = optim.make(o, task.groups, lambda step: 1.0)
    trained, frozen, stats = sharding.put((task.trained, task.frozen, task.stats), replicated)
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(trained)
    state = step.State(sharding.put(np.int32(0), replicated), trained, frozen, stats, opt_state)
    update = step.make_train_step(
        task.model, step.objective(task.config), optimizer, task.prepare(train=True), replicated,
        statistics=task.config.train.statistics,
    )  # fmt: skip
    split = dataclasses.replace(task.splits["train"], place=functools.partial(sharding.put, sharding=sharding.split(mesh)))
    labels, constants = sharding.put((task.labels["train"], task.constants), replicated)
    batches = list(itertools.islice(pipeline.train_batches(split, batch=task.config.data.batch, seed=0), count))
    metrics, early = [], None
    for number, batch in enumerate([*batches, batches[0]], 1):
        state, values = update(state, batch, labels, constants)
        metrics.append(jax.device_get(values))
        if number == 3:
            early = jax.device_get({**state.trained, **state.stats})
    return metrics, early, state


@pytest.mark.parametrize("method", FROM_SCRATCH)
def test_the_loss_falls_and_eight_devices_do_as_one(photos, method):
    whole, start = config(photos, method), None
    for stage in [settings.staged(whole, stage) for stage in whole.stages] or [whole]:
        task = assemble(stage, "", start)
        one, after_one, state = steps(task, MESHES[1], 16)
        eight, after_eight, _ = steps(task, MESHES[8], 3)
        for a, b in zip(one[:3], eight[:3], strict=True):
            for name in a:
                np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-6, err_msg=name)  # measured: 2e-6
        for path, array in after_one.items():
            np.testing.assert_allclose(after_eight[path], array, rtol=1e-5, atol=3e-7, err_msg=path)  # measured: 3e-8
        first, last = one[0]["loss"], one[-1]["loss"]  # of the same images
        assert last < first - 0.02 * abs(first), stage.losses
        start = jax.device_get(state.variables)


def test_every_label_of_an_image_is_drawn_in_training_and_the_middle_one_evaluated(tmp_path):
    """The lists of OrdinalCLIP, where an image may have several ages."""
    lines = ["0.png 30", "1.png 20 22 27", "2.png 40 41", *(f"{i}.png {25 + i}" for i in range(3, 16))]
    (tmp_path / "ET_proto_train.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "ET_proto_val.txt").write_text("16.png 20 60 70\n")
    (tmp_path / "images").mkdir()
    for i in range(17):
        Image.new("RGB", (16, 16), (10 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
    c = morph.get_config("method=l1,backbone=tiny").unlock()
    c.data.update({"root": str(tmp_path), "folds": (), "batch": 16, "eval_batch": 16, "image_size": 16, "stored_size": 16})
    c.data.reader.setting = "ordinalclip"
    task = assemble(c, "")

    @functools.partial(jax.jit, static_argnums=2)
    def labels(batch, columns, train):
        made = task.prepare(train)(batch, columns, task.constants)
        return {name: made[name] for name in ("index", "target", "rank")}

    drawn = {row: [] for row in range(16)}
    for batch in itertools.islice(pipeline.train_batches(task.splits["train"], batch=16, seed=0), 24):  # an epoch each
        found = jax.device_get(labels(batch, task.labels["annotations"], True))
        np.testing.assert_array_equal(found["rank"], found["target"] - 16)
        for row, target in zip(found["index"].tolist(), found["target"].tolist(), strict=True):
            drawn[row].append(target)
    assert (set(drawn[0]), set(drawn[1]), set(drawn[2]), set(drawn[3])) == ({30.0}, {20.0, 22.0, 27.0}, {40.0, 41.0}, {28.0})
    assert len(set(drawn[1][:6])) > 1, "not one label after the other"
    for name, expected in (("train", [30, 22, 41, 28]), ("test", [60])):
        batch = next(pipeline.eval_batches(task.splits[name], batch=16))
        batch.pop("valid")
        found = labels(batch, task.labels[name], False)["target"][: len(expected)]
        np.testing.assert_array_equal(found, expected)


def test_reference_points_begin_at_the_mean_unit_features_of_their_labels(photos, tmp_path):
    c = config(photos, "conord,initial=mean")
    c.rules[0].k, c.train.duration, c.optim.warmup = 3, "0 steps", "0 steps"
    train.fit(c, "", tmp_path / "run")
    before = selected(tmp_path / "run")
    task = assemble(c, "", before)
    p, features = {path.removeprefix("vision_model/"): array for path, array in before["params"].items()}, []
    for batch in pipeline.eval_batches(task.splits["train"], batch=16):
        valid = batch.pop("valid")
        arrays = jax.jit(task.prepare(train=False))(batch, task.labels["train"], task.constants)
        features.append(np.tanh(np.asarray(arrays["image"]).reshape(16, -1) @ p["Dense_0/kernel"] + p["Dense_0/bias"])[valid])
    unit = np.concatenate(features).astype(np.float64) @ before["params"]["visual_projection/kernel"]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    targets = task.splits["train"].records.targets
    points = before["params"]["reference_points/points"]
    np.testing.assert_allclose(points, [unit[targets == label].mean(0) for label in range(4)], atol=1e-6)
    assert np.abs(points).max() > 0.1


def test_groups_of_another_set_are_those_of_the_training(photos, tmp_path):
    """Ten groups over the labels of the training, 0 to 3, though the other set has labels up to 7."""
    c = config(photos, "group_dir")
    task = assemble(c, "")
    for rank in range(8):
        (tmp_path / str(rank)).mkdir()
        for i in range(4):
            Image.new("RGB", (20, 20), (30 * rank, i, 0)).save(tmp_path / f"{rank}/{i}.png")
    start = {"params": {**task.trained, **task.frozen}, "stats": task.stats}
    facts = task.ranks, jax.device_get(task.constants), task.splits["train"].records.targets
    other = config(tmp_path, "group_dir")
    other.data.shift.labels = 0
    again = assemble(other, "", start, facts)
    targets, found = again.splits["train"].records.targets, np.asarray(again.labels["train"]["group"])
    assert set(targets) == set(range(8))
    np.testing.assert_array_equal(found, np.minimum(targets / 3 * 10, 9).astype(int))
