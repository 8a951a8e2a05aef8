"""Features of a frozen image tower: computed once, kept in a folder, and given to the model in
place of images.

    <config.model.features>/<key of tower and transform>/<key of rows>.npz    names S32[N], features f32[N, C]

The key of the folder changes with each weight of the tower and with all that leads from a file to
the tower's image; the name of a row with its file, as in the cache of decoded images. So the heads
of a sweep share all rows, and folds, seeds and few-shot runs those that they have in common.

N records of a split, C width of the tower, B batch, V views.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxord.data import augment, storage
from jaxord.data.batches import outputs
from jaxord.runtime import devices, hosts
from jaxord.trees import nested
from jaxord.workdir import files, run_config

FORMAT = 2  # raised when features change, so that no old ones are read
IMAGES = ("frames", "size")  # inputs that become the tower's image


def make_split(config, model, variables, trained, replicated):
    """Builds split(records, data, place), in place of tiers.decode_split: a Split with the input
    `image_features` f32[N, C].

    It has no images. They are decoded only where features are not in the folder yet, and seen as in
    evaluation, those of the training split too.

    Args:
      config: of one stage.
      model: the linen module.
      variables: {"params": flat, "stats": flat}, with the weights loaded.
      trained: paths of the trained parameters.
      replicated: sharding of the parameters.

    Raises:
      ValueError: a tower that is trained, or that is another in training than in evaluation;
        sentences. Of a split: images that cannot be decoded, features that are not finite.
    """
    check(config, model, trained)
    folder, data = pathlib.Path(config.model.features) / key(config, model, variables), config.data

    @jax.jit
    def forward(variables, batch):
        (stored,) = {"stored", "frames"} & set(batch)
        image = augment.augment(
            batch[stored],
            batch["size"],
            batch["index"],
            batch["epoch"],
            crop=data.eval_crop,
            flip=False,
            image_size=data.image_size,
            normalize=data.normalize,
            seed=0,
            train=False,
        )
        features = model.apply(nested(variables), {"image": image}, method="features")
        return {"features": jax.lax.with_sharding_constraint(features, replicated)}

    def compute(records, data, place):
        decoded = storage.decode_split(records, data, place)
        placed = devices.put(variables, replicated)
        found = outputs(decoded, functools.partial(forward, placed), batch=data.eval_batch)[
            "features"
        ]
        if not np.isfinite(found).all():
            raise ValueError(
                f"features of {records.name} are not finite; look at the weights, or at model.dtype"
            )
        features = np.full(
            (len(records), found.shape[1]), np.nan, np.float32
        )  # nan: a broken image
        features[decoded.slots] = found
        return features

    def split(records, data, place):
        names = row_names(records, data)
        features = read(folder, names)
        if hosts.first(lambda: features is None)():
            features = compute(records, data, place)
            hosts.first(write)(folder, names, features)
        there = ~np.isnan(features[:, 0])
        reason = "it was broken when its features were computed"
        skipped = tuple(
            (row, records.paths[row], reason) for row in np.flatnonzero(~there).tolist()
        )
        storage.check_broken(records, skipped, data)
        inputs = {name: array for name, array in records.inputs.items() if name not in IMAGES} | {
            "image_features": features
        }
        kept = dataclasses.replace(records, read=None, inputs=inputs).take(np.flatnonzero(there))
        return storage.Split(
            kept, "inputs", None, None, np.arange(len(kept), dtype=np.int32), skipped, data, place
        )

    return split


def check(config, model, trained):
    """Raises ValueError where features would not stay the same through a training."""
    tower, title = (
        model.tower[0],
        f"model.features is {config.model.features!r}, which keeps what a frozen image tower gives",
    )
    if tower == "sentence":
        raise ValueError(f"{title}; the tower {config.model.image_tower} sees sentences: unset it")
    learned = sorted(path for path in trained if path.startswith(f"{tower}/"))
    if learned:
        raise ValueError(
            f"{title}, but {len(learned)} of its parameters are trained, such as {learned[0]}; freeze it by "
            "optim.groups, or unset model.features"
        )
    if tower != "vision_model" and config.train.statistics != "keep":
        raise ValueError(
            f"{title}, but {config.model.image_tower} has running statistics or dropout and is another one in "
            "training; set train.statistics='keep', or unset model.features"
        )


def key(config, model, variables):
    """Names the tower, each of its weights, and how it sees an image."""
    tower, data = model.tower[0], config.data
    crop, sizes = (
        run_config.plain(data.eval_crop),
        (data.resize, data.stored_size, data.image_size, data.normalize),
    )
    how = (
        FORMAT,
        config.model.image_tower,
        repr(model.settings),
        str(jnp.dtype(model.dtype)),
        crop,
        sizes,
    )
    digest = hashlib.sha256(json.dumps(how).encode())
    for collection in ("params", "stats"):
        for path, array in sorted(variables[collection].items()):
            if path.startswith(f"{tower}/"):
                digest.update(f"{path} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def row_names(records, data):
    """S32[N]: names of the rows' images; another file, other damage or, of frames, another setting
    of the reader renames."""
    parts = [records.stamp, run_config.plain(data.reader) if "frames" in records.inputs else ""]
    damage = [data.corruption.name, data.corruption.severity] if data.corruption.name else []
    rows = (
        [*parts, path, *damage, *([row] if damage else [])]
        for row, path in enumerate(records.paths)
    )
    return np.array(
        [hashlib.sha256(json.dumps(row).encode()).hexdigest()[:32] for row in rows], "S32"
    )


def read(folder, names):
    """f32[N, C]: the features of these rows, from all files of the folder; None where one of the
    rows has none."""
    features, missing = None, np.ones(len(names), bool)
    for file in sorted(folder.glob("*.npz")):
        with (
            files.reading(file, "remove it, and it is computed anew"),
            np.load(file, allow_pickle=False) as part,
        ):
            places = {name: place for place, name in enumerate(part["names"].tolist())}
            rows = [row for row in np.flatnonzero(missing) if names[row] in places]
            if rows:
                stored = part["features"]
                features = (
                    np.empty((len(names), stored.shape[1]), np.float32)
                    if features is None
                    else features
                )
                features[rows] = stored[[places[names[row]] for row in rows]]
                missing[rows] = False
        if not missing.any():
            return features
    return None


def write(folder, names, features):
    """Adds a file to the folder, by one rename; processes that do so at once write the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        whole = pathlib.Path(part, f"{hashlib.sha256(names.tobytes()).hexdigest()[:32]}.npz")
        np.savez(whole, names=names, features=features)
        whole.replace(folder / whole.name)
    logging.info("features of %d images are in %s", len(names), folder)
