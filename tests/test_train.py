"""Whole runs through run(), in this process: small, on generated images."""

import csv
import json

import jax
import numpy as np
import pytest

from configs import folder
from configs.base import entries
from jaxord import evaluate, train
from jaxord.data.batches import train_batches, train_calls
from jaxord.schedule import calls
from jaxord.task import make_task
from tests.killing import kill_in_step

FILES = ("config.json", "DONE.json", "results.json", "predictions.csv", "metrics.jsonl")


def config(photos, method="ce_l1", steps=24, **fields):
    c = folder.get_config(f"method={method},backbone=tiny")
    c.data.root, c.data.batch, c.data.eval_batch = str(photos), 16, 16
    c.train.duration = f"{steps} steps"
    c.train.evaluate_every, c.train.checkpoint_every, c.train.log_every = (
        "8 steps",
        "4 steps",
        "2 steps",
    )
    c.update_from_flattened_dict(fields)
    return c


def losses_of(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["split"] == "train"]


def bytes_of(workdir):
    return [(workdir / name).read_bytes() for name in FILES], sorted(
        p.name for p in (workdir / "checkpoints").iterdir()
    )


pytestmark = pytest.mark.usefixtures("lightly_compiled", "shallow")


@pytest.fixture(scope="module")
def whole(lightly_compiled, shallow, photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    train.run(config(photos), workdir)
    return workdir


def test_a_run_leaves_a_complete_workdir(whole):
    assert all((whole / name).exists() for name in (*FILES, "checkpoints")) and list(
        (whole / "tensorboard").glob("events*")
    )
    results = json.loads((whole / "results.json").read_text())
    assert set(results) == {"val", "test"}
    assert set(results["test"]) == {"value", "expectation", "argmax", "constant", "majority"}
    assert results["test"]["value"]["mae"] < 0.8 * results["test"]["constant"]["mae"]
    losses = losses_of(whole)
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_predictions_join_back_to_files_and_give_the_metrics(whole, photos):
    rows = list(csv.DictReader((whole / "predictions.csv").open()))
    assert all((photos / row["path"]).exists() for row in rows)
    assert (
        len({row["path"] for row in rows}) == len(rows) == 20
    )  # 96 images, a fifth of each rank's 24 rounded up
    mae = np.mean([abs(float(row["value"]) - float(row["target"])) for row in rows])
    assert mae == pytest.approx(
        json.loads((whole / "results.json").read_text())["test"]["value"]["mae"], rel=1e-5
    )
    assert all(row["rank_name"] == row["rank"] for row in rows)  # the folders are called so


def test_the_same_again_does_nothing(whole, photos, capsys):
    before = bytes_of(whole)
    train.run(config(photos), whole)
    assert bytes_of(whole) == before
    assert "constant" in capsys.readouterr().out


def test_stopped_at_any_step_and_resumed_is_the_same_to_the_bit(whole, photos, tmp_path, capsys):
    """Dies in the first step of the third epoch of four steps, in the middle of one, and in the
    last step of all."""
    for at in (8, 14, 23):
        kill_in_step(config(photos), tmp_path / "run", at)
    train.run(config(photos), tmp_path / "run")
    goes_on = [line for line in capsys.readouterr().out.splitlines() if line.startswith("goes on")]
    assert goes_on == [f"goes on from step {step} of 24" for step in (8, 12, 20)]
    assert bytes_of(tmp_path / "run") == bytes_of(whole)
    assert parameters(tmp_path / "run") == parameters(whole)


def parameters(workdir):
    from jaxord.workdir.checkpoints import Checkpoints

    with Checkpoints(workdir / "checkpoints") as saved:
        arrays = json.loads(
            (workdir / "checkpoints" / str(saved.latest()) / "checkpoint.json").read_text()
        )["arrays"]
        trained = {
            path.removeprefix("trained/"): spec
            for path, spec in arrays.items()
            if path.startswith("trained/")
        }
        like = {
            "trained": {
                path: jax.ShapeDtypeStruct(shape, dtype) for path, (shape, dtype) in trained.items()
            }
        }
        restored = saved.restore(saved.latest(), like, parts=("trained",))["trained"]
        return {path: np.asarray(value).tobytes() for path, value in restored.items()}


def test_evaluate_needs_only_the_workdir(whole, photos):
    before = bytes_of(whole)
    (whole / "results.json").unlink()
    (whole / "predictions.csv").unlink()
    evaluate.evaluate_run(whole)
    assert bytes_of(whole) == before


def test_a_method_with_text_learns(photos, tmp_path):
    at_the_end = {"train.evaluate_every": "20 steps", "train.checkpoint_every": "20 steps"}
    train.run(config(photos, "numclip", steps=20, **at_the_end), tmp_path)
    losses = losses_of(tmp_path)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_a_workdir_keeps_its_config(whole, photos):
    with pytest.raises(ValueError, match="holds another config.*\n  seed: 0 there, 1 here"):
        train.run(config(photos, seed=1), whole)


def test_a_mistake_does_not_claim_the_workdir(photos, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        train.run(config(photos, **{"data.root": str(tmp_path / "nowhere")}), tmp_path / "run")
    with pytest.raises(
        ValueError, match="has no 'sric'"
    ):  # the other config is taken, and has another mistake
        train.run(config(photos, metrics=("mae", "sric")), tmp_path / "run")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"data.batch": 12}, "data.batch is 12, which does not divide by 8 devices; try 16"),
        ({"fold": "3"}, "has no folds"),
        ({"select": "best"}, "takes 'val', 'last' or 'test'"),
        ({"select_metric": "maee"}, "not among metrics"),
        ({"model.variant": "ViT-B/61"}, "it takes one of"),
        ({"model.pretrained": True}, "needs pretrained CLIP weights"),
        ({"metrics": ("mae", "sric")}, "jaxord.metrics has no 'sric'"),
        ({"data.normalize": "klip"}, "normalize"),
    ],
)
def test_mistakes_end_in_a_sentence_before_training(photos, tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        train.run(config(photos, **fields), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_rule_that_lacks_its_array_says_so(photos, tmp_path):
    c = config(photos, "l1", steps=1)
    c.rules = entries({"name": "argmax"})
    with pytest.raises(ValueError, match=r"argmax needs \['logits'\]"):
        train.run(c, tmp_path)


def test_folds_are_chosen_by_name():
    from configs import hci

    assert train.chosen_folds(hci.get_config()) == tuple("0123456789")
    assert train.chosen_folds(hci.get_config("fold=3")) == ("3",)
    with pytest.raises(ValueError, match="fold is '10'; hci has 0, .*, 9, or 'all'"):
        train.chosen_folds(hci.get_config("fold=10"))
    with pytest.raises(ValueError, match="fold is '1', but folder has no folds"):
        train.chosen_folds(folder.get_config("fold=1"))


def after_calls(task, counts, most):
    """Parameters and losses after that many updates a call; `counts` None makes four, one by
    one."""
    split = task.splits["train"]
    state, update = train.begin(task, lambda step: 1.0, several=most > 1)
    ends = np.cumsum(counts)
    if most > 1:
        labels = {**task.labels["train"], **split.stored()}
        firsts = zip(ends - counts, counts, strict=True)
        batches = train_calls(split, batch=16, seed=0, calls=firsts, most=most)
    else:
        labels, batches = task.labels["train"], train_batches(split, batch=16, seed=0)
    losses = []
    for _ in counts:
        arrays = next(batches)
        with jax.transfer_guard("disallow"):
            state, values = update(state, arrays, labels, task.constants)
        losses.append(float(values["loss"]))
    return jax.device_get(state.trained), losses


def test_several_steps_a_call_are_the_same_training(photos):
    c = config(photos, "ce", **{"data.tier": "resident"})
    c.optim.name = "sgd"
    task = make_task(c, "")
    one, losses = after_calls(task, [1, 1, 1, 1], 1)
    uneven, some = after_calls(task, [3, 1], 3)
    again, others = after_calls(task, [2, 2], 3)
    np.testing.assert_allclose(some, [losses[2], losses[3]], rtol=1e-5)
    assert others[1] == some[1] and all(
        (uneven[path] == again[path]).all() for path in one
    )  # to the bit: as a resumed run is
    assert max(np.abs(uneven[path] - one[path]).max() for path in one) < 1e-6


@pytest.mark.parametrize(
    "done, found", [(0, [(0, 3), (3, 1), (4, 3), (7, 1), (8, 2)]), (5, [(5, 3), (8, 2)])]
)
def test_calls_end_where_something_is_due(done, found):
    assert list(calls(done, 10, 3, (4, 8))) == found


def test_several_steps_a_call_need_resident_images(photos, tmp_path):
    with pytest.raises(
        ValueError, match="steps_per_call is 3, which needs the images on the device"
    ):
        train.run(
            config(photos, **{"data.tier": "cached", "train.steps_per_call": 3}), tmp_path / "run"
        )
