"""Predictions of finished runs: in memory as in files, whatever the batch, devices and names; and
going on after a kill."""

import csv
import dataclasses
import functools
import inspect
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing

import numpy as np
import pytest
from PIL import Image

from configs import folder
from jaxord import train
from jaxord.data import inputs
from jaxord.data.records import IMAGES
from jaxord.models import clip
from jaxord.predict import files, predictor, trained_model
from jaxord.predict.predictor import Predictor
from jaxord.runtime import devices, flops, signals
from jaxord.trees import nested
from jaxord.workdir import files as workdir_files
from tests.kinds import MESHES, Flat, compiled_fast

HEAVY = ("tensorflow_datasets", "grain", "torch", "sklearn", "transformers", "tensorflow")
listed = functools.partial(inputs.files, root="", endings=IMAGES, noun="images")
NAMES = (
    "a b.png",
    "größe 猫.png",
    'quo"ted, name.png',
    "line\nbreak.png",
    "return\r\nend.png",
    "sub/deep.png",
    "UPPER.PNG",
)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """A tower of one layer, and code that is compiled fast."""
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(clip, "VisionModel", Flat)
        yield


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """method -> folder of its run, of no steps: neighbours without logits, and logits with three
    rules."""
    found = {}
    for method in ("conord", "ce_l1"):
        c = folder.get_config(f"method={method},backbone=tiny")
        c.data.update(
            {
                "root": str(photos),
                "batch": 16,
                "eval_batch": 16,
                "image_size": 16,
                "stored_size": 20,
            }
        )
        c.train.duration = c.optim.warmup = "0 steps"
        found[method] = tmp_path_factory.mktemp("runs") / method
        train.run(c, found[method])
    return found


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Nineteen files: names of all kinds, three that are no images, and others that do not
    count."""
    root = tmp_path_factory.mktemp("album")
    draw = np.random.default_rng(0)
    for name in (*NAMES, *(f"{i}.png" for i in range(9))):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (24, 31, 3), dtype=np.uint8)).save(root / name, "PNG")
    whole = (root / "0.png").read_bytes()
    for name, content in (
        ("broken/cut.png", whole[:200]),
        ("broken/empty.jpg", b""),
        ("broken/text.png", b"no image"),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    for name in ("notes.md", ".hidden.png", ".cache/0.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(whole)
    return root


@pytest.fixture(scope="module")
def predictors(runs):
    return {method: Predictor.load(workdir) for method, workdir in runs.items()}


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_the_run_itself_predicted_is_predicted(runs, predictors, photos):
    for method, rules in (("conord", {}), ("ce_l1", {"value", "argmax"})):
        rows = rows_of(runs[method] / "predictions.csv")
        found = predictors[method]([photos / row["path"] for row in rows])
        headline = {"conord": "knn", "ce_l1": "expectation"}[method]
        assert set(found.others) == set(rules)
        for rule, values in {headline: found.value, **found.others}.items():
            np.testing.assert_allclose(
                values, [float(row[rule]) for row in rows], rtol=1e-5, atol=1e-5
            )
        assert found.rank.tolist() == [int(row["rank"]) for row in rows]
        assert found.rank_name.tolist() == [
            row["rank"] for row in rows
        ]  # ranks here are called by their numbers
        assert (
            not any(found.error)
            and found.value.dtype == np.float32
            and found.rank.dtype == np.int32
        )


def test_uncertainty_is_what_its_formula_says(predictors, album):
    images = [album / f"{i}.png" for i in range(9)]
    near, spread = predictors["conord"](images), predictors["ce_l1"](images)
    assert near.neighbours.shape == (9, 10) and near.probabilities is None
    assert set(near.neighbours.ravel()) <= {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_allclose(near.neighbours.mean(1), near.value, rtol=1e-6)
    np.testing.assert_allclose(near.uncertainty, np.std(near.neighbours, axis=1), atol=1e-6)
    assert spread.neighbours is None and spread.probabilities.shape == (9, 4)
    np.testing.assert_allclose(spread.probabilities.sum(1), 1, rtol=1e-6)
    for p, found, value in zip(spread.probabilities, spread.uncertainty, spread.value, strict=True):
        mean = sum(k * p[k] for k in range(4))
        assert value == pytest.approx(mean, rel=1e-5)
        assert found == pytest.approx(
            sum(p[k] * (k - mean) ** 2 for k in range(4)) ** 0.5, rel=1e-5
        )


def test_two_angles_have_no_ranks(predictors, album):
    run = predictors["conord"].run
    angles = np.stack([run.constants["gallery_targets"], -2 * run.constants["gallery_targets"]], 1)
    run = dataclasses.replace(
        run, ranks=None, constants={**run.constants, "gallery_targets": angles}
    )
    found = Predictor(run)(album / "0.png")
    one = predictors["conord"](album / "0.png")
    assert found.rank is found.rank_name is None and found.neighbours.shape == (1, 10, 2)
    np.testing.assert_allclose(found.value, one.value[:, None] * [[1, -2]], rtol=1e-6)
    np.testing.assert_allclose(found.uncertainty, one.uncertainty * 5**0.5, rtol=1e-6)
    header, row = csv.reader(io.StringIO(files.csv_rows(found, ["x"], None, True)))
    assert (
        header[:3] == ["path", "value_0", "value_1"]
        and header[3] == "neighbour_1_0"
        and len(header) == len(row) == 25
    )
    assert json.loads(files.json_rows(found, ["x"], None, True))["value"] == pytest.approx(
        found.value[0].tolist(), rel=1e-5
    )


def test_neither_batch_nor_devices_change_a_bit(runs, predictors, album, monkeypatch):
    """Nine at once on eight devices; four at a time, the last alone, on one, at other places of a
    piece."""
    images = [album / f"{i}.png" for i in range(9)]
    monkeypatch.setattr(devices, "data_mesh", lambda devices: MESHES[1])
    for first in predictors.values():
        assert first._piece == 16 and first._mesh.size == 8
        expected, other = first(images), Predictor(first.run, 4)
        for order in (slice(None), slice(None, None, -1)):
            found = other(images[order])
            for name in ("value", "rank", "probabilities", "neighbours", "uncertainty"):
                one, two = getattr(found, name), getattr(expected, name)
                assert (one is None) == (two is None)
                if one is not None:
                    np.testing.assert_array_equal(one, two[order], err_msg=name)


def test_a_device_sees_as_many_examples_as_are_work_for_a_call(predictors, monkeypatch):
    run = predictors["ce_l1"].run
    image = np.zeros((1, 1, 16, 16, 3), np.float32)
    work = flops.count(run.model.apply, nested(run.variables), {**run.constants, "image": image})
    for pieces, expected in ((0.5, 1), (1, 1), (7.9, 4), (8, 8), (1e6, 16)):  # eval_batch is 16
        monkeypatch.setitem(predictor.WORK, "cpu", int(pieces * work))
        assert Predictor(run)._piece == expected


def test_images_in_memory_are_those_of_files(predictors, tmp_path):
    """All modes that Pillow opens, alpha and palettes too; photographs on their side."""
    draw = np.random.default_rng(1)
    colour = Image.fromarray(draw.integers(0, 256, (22, 30, 4), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 2**16, (22, 30), dtype=np.uint16))
    palette = colour.convert("RGB").quantize(16)
    saved = []
    for name, image, more in (
        ("rgb.png", colour.convert("RGB"), {}),
        ("rgba.png", colour, {}),
        ("grey.png", colour.convert("L"), {}),
        ("la.png", colour.convert("LA"), {}),
        ("bit.png", colour.convert("1"), {}),
        ("p.png", palette, {}),
        ("clear.png", palette, {"transparency": 3}),
        ("deep.png", deep, {}),
        ("deep.tif", deep, {}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("side.jpg", colour.convert("RGB"), {"exif": orientation(6)}),
    ):
        image.save(tmp_path / name, **more)
        saved.append(tmp_path / name)
    found = predictors["ce_l1"]
    by_path = found(saved).value
    np.testing.assert_array_equal(found([Image.open(file) for file in saved]).value, by_path)
    assert len(set(by_path.tolist())) == 7  # alpha is dropped, and both deep ones are the same
    rgb, grey = np.asarray(colour.convert("RGB")), np.asarray(colour.convert("L"))
    by_path = found(saved[:3]).value
    for images, rows in (
        ([rgb, grey, grey[..., None].repeat(3, 2)], [0, 2, 2]),
        (np.stack([rgb, rgb]), [0, 0]),
        (np.stack([grey, grey]), [2, 2]),
        (rgb, [0]),
        (grey, [2]),
        (str(saved[0]), [0]),
        (colour, [0]),
    ):
        np.testing.assert_array_equal(found(images).value, by_path[rows])


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_a_broken_image_is_raised_or_reported(predictors, album, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images = [
        album / "0.png",
        album / "broken/cut.png",
        album,
        tmp_path / "pipe.png",
        album / "no\0.png",
        "nowhere.png",
        np.zeros((4, 4)),
        Image.new("F", (4, 4)),
        Image.open(album / "broken/cut.png"),
    ]
    with pytest.raises(
        ValueError, match=r"8 of 9 images cannot be read\n  1, .*cut.png: .*\n.*not a file"
    ):
        predictors["ce_l1"](images)
    found = predictors["ce_l1"](images, broken="report")
    assert found.error[0] == "" and all(found.error[1:])
    assert "No such file" in found.error[5] and "float64[4, 4] is no image" in found.error[6]
    assert (
        np.isnan(found.value[1:]).all()
        and np.isnan(found.probabilities[1:]).all()
        and np.isnan(found.uncertainty[1:]).all()
    )
    assert (found.rank[1:] == -1).all() and set(found.rank_name[1:]) == {""}
    assert found.value[0] == pytest.approx(predictors["ce_l1"](album / "0.png").value[0], rel=1e-5)
    with pytest.raises(ValueError, match="no images"):
        predictors["ce_l1"]([])


def test_threads_share_a_predictor(predictors, album):
    images, predictor = [album / f"{i}.png" for i in range(9)], predictors["conord"]
    expected, found = predictor(images).value, {}

    def ask(i):
        found[i] = np.concatenate(
            [predictor(images[i:]).value, predictor(images[:i] or images).value[:i]]
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(6):
        np.testing.assert_allclose(np.roll(found[i], i), expected, rtol=1e-6)


def test_decoding_is_a_bounded_way_ahead_and_ends_with_its_reader():
    begun = []

    def slow(item):
        begun.append(item)
        return -item

    ahead = predictor._ahead(slow, range(100_000), workers=3, depth=20)
    assert [next(ahead) for _ in range(5)] == [0, -1, -2, -3, -4]
    time.sleep(0.05)
    assert 20 <= len(begun) <= 30
    ahead.close()
    assert len(begun) <= 30


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_becomes_rows_under_any_name(runs, predictors, album, tmp_path, capsys, kind):
    output = tmp_path / "new" / f"out.{kind}"
    files.predict_run(runs["ce_l1"], str(album), str(output))
    assert (
        "19 images in" in (said := capsys.readouterr()).out
        and "3 could not be read" in said.out
        and " images/s" in said.err
    )
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    paths = sorted(
        str(path)
        for path in album.rglob("*.*")
        if not {".hidden.png", ".cache", "notes.md"} & set(path.parts)
    )
    rows = (
        rows_of(output)
        if kind == "csv"
        else [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    )
    assert [row["path"] for row in rows] == [
        path for path in paths if os.path.isfile(path)
    ] and len(rows) == 19
    good = [row for row in rows if not row["error"]]
    found = predictors["ce_l1"]([row["path"] for row in good])
    assert {row["path"] for row in rows if row["error"]} == {
        path for path in paths if "/broken/" in path
    }
    columns = [
        "value",
        "uncertainty",
        "rule_value",
        "rule_argmax",
        *(f"probability_{name}" for name in "0123"),
    ]
    for i, row in enumerate(good):
        wanted = [
            found.value[i],
            found.uncertainty[i],
            found.others["value"][i],
            found.others["argmax"][i],
        ]
        wanted += found.probabilities[i].tolist()
        if kind == "csv":
            numbers = [row[column] for column in columns]
        else:
            numbers = [
                row["value"],
                row["uncertainty"],
                row["others"]["value"],
                row["others"]["argmax"],
                *row["probabilities"],
            ]
        np.testing.assert_allclose([float(number) for number in numbers], wanted, rtol=1e-5)
        assert (int(row["rank"]), row["rank_name"]) == (found.rank[i], found.rank_name[i])
    bad = next(row for row in rows if row["error"])
    assert {value for name, value in bad.items() if name not in ("path", "error", "others")} == {
        "" if kind == "csv" else None
    }


@pytest.mark.parametrize("method, kind", [("conord", "csv"), ("ce_l1", "jsonl")])
def test_cut_anywhere_it_goes_on_to_the_same_bytes(
    runs, album, tmp_path, monkeypatch, capsys, method, kind
):
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    files.predict_run(runs[method], str(album), whole, batch=4)
    expected = whole.read_bytes()
    real, calls = getattr(files, f"{kind.removesuffix('l')}_rows"), []

    def dying(*arguments, **settings):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(files, real.__name__, dying)
        with pytest.raises(signals.Stopped), signals.Stop():
            files.predict_run(runs[method], str(album), output, batch=4)
    part, mark = tmp_path / f"out.{kind}.part", (tmp_path / f"out.{kind}.part.json").read_bytes()
    begun = part.read_bytes()
    assert expected.startswith(begun) and not output.exists()
    files.predict_run(runs[method], str(album), output, batch=4)
    assert (
        output.read_bytes() == expected
        and "7 images after 12 of an earlier command" in capsys.readouterr().out
    )
    for cut in (10, len(begun) // 2, len(begun) - 1, len(expected) - 1, len(expected)):
        part.write_bytes(expected[:cut])
        (tmp_path / f"out.{kind}.part.json").write_bytes(mark)
        output.unlink(missing_ok=True)
        if cut in (10, len(begun) - 1, len(expected)):
            files.predict_run(runs[method], str(album), output, batch=4)
            assert output.read_bytes() == expected and not part.exists()
        else:
            with open(part, "rb") as file:
                place, rows = files.end_of_whole_batches(file, 4, kind == "csv")
            assert rows % 4 == 0 and expected[:place].endswith(b"\n") and place <= cut


def test_a_part_belongs_to_one_command(runs, album, tmp_path):
    output, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    part.write_text("path,mine\n")
    with pytest.raises(
        ValueError, match="out.csv.part belongs to another run, list of examples or --batch; finish"
    ):
        files.predict_run(runs["ce_l1"], str(album), output)
    assert part.read_text() == "path,mine\n"

    def command(method, batch, name):
        return files.fingerprint(Predictor.load(runs[method], batch=batch), [name], ["a"])

    own = command("ce_l1", 4, "a")
    others = [command("ce_l1", 5, "a"), command("conord", 4, "a"), command("ce_l1", 4, "b")]
    assert own == command("ce_l1", 4, "a") and own not in others
    (tmp_path / "out.csv.part.json").write_text(json.dumps(own))
    for other in others:
        with pytest.raises(ValueError, match="belongs to another"):
            with files.resumed_file(output, other, 4):
                pass
    with workdir_files.lock(tmp_path / "out.csv.part.lock"):
        with pytest.raises(ValueError, match="another process writes"):
            with files.resumed_file(output, own, 4):
                pass
    with files.resumed_file(output, own, 4) as (file, rows):
        assert rows == 0
        file.write(b"done")
    assert output.read_bytes() == b"done" and [path.name for path in tmp_path.iterdir()] == [
        "out.csv"
    ]


def test_lists_of_images_in_every_form(album, tmp_path):
    a, b = str(album / "0.png"), str(album / "1.png")
    assert listed(a) == ([a], [a])
    assert listed(str(album / "[01].png"))[0] == [a, b]
    assert len(listed(f"{album}/**/*.png")[0]) == 17
    strange = ["sub/line\nbreak.png", " spaces .png", 'quo"te,.png', "größe.png", a, ""]
    for mark, name in ((",", "list.csv"), ("\t", "list.tsv"), (";", "semicolon.csv")):
        with open(tmp_path / name, "w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=mark).writerows(
                [["id", "path", "label"], *([i, n, 3] for i, n in enumerate(strange))]
            )
        names, found = listed(str(tmp_path / name))
        assert names == strange and found[:2] == [
            f"{tmp_path}/sub/line\nbreak.png",
            f"{tmp_path}/ spaces .png",
        ]
        assert (
            found[-2:] == [a, ""]
            and listed(tmp_path / name, root="/else")[1][0] == "/else/sub/line\nbreak.png"
        )
    raw = os.fsdecode(b"latin-\xe9.png")
    (tmp_path / "list.txt").write_bytes(b"x y.png\r\n\n  z.png\nlatin-\xe9.png")
    assert listed(tmp_path / "list.txt")[0] == ["x y.png", "  z.png", raw]
    none = predictor.Prediction(
        np.ones(1), np.zeros(1, int), np.array(["a"]), None, None, None, {}, np.array([""], object)
    )
    ranks = trained_model.Ranks(np.zeros(1), ("a",), np.zeros(0))
    text = files.csv_rows(none, [raw], ranks, False).encode("utf-8", files.ERRORS[".csv"])
    assert text == b"latin-\xe9.png,1,0,a,,\r\n"
    line = files.json_rows(none, [raw], ranks, False).encode("utf-8", files.ERRORS[".jsonl"])
    assert json.loads(line)["path"] == raw


@pytest.mark.parametrize(
    "content, words",
    [("a,b\n1,2\n", r"columns \['a', 'b'\]; expected one"), ("path\n", "a header but no rows")],
)
def test_tables_that_say_nothing(tmp_path, content, words):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        listed(tmp_path / "list.csv")


def test_mistakes_are_one_sentence(runs, album, tmp_path):
    run = str(runs["ce_l1"])
    for arguments, words in (
        ((run, album, "out.parquet"), "file ending in .csv or .jsonl"),
        ((run, tmp_path, tmp_path / "a.csv"), "holds no images"),
        ((run, tmp_path / "nowhere", tmp_path / "a.csv"), "is not there"),
        ((run, tmp_path / "no.csv", tmp_path / "a.csv"), "cannot read"),
        ((run, f"{tmp_path}/*.png", tmp_path / "a.csv"), "holds no images"),
        ((tmp_path, album, tmp_path / "a.csv"), "holds no run"),
        ((run, album, tmp_path / "a.csv", "3"), "choose one with --fold="),
        ((run, album, tmp_path / "a.csv", "", -1), "batch is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            files.predict_run(*arguments)
    assert not list(tmp_path.glob("a.csv*"))
    shutil.copytree(runs["ce_l1"], tmp_path / "run")
    (tmp_path / "run/DONE.json").unlink()
    with pytest.raises(ValueError, match="is not done"):
        Predictor.load(tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["DONE.json", "ranks.json", "constants.npz", "clip.json", "config.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"PK\x03\x04 cut", b"\xff\xfe{}"])
def test_a_damaged_file_of_a_run_names_itself(runs, tmp_path, name, content):
    shutil.copytree(runs["ce_l1"], tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "run" / name))):
        Predictor.load(tmp_path / "run")


@pytest.mark.parametrize(
    "edit",
    [("values", [0, 1, 1e39, 3]), ("values", [0, 2, 1, 3]), ("names", ["a"]), ("edges", [0, 1])],
)
def test_ranks_that_are_none_are_not_read(runs, tmp_path, edit):
    shutil.copytree(runs["ce_l1"], tmp_path / "run")
    file = tmp_path / "run/ranks.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict([edit])))
    with pytest.raises(ValueError, match=re.escape(f"{file} is damaged (ValueError: ")):
        Predictor.load(tmp_path / "run")


def test_the_python_api_is_typed():
    import jaxord

    assert (pathlib.Path(jaxord.__file__).parent / "py.typed").is_file()
    api = [
        jaxord.Predictor.load,
        *(getattr(jaxord.Predictor, name) for name in ("__init__", "__call__", "stream")),
    ]
    api += [getattr(jaxord.OrdinalRegressor, name) for name in ("__init__", "fit", "predict")]
    for function in api:
        parameters = set(inspect.signature(function).parameters) - {"self"}
        assert set(typing.get_type_hints(function)) == parameters | {"return"}, function


def test_importing_is_light(runs):
    """The package alone needs no jax; a predictor nothing that only data or training need."""
    program = f"""
import sys, jaxord
assert not {{"jax", "numpy", "sklearn"}} & set(sys.modules), "import jaxord"
assert {{"Predictor", "OrdinalRegressor"}} <= set(dir(jaxord))
jaxord.Predictor
from jaxord import predict
from jaxord.predict import trained_model
trained_model.load({str(runs["ce_l1"])!r})
print(sorted({set(HEAVY)!r} & set(sys.modules)))
try:
    jaxord.Predictr
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "module 'jaxord' has no attribute 'Predictr'"]
