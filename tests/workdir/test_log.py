"""The log of a run: resumed equals uninterrupted, events are purged, the progress line, tables."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxord.workdir.log import Log, table


def open_log(folder, restored=-1, **settings):
    return Log(folder, restored=restored, total=100, batch=32, **settings)


def train(log, steps):
    for step in steps:
        log.scalars(step, "train", dict(loss=1 / (step + 3), gradient_norm=0.1))
        if step % 4 == 0:
            log.scalars(step, "val", dict(mae=2.0 / (step + 1), count=step))


def test_lines_are_json_and_flushed(tmp_path):
    with open_log(tmp_path / "new" / "run") as log:
        log.scalars(3, "train", dict(loss=0.1 + 0.2, n=2))
        text = (tmp_path / "new" / "run" / "metrics.jsonl").read_text()
        assert text == '{"step": 3, "split": "train", "loss": 0.30000000000000004, "n": 2}\n'


def test_resumed_equals_uninterrupted(tmp_path):
    with open_log(tmp_path / "whole") as log:
        train(log, range(0, 12))
    with open_log(tmp_path / "killed") as log:
        train(log, range(0, 11))
    path = tmp_path / "killed" / "metrics.jsonl"
    path.write_text(path.read_text()[:-15])  # the kill cuts the last line
    with open_log(tmp_path / "killed", restored=8) as log:
        train(log, range(9, 12))
    assert path.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_a_fresh_start_drops_all(tmp_path):
    for _ in range(2):
        with open_log(tmp_path) as log:
            train(log, range(0, 2))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(
        ValueError, match=r"metrics.jsonl:2 is 'not json', expected a JSON object with a step"
    ):
        open_log(tmp_path, restored=5)
    assert "not json" in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("value", [jnp.ones(()), np.float32(1), "1", None])
def test_only_python_numbers(tmp_path, value):
    expected = pytest.raises(
        ValueError, match="train/loss at step 7 is a .*expected a Python number"
    )
    with open_log(tmp_path) as log, expected:
        log.scalars(7, "train", dict(loss=value))
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def not_json(word):
    raise AssertionError(f"{word} is no JSON")


def test_not_a_number_is_logged_as_null(tmp_path):
    with open_log(tmp_path) as log:
        log.scalars(1, "train", dict(loss=float("nan"), norm=float("inf"), rate=0.5))
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=not_json)
    assert line == {"step": 1, "split": "train", "loss": None, "norm": None, "rate": 0.5}
    assert [v.tag for event in events(tmp_path) for v in event.summary.value] == ["train/rate"]


def events(folder):
    """All events of a run, file by file as they were made."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:  # a record: length u64, its checksum u32, the event, its checksum u32
            size = int.from_bytes(content[:8], "little")
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def test_tensorboard_gets_the_scalars_and_a_purge(tmp_path):
    with open_log(tmp_path) as log:
        train(log, range(0, 3))
    with open_log(tmp_path, restored=1) as log:
        train(log, range(2, 3))
    found = events(tmp_path)
    scalars = [(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value]
    assert [(s, t) for s, t, _ in scalars if t == "train/loss"] == [
        (s, "train/loss") for s in (0, 1, 2, 2)
    ]
    assert ("val/mae", 2.0) in [(t, v) for _, t, v in scalars]
    starts = [e.step for e in found if e.HasField("session_log")]
    assert starts == [0, 2]  # what step 2 and later of the first attempt said is hidden


def test_the_bar_counts_images_and_starts_where_training_does(tmp_path, capfd):
    with open_log(tmp_path, restored=10) as log:
        for step in range(11, 101):
            log.progress(step, f"loss {step}")
    text = capfd.readouterr().err
    assert "10%" in text and "320/3200" in text  # img: 32 a step
    assert (
        text.rstrip().split("\r")[-1].startswith("100%") and "img/s" in text and "loss 100" in text
    )


def test_table():
    rows = [
        dict(method="numclip", mae=2.08, n=55134, srcc=0.95),
        dict(method="zero_shot", mae=12345.6, note="paper"),
    ]
    assert table(rows, ("method", "mae", "n", "srcc", "note")).splitlines() == [
        "method       mae      n    srcc  note",
        "---------  -----  -----  ------  -----",
        "numclip    2.080  55134  0.9500  -",
        "zero_shot  12346      -       -  paper",
    ]
    numbers = [0.0, 1e-5, 0.04321, 999.97, 1000.4, 9999.6, float("nan"), -26.078]
    assert [table([dict(x=x)], ["x"]).split()[-1] for x in numbers] == [
        "0.000",
        "1.000e-05",
        "0.04321",
        "1000",
        "1000",
        "10000",
        "-",
        "-26.08",
    ]
    assert table([], ("a", "b")) == "a  b\n-  -"
