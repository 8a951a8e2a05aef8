"""Data of the first run: real photographs and digits that Python wheels carry, nothing is
downloaded.

Both sets are built on first use under their root, as any other data set: a TFDS store of
ArrayRecord files.
"""

import importlib.util
import io
import pathlib

import numpy as np
from PIL import Image, ImageFilter

from jaxord.data import arrayrecord
from jaxord.data.readers import sources
from jaxord.data.splits import split_records

# Photographs inside the wheels of scikit-image (skimage/data) and scikit-learn
# (sklearn/datasets/images). Left out are drawings, masks, pages of text, and photographs that are
# soft as they are (clock_motion, cell, microaneurysms, moon, retina), on which a degradation could
# not be told from the subject. The two motorcycle files show one scene, so one of them is enough.
SCENES = {
    "train": (
        "astronaut.png",
        "brick.png",
        "coins.png",
        "flower.jpg",
        "grass.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ),
    "val": ("chelsea.png", "gravel.png"),
    "test": ("camera.png", "china.jpg", "coffee.png"),
}
TILE, STRIDE = 96, 32  # pixels; a multiple of 8 keeps JPEG's blocks in one place in all tiles
TILES = {"train": 100, "val": 40, "test": 40}  # of a scene at most, spread evenly
# Of 1, 2, 3, 4, each step about as visible as the last; 0 is the photograph as it is
SEVERITIES = {
    "blur": (1.0, 1.8, 3.2, 5.6),  # standard deviation of a Gaussian, pixels
    "jpeg": (32, 16, 8, 4),  # quality
    "noise": (8, 16, 32, 64),  # standard deviation, of 0..255
}
# Mean absolute step between neighbouring pixels; on smoother tiles no degradation could be seen
TEXTURE = 3.0


def photo_quality(root, *, fold, seed):
    """How degraded is a photograph: tiles of 14 scenes with blur, JPEG artefacts or noise of
    severity 0 to 4.

    The target is the severity, the column `kind` says what was done. No scene is in two splits. The
    images are the same for every seed, so that runs with different seeds are compared on the same
    data.

    Args:
        root: folder for the store; built on first use.
        fold: not used.
        seed: not used.
    """
    if not arrayrecord.find(root):
        photos = {
            split: [(name, _photo(name)) for name in names] for split, names in SCENES.items()
        }
        splits = {split: _tiles(scenes, TILES[split]) for split, scenes in photos.items()}
        arrayrecord.write_store(root, _photo_features, splits)
    splits = {split: split for split in SCENES}
    return sources.tfds_dataset(
        root, fold=fold, seed=seed, dataset=arrayrecord.STORE, splits=splits
    )


def digits(root, *, fold, seed):
    """Scikit-learn's 1,797 handwritten digits as ranks 0 to 9, 32 x 32 pixels; 60/20/20, drawn with
    the seed.

    Args:
        root: folder for the store; built on first use.
        fold: with `seed`, fixes the draw of the splits.
        seed: of the run.
    """
    if not arrayrecord.find(root):
        _wheel("sklearn")
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        arrayrecord.write_store(root, _digit_features, {"digits": _digits(pixels, labels)})
    records = sources.tfds_dataset(
        root, fold=fold, seed=seed, dataset=arrayrecord.STORE, splits={"all": "digits"}
    )["all"]
    return split_records(records, {"train": 0.6, "val": 0.2, "test": 0.2}, seed, fold)


def _photo_features(tfds):
    return {
        "image": tfds.features.Image(shape=(TILE, TILE, 3), encoding_format="png"),
        "target": tfds.features.Scalar(np.float32),
        "path": tfds.features.Text(),
        "scene": tfds.features.Text(),
        "kind": tfds.features.Text(),
    }


def _digit_features(tfds):
    return {
        "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
        "target": tfds.features.Scalar(np.float32),
    }


def _digits(pixels, labels):
    for image, label in zip(pixels.reshape(-1, 8, 8), labels, strict=True):
        grey = Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize(
            (32, 32), Image.Resampling.BICUBIC
        )
        yield {"image": _png(grey.convert("RGB")), "target": np.float32(label)}


def _tiles(scenes, most):
    """Each tile in all five severities; kinds take turns, so that every severity has the same share
    of each."""
    turn = 0
    for scene, photo in scenes:
        versions = {
            (kind, severity): degrade(photo, kind, severity, scene)
            for kind in SEVERITIES
            for severity in range(1, 5)
        }
        for left, top in _places(photo, most):
            turn += 1
            for severity in range(5):
                kind = list(SEVERITIES)[(turn + severity) % 3] if severity else "none"
                tile = versions.get((kind, severity), photo).crop(
                    (left, top, left + TILE, top + TILE)
                )
                name = scene.split(".")[0]
                yield {
                    "image": _png(tile),
                    "target": np.float32(severity),
                    "path": f"{name}/{left:04d}_{top:04d}_{kind}{severity}.png",
                    "scene": name,
                    "kind": kind,
                }


def degrade(photo, kind, severity, name):
    """A whole photograph with one degradation, so that no tile has a border of its own; `name`
    seeds the noise."""
    strength = SEVERITIES[kind][severity - 1]
    if kind == "blur":
        return photo.filter(ImageFilter.GaussianBlur(strength))
    if kind == "jpeg":
        return Image.open(io.BytesIO(_encode(photo, "JPEG", quality=strength))).convert("RGB")
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([severity, *name.encode()])))
    noise = draw.normal(0, strength, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def _places(photo, most):
    """Corners of at most so many tiles that have texture, evenly spread."""
    grey = np.asarray(photo.convert("L"), np.float32)
    found = []
    for top in range(0, photo.height - TILE + 1, STRIDE):
        for left in range(0, photo.width - TILE + 1, STRIDE):
            tile = grey[top : top + TILE, left : left + TILE]
            if (
                np.abs(np.diff(tile, axis=0)).mean() + np.abs(np.diff(tile, axis=1)).mean()
            ) / 2 >= TEXTURE:
                found.append((left, top))
    return [found[i * len(found) // most] for i in range(most)] if len(found) > most else found


def _photo(name):
    package, folder = (
        ("sklearn", "datasets/images")
        if name in ("china.jpg", "flower.jpg")
        else ("skimage", "data")
    )
    path = _wheel(package) / folder / name
    if not path.is_file():
        raise ValueError(
            f'{path} is not there: this version of {package} carries other photographs; pip install -U "jaxord[demo]"'
        )
    return Image.open(path).convert("RGB")


def _wheel(package):
    """Folder of an installed package; found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(
            f'the demo data come with {package}, which is not installed: pip install "jaxord[demo]"'
        )
    return pathlib.Path(spec.origin).parent


def _png(image):
    return _encode(image, "PNG", compress_level=1)


def _encode(image, form, **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()
