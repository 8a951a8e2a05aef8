"""The bench of the training step: torch's step is ours, and the command writes its figures."""

import json

import numpy as np
import pytest

from jaxord.data.batches import train_batches
from tools import bench_step
from tools.benching import drawn, training

FIELDS = [
    "data.batch=8",
    "data.eval_batch=8",
    "data.stored_size=40",
    "data.image_size=32",
    "train.duration=40 steps",
]

pytestmark = pytest.mark.usefixtures("lightly_compiled", "shallow")


@pytest.fixture(scope="module")
def torch_step():
    pytest.importorskip("torch")
    from tools.benching import torch_step

    return torch_step


def config(method, *fields):
    return training.config_of(
        f"configs/folder.py:method={method},backbone=tiny", [*FIELDS, *fields]
    )


@pytest.mark.long
def test_torchs_steps_are_ours(torch_step):
    fields = ["prompt.template=rank {}", "ranks.labels=(0.0, 1.0, 2.0, 3.0)", "optim.clip=0.5"]
    task = bench_step.task_of(config("numclip", *fields), 16, None)
    batch = next(train_batches(task.splits["train"], batch=8, seed=0))
    arrays = task.prepare(train=True)(batch, task.labels["train"], task.constants)
    state, step, factor, total = training.begin(task)
    factors = [factor(n) for n in range(total)]
    theirs, _, facts = torch_step.build(task, arrays, factors, train=True, compile=False)
    losses, expected = [], [float(theirs()) for _ in range(4)]
    for _ in expected:
        state, values = step(state, batch, task.labels["train"], task.constants)
        losses.append(float(values["loss"]))
    # The first two are at the same weights, for the rate starts at 0, the others after updates.
    # Measured 3e-7 and 7e-7.
    assert expected[0] == facts["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # The updates change something.
    assert np.ptp(losses) > 0.01


@pytest.mark.long
def test_the_command_times_both_sides(torch_step, tmp_path, capsys):
    output = tmp_path / "bench.json"
    fields = [f"--set={field}" for field in FIELDS]
    flags = ["--synthetic=16", "--vs-torch", "--eager", "--rounds=2", "--seconds=0.02"]
    flags += ["--config=configs/folder.py:method=ce_l1,backbone=tiny", f"--output={output}"]
    assert bench_step.main([*fields, *flags]) == 0
    figures, text = json.loads(output.read_text()), capsys.readouterr().out
    ours, torchs = figures["rows"]
    assert ours["side"] == "jaxord" and torchs["side"] == "torch"
    assert "eager, as asked" in figures["header"]["torch"]
    assert figures["losses"]["jaxord"] == pytest.approx(figures["losses"]["torch"], rel=1e-5)
    assert ours["img/s"] == pytest.approx(8 * ours["steps/s"])
    assert 0 <= ours["data %"] <= 100 and ours["program MiB"] > 0.5
    assert ours["GFLOP/s"] == pytest.approx(figures["flops"] * ours["steps/s"] / 1e9)
    assert 2.5 < figures["flops"] / figures["forward_flops"] < 3
    assert figures["time"]["least"] <= figures["time"]["median"] <= figures["time"]["most"]
    assert "torch's time / ours" in text
    assert "8 images, 1 views of 32 pixels, 16 synthetic images, tier cached" in text


def test_predictions_are_timed_too(torch_step):
    words = ["--config=configs/folder.py:method=ce,backbone=tiny"]
    words += [f"--set={field}" for field in FIELDS]
    words += ["--synthetic=12", "--predict", "--rounds=1", "--seconds=0.01"]
    figures = bench_step.bench(bench_step.parse(words))
    assert figures["flops"] == figures["forward_flops"]
    assert [row["side"] for row in figures["rows"]] == ["jaxord"]


def test_what_cannot_be_timed_is_said(torch_step):
    words = r"(?s)cannot run the step of folder-conord.*heads ReferencePoints.*losses center"
    with pytest.raises(ValueError, match=words):
        torch_step.check(config("conord"))
    with pytest.raises(ValueError, match="loss fcrc with form=class"):
        torch_step.check(config("numclip", "losses[0].form=class"))
    with pytest.raises(ValueError, match="single images with one number each"):
        drawn.images(training.config_of("configs/mpiifacegaze.py", []), 4)
    with pytest.raises(ValueError, match="no 'ec'|'ec'"):
        training.config_of("configs/folder.py:method=ec", [])
    words = ["--config=configs/folder.py:method=ce,backbone=tiny", "--stage=x"]
    error = bench_step.main(words)
    assert error.startswith("error: ") and "has no stage 'x'" in error


def test_parameters_of_absent_weights_are_drawn():
    with_weights, start, text = bench_step.starting_point(config("ce"), later="")
    assert start is None and text == "drawn"
    hub = training.config_of("configs/folder.py:method=numclip", [])
    assert hub.model.weights
    without, start, text = bench_step.starting_point(hub, later="")
    assert without.model.weights == "" and "in place of" in text
    assert start == {"params": {}, "stats": {}}
