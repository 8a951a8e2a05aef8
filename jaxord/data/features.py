"""Features of a frozen image tower, computed once, kept in a folder and used in place of images.

    <config.model.features>/<key of tower and transform>/<key of rows>.npz
        names S32[N], features f32[N, C]

The folder key hashes weights and preprocessing, the row key the image file. So the heads of a sweep
share all rows, and folds, seeds and few-shot runs share the rows they have in common.

N records of a split, C width of the tower, B batch, V views.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib

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
    """The function split(records, data, place) that stands in for storage.decode_split.

    Its Split has no images but the input `image_features` f32[N, C]. It decodes images only for
    features that the folder lacks, and transforms all as in evaluation. It raises ValueError for
    broken images and for features that are not finite.

    Args:
      config: of one stage.
      model: the linen module.
      variables: {"params": flat, "stats": flat}, with the weights loaded.
      trained: paths of the trained parameters; `check` refuses some.
      replicated: sharding of the parameters.
    """
    check(config, model, trained)
    folder = pathlib.Path(config.model.features) / key(config, model, variables)

    @jax.jit
    def forward(variables, batch):
        (stored,) = {"stored", "frames"} & set(batch)
        rows = (batch[name] for name in (stored, "size", "index", "epoch"))
        image = augment.transform(*rows, data=config.data)
        features = model.apply(nested(variables), {"image": image}, method="features")
        return {"features": jax.lax.with_sharding_constraint(features, replicated)}

    def compute(records, data, place):
        decoded = storage.decode_split(records, data, place)
        tower = functools.partial(forward, devices.put(variables, replicated))
        computed = outputs(decoded, tower, batch=data.eval_batch)["features"]
        if not np.isfinite(computed).all():
            remedy = "look at the weights, or at model.dtype"
            raise ValueError(f"features of {records.name} are not finite; {remedy}")
        # Rows of broken images stay nan.
        features = np.full((len(records), computed.shape[1]), np.nan, np.float32)
        features[decoded.slots] = computed
        return features

    def split(records, data, place):
        names = row_names(records, data)
        features = read(folder, names)
        if hosts.first(lambda: features is None)():
            features = compute(records, data, place)
            hosts.first(write)(folder, names, features)
        broken = np.isnan(features[:, 0])
        reason = "it was broken when its features were computed"
        skipped = tuple(
            (row, records.paths[row], reason) for row in np.flatnonzero(broken).tolist()
        )
        storage.check_broken(records, skipped, data)
        inputs = {name: array for name, array in records.inputs.items() if name not in IMAGES}
        inputs["image_features"] = features
        kept = dataclasses.replace(records, read=None, inputs=inputs).take(np.flatnonzero(~broken))
        return storage.without_images(kept, data, place, skipped)

    return split


def check(config, model, trained):
    """Raises ValueError if features would change during training."""
    tower, name = model.tower[0], config.model.image_tower
    title = f"model.features is {config.model.features!r}, which keeps features of a frozen tower"
    if tower == "sentence":
        raise ValueError(f"{title}; the tower {name} sees sentences: unset it")
    learned = sorted(path for path in trained if path.startswith(f"{tower}/"))
    if learned:
        raise ValueError(
            f"{title}, but {len(learned)} of its parameters are trained, such as {learned[0]}; "
            "freeze it by optim.groups, or unset model.features"
        )
    if tower != "vision_model" and config.train.statistics != "keep":
        raise ValueError(
            f"{title}, but {name} has running statistics or dropout and differs in training; "
            "set train.statistics='keep', or unset model.features"
        )


def key(config, model, variables):
    """Hashes the tower, each of its weights, and its preprocessing."""
    tower, data = model.tower[0], config.data
    crop = run_config.plain(data.eval_crop)
    sizes = (data.resize, data.stored_size, data.image_size, data.normalize)
    dtype = str(jnp.dtype(model.dtype))
    parts = (FORMAT, config.model.image_tower, repr(model.settings), dtype, crop, sizes)
    digest = hashlib.sha256(json.dumps(parts).encode())
    for collection in ("params", "stats"):
        for path, array in sorted(variables[collection].items()):
            if path.startswith(f"{tower}/"):
                digest.update(f"{path} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def row_names(records, data):
    """S32[N]: hashes of the rows' image files, corruption and, of frames, the reader's settings."""
    reader = run_config.plain(data.reader) if "frames" in records.inputs else ""
    names = []
    for row, path in enumerate(records.paths):
        parts = [records.stamp, reader, path]
        if data.corruption.name:
            # What a corruption draws depends on the row.
            parts += [data.corruption.name, data.corruption.severity, row]
        names.append(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32])
    return np.array(names, "S32")


def read(folder, names):
    """f32[N, C]: the features of these rows in the folder; None if a row is missing."""
    features, missing = None, np.ones(len(names), bool)
    for file in sorted(folder.glob("*.npz")):
        remedy = "remove it, and it is computed anew"
        with files.reading(file, remedy), np.load(file, allow_pickle=False) as part:
            places = {name: place for place, name in enumerate(part["names"].tolist())}
            rows = [row for row in np.flatnonzero(missing) if names[row] in places]
            if rows:
                stored = part["features"]
                if features is None:
                    features = np.empty((len(names), stored.shape[1]), np.float32)
                features[rows] = stored[[places[names[row]] for row in rows]]
                missing[rows] = False
        if not missing.any():
            return features
    return None


def write(folder, names, features):
    """Adds a file to the folder; processes that do so at once write the same."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(names.tobytes()).hexdigest()[:32]
    with files.replacing(folder / f"{name}.npz", "wb") as file:
        np.savez(file, names=names, features=features)
    logging.info("features of %d images are in %s", len(names), folder)
