"""The bench of the training step: torch's step is the same step, and the command prints and writes
what it measured."""

import json

import numpy as np
import pytest

from jaxord.data.batches import train_batches
from tools import bench_step

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
    from tools import torch_step

    return torch_step


def config(method, *fields):
    return bench_step.config_of(
        f"configs/folder.py:method={method},backbone=tiny", [*FIELDS, *fields]
    )


@pytest.mark.long
def test_torchs_steps_are_ours(torch_step):
    fields = ["prompt.template=rank {}", "ranks.labels=(0.0, 1.0, 2.0, 3.0)", "optim.clip=0.5"]
    task = bench_step.task_of(config("numclip", *fields), 16, None)
    batch = next(train_batches(task.splits["train"], batch=8, seed=0))
    arrays = task.prepare(train=True)(batch, task.labels["train"], task.constants)
    step, state, factors = bench_step.training(task)
    theirs, _, facts = torch_step.build(task, arrays, factors, train=True, compile=False)
    found, expected = [], [float(theirs()) for _ in range(4)]
    for _ in expected:
        state, values = step(state, batch, task.labels["train"], task.constants)
        found.append(float(values["loss"]))
    # The first two are at the same weights, for the rate starts at 0, the others after updates.
    # Measured 3e-7 and 7e-7.
    assert expected[0] == facts["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(found) > 0.01  # the updates changed something


@pytest.mark.long
def test_the_command_times_both_sides(torch_step, tmp_path, capsys):
    output = tmp_path / "bench.json"
    fields = [f"--set={field}" for field in FIELDS]
    options = [
        "--synthetic=16",
        "--vs-torch",
        "--eager",
        "--rounds=2",
        "--seconds=0.02",
        f"--output={output}",
    ]
    bench_step.main(["--config=configs/folder.py:method=ce_l1,backbone=tiny", *fields, *options])
    found, text = json.loads(output.read_text()), capsys.readouterr().out
    ours, torchs = found["rows"]
    assert (
        ours["side"] == "jaxord"
        and torchs["side"] == "torch"
        and "eager, as asked" in found["header"]["torch"]
    )
    assert found["losses"]["jaxord"] == pytest.approx(found["losses"]["torch"], rel=1e-5)
    assert (
        ours["img/s"] == pytest.approx(8 * ours["steps/s"])
        and 0 <= ours["data %"] <= 100
        and ours["program MiB"] > 0.5
    )
    assert ours["GFLOP/s"] == pytest.approx(found["flops"] * ours["steps/s"] / 1e9)
    assert 2.5 < found["flops"] / found["forward_flops"] < 3
    assert found["time"]["least"] <= found["time"]["median"] <= found["time"]["most"]
    assert (
        "torch's time / ours" in text
        and "8 images, 1 views of 32 pixels, 16 synthetic images, tier cached" in text
    )


def test_predictions_are_timed_too(torch_step):
    options = [
        "--config=configs/folder.py:method=ce,backbone=tiny",
        *(f"--set={field}" for field in FIELDS),
    ]
    found = bench_step.bench(
        bench_step.parse([*options, "--synthetic=12", "--predict", "--rounds=1", "--seconds=0.01"])
    )
    assert found["flops"] == found["forward_flops"] and [row["side"] for row in found["rows"]] == [
        "jaxord"
    ]


def test_what_cannot_be_timed_is_said(torch_step):
    with pytest.raises(
        ValueError,
        match=r"(?s)cannot run the step of folder-conord.*heads ReferencePoints.*losses center",
    ):
        torch_step.check(config("conord"))
    with pytest.raises(ValueError, match="loss fcrc with form=class"):
        torch_step.check(config("numclip", "losses[0].form=class"))
    with pytest.raises(ValueError, match="single images with one number each"):
        bench_step.synthetic(bench_step.config_of("configs/mpiifacegaze.py", []), 4)
    with pytest.raises(ValueError, match="no 'ec'|'ec'"):
        bench_step.config_of("configs/folder.py:method=ec", [])
    with pytest.raises(SystemExit, match="error: .*has no stage 'x'"):
        bench_step.main(["--config=configs/folder.py:method=ce,backbone=tiny", "--stage=x"])


def test_parameters_of_absent_weights_are_drawn():
    with_weights, start, text = bench_step.drawn(config("ce"), later="")
    assert start is None and text == "drawn"
    hub = bench_step.config_of("configs/folder.py:method=numclip", [])
    assert hub.model.weights
    without, start, text = bench_step.drawn(hub, later="")
    assert (
        without.model.weights == ""
        and start == {"params": {}, "stats": {}}
        and "in place of" in text
    )
