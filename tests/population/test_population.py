"""Members of a population end as they do alone: seeds, rates and folds; what does not share shapes
is refused."""

import copy
import csv
import json
import signal

import numpy as np
import pytest

from configs.base import entries
from jaxord import train
from jaxord.population import Member, fit, stacked
from jaxord.population import members as members_module
from jaxord.runtime import devices, signals
from jaxord.weights import initial
from jaxord.workdir.checkpoints import Checkpoints
from jaxord.workdir.layout import selected
from tests.kinds import MESHES, at, config, small_towers
from tools import bench_population
from tools.benching import measure


@pytest.fixture(autouse=True, scope="module")
def quick():
    with small_towers(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            initial, "check_scratch", lambda config, groups: None
        )  # a frozen tower of random weights
        yield


def on_features(c, folder, **fields):
    """The config with a frozen tower, whose features are cached."""
    c = copy.deepcopy(c).unlock()
    c.optim.groups = entries(
        {"parameters": "vision_model/.*", "group": "frozen"}, {"parameters": ".*", "group": "all"}
    )
    c.optim.rates, c.model.features, c.data.flip = at(0.02, ["all"]), str(folder), False
    c.update_from_flattened_dict(fields)
    return c.lock()


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(one, other, rule):
    """Compares logs, predictions, results and selected steps of two runs.

    Sums in another order change losses by up to 6e-7 of them.
    """
    for a, b in zip(logged(one), logged(other), strict=True):
        assert (a.pop("step"), a.pop("split")) == (b.pop("step"), b.pop("split"))
        assert b == pytest.approx(a, rel=5e-6, abs=1e-6, nan_ok=True)
    for a, b in zip(table(one), table(other), strict=True):
        assert a["path"] == b["path"] and float(b[rule]) == pytest.approx(
            float(a[rule]), rel=2e-5
        )  # of six digits
    results, done = (
        [json.loads((folder / name).read_text()) for folder in (one, other)]
        for name in ("results.json", "DONE.json")
    )
    assert done[0] == done[1]
    assert results[1]["test"][rule] == pytest.approx(results[0]["test"][rule], rel=1e-5)
    a, b = (selected(folder)["params"] for folder in (one, other))
    assert a.keys() == b.keys() and max(np.abs(a[path] - b[path]).max() for path in a) < 1e-5
    with Checkpoints(one / "checkpoints") as saved, Checkpoints(other / "checkpoints") as others:
        assert others.latest() == saved.latest() and others.best() == saved.best()
        assert (others.best() is None) or others.meta(others.best()) == pytest.approx(
            saved.meta(saved.best()), rel=1e-5
        )


def test_seeds_and_rates_train_together_as_alone(photos, tmp_path, monkeypatch):
    """On one device, members of one seed gather their rows once; one of each seed diverges and
    harms no other."""
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    base, members = config("folder", "method=ce_l1,backbone=tiny", photos), []
    for rate in (0.01, 0.1, 1e30):
        for seed in range(3):
            fields = {"seed": seed, "train.evaluate_every": "3 steps", "train.skips": 2}
            c = on_features(base, tmp_path / "kept", **fields).unlock()
            c.optim.rates, c.losses[0].weight = at(rate, ["all"]), 1.0 + seed
            members.append(Member(c.lock(), "", tmp_path / f"together/{seed}-{rate}", None))
    wild, members = members[6:], members[:6]
    words = (
        r"3 of 9 members have failed, the others are done\n"
        r".*0-1e\+30: 2 steps in a row .*\n  rows of step \d: \d+ .*png"
    )
    with pytest.raises(ValueError, match=words):
        fit([*wild, *members], signals.Stop())
    assert not any((member.folder / "DONE.json").exists() for member in wild)
    with monkeypatch.context() as patch:
        patch.setattr(
            members_module, "make_task", lambda *arguments: pytest.fail("makes a done member")
        )
        fit(members, signals.Stop())
    train.run(members[4].config, tmp_path / "alone")
    assert_same(tmp_path / "alone", members[4].folder, members[4].config.rules[0].name)
    steps = [json.loads((member.folder / "DONE.json").read_text())["step"] for member in members]
    assert len(set(steps)) > 1  # the validation split chooses


def left(folder):
    """Bytes of the files and arrays of a member."""
    files = {
        name: (folder / name).read_bytes()
        for name in ("DONE.json", "results.json", "predictions.csv", "metrics.jsonl")
    }
    arrays = {
        path: array.tobytes() for part in selected(folder).values() for path, array in part.items()
    }
    return files, arrays


@pytest.mark.long
def test_members_begin_again_after_a_signal_but_for_those_that_were_being_written(
    photos, tmp_path, monkeypatch
):
    """A signal in training leaves no file; one in the first member's evaluation lets it end.

    The bytes are those of an undisturbed group.
    """
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    base = config("folder", "method=ce_l1,backbone=tiny", photos)
    members = {
        name: [
            Member(
                on_features(base, tmp_path / "kept", seed=seed),
                "",
                tmp_path / name / str(seed),
                None,
            )
            for seed in range(3)
        ]
        for name in ("calm", "shaken")
    }

    def told_to_stop(owner, name):
        real = getattr(owner, name)

        def telling(*arguments):
            signal.raise_signal(signal.SIGTERM)
            return real(*arguments)

        with (
            monkeypatch.context() as patch,
            pytest.raises(signals.Stopped) as stopped,
            signals.Stop() as stop,
        ):
            patch.setattr(owner, name, telling)
            fit(members["shaken"], stop)
        assert stopped.value.code == 75
        return [
            member.config.seed
            for member in members["shaken"]
            if (member.folder / "DONE.json").exists()
        ]

    assert told_to_stop(members_module.Track, "judge") == []
    assert not list(tmp_path.glob("shaken/*/checkpoints"))
    assert told_to_stop(members_module, "evaluate_and_write") == [0]
    for group in members.values():
        fit(group, signals.Stop())
    for calm, shaken in zip(*members.values(), strict=True):
        assert left(shaken.folder) == left(calm.folder)


def in_folds(photos, root):
    """Two folds whose training splits have 64 and 56 images, of a data set without ready folds."""
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    lines = ["path,label,split_a,split_b"]
    for i, path in enumerate(paths):
        one, other = (
            ("train", "val", "test")[np.searchsorted(ends, i % 12, side="right")]
            for ends in ((8, 10), (7, 9))
        )
        lines.append(f"{path},{path[0]},{one},{other}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    c = config(
        "folder",
        "method=conord,backbone=tiny",
        photos,
        **{"train.duration": "2 epochs", "fold": "all"},
    ).unlock()
    c.data.table, c.data.folds, c.data.reader.split_column = (
        str(root / "table.csv"),
        ("a", "b"),
        "split_{}",
    )
    return c.lock()


@pytest.mark.long
def test_folds_train_together_as_alone(photos, tmp_path):
    """They take 8 and 7 steps; neighbours, reference points; eight devices for two members."""
    c = on_features(in_folds(photos, tmp_path), tmp_path / "kept")
    train.run(c, tmp_path / "alone")
    with c.unlocked():
        c.train.together = True
    train.run(c, tmp_path / "together")
    for fold in ("fold_a", "fold_b"):
        assert_same(tmp_path / "alone" / fold, tmp_path / "together" / fold, "knn")
    steps = [logged(tmp_path / "together" / fold)[-1]["step"] for fold in ("fold_a", "fold_b")]
    assert steps == [8, 7]


def test_what_shares_no_shapes_is_refused(photos, tmp_path):
    c = config("folder", "method=ce_l1,backbone=tiny", photos)
    one, other = Member(c, "", tmp_path / "one", None), copy.deepcopy(c).unlock()
    other.data.batch, other.seed = 8, 1
    words = (
        "differ in the seed, the fold, rates and weights of losses only\n"
        "  data.batch: 16 there, 8 here$"
    )
    with pytest.raises(ValueError, match=words):
        fit([one, Member(other, "", tmp_path / "other", None)], signals.Stop())
    with pytest.raises(
        ValueError,
        match="has images; runs are trained together on arrays of one length: set model.features",
    ):
        fit([one], signals.Stop())
    placed = devices.replicated(MESHES[1])
    with pytest.raises(
        ValueError, match=r"constants/rank_values is \[3\] of one and \[4\] of another"
    ):
        stacked.stack(
            [{"constants": {"rank_values": np.zeros(ranks)}} for ranks in (3, 4)], placed, placed
        )


def test_runs_of_members_that_see_the_same():
    assert [
        stacked.run_length(order)
        for order in ([0] * 4, [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1])
    ] == [4, 2, 1, 1, 1]


@pytest.mark.filterwarnings("ignore:the load_module")
def test_the_benchmark_trains_the_same_head_in_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    sizes = (
        "--images=80",
        "--width=4",
        "--steps=3",
        "--batch=8",
        "--rates=2",
        "--decays=1",
        "--seeds=2",
        "--rounds=2",
    )
    assert bench_population.main([*sizes, f"--output={tmp_path / 'file.json'}"]) == 0
    (row,) = json.loads((tmp_path / "file.json").read_text())["tables"]["Heads"]
    assert (
        row["heads"] == 4 and row["steps"] == 3 and row["images"] == 80 and row["difference"] < 1e-6
    )
    assert (
        0 < row["ratio min"] <= row["ratio"] <= row["ratio max"] and row["compile one by one s"] > 0
    )
