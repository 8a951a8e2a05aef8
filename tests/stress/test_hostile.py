"""Images of every kind and name, and files that are none: verified, trained on, predicted."""

import csv
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxord.predict import predictor

ROOT = pathlib.Path(__file__).parents[2]
SIDE = 40
NAMES = ("with space", "ärger 日本", "line\nbreak", "tab\there", 'quote"d', "comma, and; more")
NAMES += ("-dash", "#hash")


def gradient(place):
    x = np.linspace(0, 255, SIDE)
    channels = np.broadcast_arrays(x[None], x[:, None], np.full((SIDE, SIDE), place))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def good(place):
    """{end of a name: (image, how it is saved)}."""
    image, exif = gradient(place), Image.Exif()
    exif[0x0112] = 6
    wide = (np.asarray(image.convert("L")).astype(np.uint16) * 257, image.convert("P"))
    return {
        "16 bits.png": (Image.fromarray(wide[0]), {}),
        "inks.jpg": (image.convert("CMYK"), {}),
        "grey.png": (image.convert("L"), {}),
        "one bit.png": (image.convert("1"), {}),
        "turned.jpg": (image, {"exif": exif}),
        "see through.webp": (image.convert("RGBA"), {}),
        "scan.tiff": (image, {}),
        "CAPITALS.JPG": (image, {}),
        "moves.gif": (wide[1], {"save_all": True, "append_images": [wide[1].rotate(90)]}),
        "plain.ppm": (image, {}),
        "tiny.png": (image.resize((1, 1)), {}),
        "thin.png": (image.resize((400, 2)), {}),
    }


def bad():
    """{name: (bytes, words of the error)}."""
    photo, bitmap = saved(gradient(1), "JPEG"), saved(gradient(1), "BMP")
    deep = saved(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF")
    huge = saved(Image.new("1", (20_000, 20_000)), "PNG")  # 50 kB that would fill 1.2 GB
    absurd = bitmap[:18] + b"\xff\xff\xff\x7f" * 2 + bitmap[26:]
    return {
        "nothing.png": (b"", "zero bytes"),
        "cut.jpg": (photo[: len(photo) // 2], "runcated"),
        "text.jpg": (b"no picture", "no image in a known format"),
        "bomb.png": (huge, "pixels"),
        "deep.tiff": (deep, "store the image with 8 or 16 bits"),
        "absurd.bmp": (absurd, "4611686014132420609 pixels"),
    }


def saved(image, form):
    image.save(file := io.BytesIO(), form)
    return file.getvalue()


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder a rank."""
    root = tmp_path_factory.mktemp("album")
    for rank in range(3):
        (root / f"{rank}").mkdir()
        for end, (image, options) in good(80 * rank).items():
            image.save(root / f"{rank}" / end, **options)
        for name in NAMES:
            gradient(80 * rank).save(root / f"{rank}" / f"{name}.png")
    for name, (content, _) in bad().items():
        (root / "1" / name).write_bytes(content)
    os.symlink("/etc/hostname", root / "1" / "linked.png")
    return root


def run(*arguments):
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}
    settings = {"cwd": ROOT, "env": environment, "text": True, "timeout": 240}
    return subprocess.run([sys.executable, *arguments], capture_output=True, **settings)


@pytest.mark.long
def test_an_album_of_everything_is_verified_trained_on_and_predicted(album, tmp_path):
    count = 3 * (len(good(0)) + len(NAMES))
    data = ("--config=configs/folder.py:backbone=tiny", f"--config.data.root={album}")
    verified = run("tools/verify_data.py", *data)
    assert verified.returncode == 1, verified.stderr
    lines = [line.split("\t") for line in verified.stdout.splitlines() if line.count("\t") == 3]
    for name, (_, expected) in [*bad().items(), ("linked.png", ("", "leaves the root"))]:
        reasons = [reason for _, _, path, reason in lines if path == f"1/{name}"]
        assert any(expected in reason for reason in reasons), (name, verified.stdout)
    assert len(lines) == len(bad()) + 1, verified.stdout
    (album / "1" / "linked.png").unlink()
    workdir = f"--workdir={tmp_path / 'run'}"
    short = ("--config.data.batch=8", "--config.train.duration=4 steps", workdir)
    stopped = run("-m", "jaxord.main", *data, *short)
    assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
    assert stopped.stderr.count("error: ") == 1
    assert all(name in stopped.stderr for name in ("nothing.png", "cut.jpg")), stopped.stderr
    skip = ("--config.data.broken=skip", "--config.data.broken_share=0.3")
    trained = run("-m", "jaxord.main", *data, *short, *skip)
    assert trained.returncode == 0 and "Traceback" not in trained.stderr, trained.stderr
    output = tmp_path / "predicted.csv"
    arguments = ("--mode=predict", workdir, f"--images={album}", f"--output={output}")
    predicted = run("-m", "jaxord.main", *arguments)
    assert predicted.returncode == 0, predicted.stderr
    assert f"{len(bad())} could not be read" in predicted.stdout, predicted.stderr
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    errors = {pathlib.Path(row["path"]).name: row["error"] for row in rows}
    assert len(rows) == count + len(bad())
    assert {name for name, error in errors.items() if error} == set(bad())
    assert all(reason in errors[name] for name, (_, reason) in bad().items())
    assert {f"{name}.png" for name in NAMES} <= set(errors)
    load = predictor.Predictor.load(tmp_path / "run")
    seen = [row for row in rows if not row["error"]]
    again = load([album / row["path"] for row in seen])
    np.testing.assert_allclose(again.value, [float(row["value"]) for row in seen], atol=1e-4)
