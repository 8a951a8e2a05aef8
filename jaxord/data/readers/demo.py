"""Data of the first run: photographs and digits that Python wheels carry; no downloads.

Both sets are built on first use under their root, a TFDS store of ArrayRecord files.
"""

import functools
import importlib.util
import io
import itertools
import pathlib

import numpy as np
from PIL import Image, ImageFilter

from jaxord.data import arrayrecord
from jaxord.data.readers import sources
from jaxord.data.splits import three_splits
from jaxord.shipped import install_hint

# Photographs inside the wheels of scikit-image (skimage/data) and scikit-learn
# (sklearn/datasets/images). Left out are drawings, masks, pages of text, and photographs that are
# soft as they are (clock_motion, cell, microaneurysms, moon, retina), on which no degradation could
# be seen. The two motorcycle files show one scene, so one is enough.
TRAIN = "astronaut.png brick.png coins.png flower.jpg grass.png hubble_deep_field.jpg"
SCENES = {
    "train": (*TRAIN.split(), "ihc.png", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "gravel.png"),
    "test": ("camera.png", "china.jpg", "coffee.png"),
}
OF_SKLEARN = ("china.jpg", "flower.jpg")
TILE, STRIDE = 96, 32  # pixels; a multiple of 8 keeps JPEG's blocks in one place in all tiles
TILES = {"train": 100, "val": 40, "test": 40}  # of a scene at most, spread evenly
# Of 1, 2, 3, 4, each step about as visible as the last; 0 is the photograph itself.
SEVERITIES = {
    "blur": (1.0, 1.8, 3.2, 5.6),  # standard deviation of a Gaussian, pixels
    "jpeg": (32, 16, 8, 4),  # quality
    "noise": (8, 16, 32, 64),  # standard deviation, of 0..255
}
# Mean absolute step between neighbouring pixels; on smoother tiles no degradation could be seen.
TEXTURE = 3.0


def photo_quality(root, *, fold, seed):
    """Degraded photographs: tiles of 14 scenes with blur, JPEG artefacts or noise.

    The target is the severity, 0 to 4; columns scene and kind (of degradation). No scene is in two
    splits. The images do not depend on the seed, so runs with different seeds compare.
    """
    if not arrayrecord.find(root):
        # All photographs are opened before the first is stored: a missing one stops the build.
        photos = {split: [(n, _photo(n)) for n in names] for split, names in SCENES.items()}
        splits = {split: _tiles(scenes, TILES[split]) for split, scenes in photos.items()}
        features = functools.partial(_features, side=TILE, texts=("path", "scene", "kind"))
        arrayrecord.write_store(root, features, splits)
    settings = {"dataset": arrayrecord.STORE, "splits": {split: split for split in SCENES}}
    return sources.tfds_dataset(root, fold=fold, seed=seed, **settings)


def digits(root, *, fold, seed):
    """Scikit-learn's 1,797 handwritten digits as ranks 0 to 9, 32 x 32 pixels; 60/20/20, drawn."""
    if not arrayrecord.find(root):
        _wheel("sklearn")
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        arrayrecord.write_store(root, _features, {"digits": _digits(pixels, labels)})
    settings = {"dataset": arrayrecord.STORE, "splits": {"all": "digits"}}
    records = sources.tfds_dataset(root, fold=fold, seed=seed, **settings)["all"]
    return three_splits(records, (0.6, 0.2, 0.2), seed, fold)


def _features(tfds, side=32, texts=()):
    image = tfds.features.Image(shape=(side, side, 3), encoding_format="png")
    columns = {name: tfds.features.Text() for name in texts}
    return {"image": image, "target": tfds.features.Scalar(np.float32), **columns}


def _digits(pixels, labels):
    for digit, label in zip(pixels.reshape(-1, 8, 8), labels, strict=True):
        grey = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
        large = grey.resize((32, 32), Image.Resampling.BICUBIC)
        yield {"image": _png(large.convert("RGB")), "target": np.float32(label)}


def _tiles(scenes, most):
    """Each tile at all five severities; kinds take turns, so each severity has equal shares."""
    turn = 0
    kinds = list(SEVERITIES)
    for file, photo in scenes:
        scene = file.split(".")[0]
        pairs = itertools.product(kinds, range(1, 5))
        versions = {pair: degrade(photo, *pair, file) for pair in pairs}
        for left, top in _places(photo, most):
            turn += 1
            for severity in range(5):
                kind = kinds[(turn + severity) % 3] if severity else "none"
                version = versions.get((kind, severity), photo)
                image = _png(version.crop((left, top, left + TILE, top + TILE)))
                path = f"{scene}/{left:04d}_{top:04d}_{kind}{severity}.png"
                texts = {"path": path, "scene": scene, "kind": kind}
                yield {"image": image, "target": np.float32(severity), **texts}


def degrade(photo, kind, severity, name):
    """Degrades a whole photograph, so that no tile has a border; `name` seeds the noise."""
    strength = SEVERITIES[kind][severity - 1]
    if kind == "blur":
        return photo.filter(ImageFilter.GaussianBlur(strength))
    if kind == "jpeg":
        return Image.open(io.BytesIO(_encode(photo, "JPEG", quality=strength))).convert("RGB")
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([severity, *name.encode()])))
    noise = draw.normal(0, strength, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def _places(photo, most):
    """Corners (left, top) of at most `most` tiles that have texture, evenly spread."""
    grey = np.asarray(photo.convert("L"), np.float32)
    tops = range(0, photo.height - TILE + 1, STRIDE)
    lefts = range(0, photo.width - TILE + 1, STRIDE)
    corners = []
    for top, left in itertools.product(tops, lefts):
        tile = grey[top : top + TILE, left : left + TILE]
        steps = [np.abs(np.diff(tile, axis=axis)).mean() for axis in (0, 1)]
        if (steps[0] + steps[1]) / 2 >= TEXTURE:
            corners.append((left, top))
    count = min(most, len(corners))
    return [corners[i * len(corners) // count] for i in range(count)]


def _photo(name):
    """A photograph of a wheel, RGB."""
    package = "sklearn" if name in OF_SKLEARN else "skimage"
    folder = "datasets/images" if name in OF_SKLEARN else "data"
    path = _wheel(package) / folder / name
    if not path.is_file():
        missing = f"{path} is not there: this version of {package} carries other photographs"
        raise ValueError(f"{missing}: {install_hint('demo')}")
    return Image.open(path).convert("RGB")


def _wheel(package):
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        missing = f"the demo data come with {package}, which is not installed"
        raise ValueError(f"{missing}: {install_hint('demo')}")
    return pathlib.Path(spec.origin).parent


def _png(image):
    return _encode(image, "PNG", compress_level=1)


def _encode(image, file_format, **settings):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()
