"""The trained model run again over test images: features, probabilities and neighbours.

N test samples, M of them run again, H W an image's own size, K ranks, G groups, D embedding.
"""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxord.binding import needs
from jaxord.data import readers, storage
from jaxord.data.batches import outputs
from jaxord.predict import trained_model
from jaxord.report.figures import embeddings
from jaxord.targets import labels
from jaxord.task import configured_rules, data_of, gallery_of
from jaxord.workdir import files

FEATURES = "features.npz"
MOST = 5000  # test images that go through the model


@dataclasses.dataclass(frozen=True)
class Rerun:
    """A fold's model and data, loaded again.

    Attributes:
      arrays: [M, ...] each: row (of predictions.csv), target, prediction, embeds (the array that
        neighbours are searched by, else image_embeds), places f32[M, 2] of its t-SNE; if the model
        has them rank, group, logits and group_logits; text_embeds f32[K, D] with a text side.
      run: trained_model.TrainedModel; None if only an earlier report's arrays are left.
      records: split -> Records; {} without a run.
      places: [N], row of records["test"] for each row of predictions.csv.
      missing: why there is no run; "" if there is one.
    """

    arrays: dict
    run: trained_model.TrainedModel | None = None
    records: dict = dataclasses.field(default_factory=dict)
    places: tuple = ()
    missing: str = ""


def run_again(fold, most=MOST):
    """Runs a Fold's model over the test split, or over `most` random images: Rerun.

    If the data or the checkpoint are gone, falls back on the arrays in features.npz.
    """
    try:
        run = trained_model.load(fold.root, fold.name)
        records = readers.load(fold.config.data, fold.name, fold.config.seed, run.ranks)
        row_of = {path: row for row, path in enumerate(records["test"].paths)}
        if not set(fold.test.paths) <= set(row_of):
            raise ValueError("the test split differs from that of predictions.csv")
        places = tuple(row_of[path] for path in fold.test.paths)
        arrays = _arrays(fold, run, records["test"], places, most)
    except (ValueError, OSError) as error:
        file = fold.folder / FEATURES
        kept = files.read_arrays(file) if file.exists() else {}
        return Rerun(kept, missing=str(error).splitlines()[0])
    return Rerun(arrays, run, records, places)


def _arrays(fold, run, test, places, most):
    """Rerun.arrays."""
    count = len(places)
    rows = np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))
    data = copy.deepcopy(data_of(fold.config, "test")).unlock()
    data.tier, data.cache = "cached" if test.read else data.tier, ""
    split = storage.decode_split(test.take([places[row] for row in rows]), data, jnp.asarray)
    if split.skipped:
        rows = rows[split.slots]
    searched = gallery_array(fold.config)
    kept = {"image_embeds", "logits", "group_logits", searched, fold.headline}

    @jax.jit
    def forward(variables, constants, batch):
        inputs = run.inputs({name: array for name, array in batch.items() if name != "epoch"})
        found = run.outputs(variables, constants, inputs)
        return {name: array for name, array in found.items() if name in kept}

    # Placed once, not with every batch.
    placed = jax.device_put((run.variables, run.constants))
    found = outputs(split, functools.partial(forward, *placed), batch=data.eval_batch)
    prediction = found.get(fold.headline, fold.predicted[rows])
    arrays = {"row": rows, "target": fold.test.target[rows], "embeds": found[searched]}
    arrays |= {name: found[name] for name in ("logits", "group_logits") if name in found}
    arrays["prediction"] = np.asarray(prediction)
    if fold.ranks:
        built = labels.build(fold.config, fold.train_targets, fold.ranks).columns(arrays["target"])
        arrays |= {name: built[name] for name in ("rank", "group") if name in built}
    if "text_embeds" in run.constants:
        arrays["text_embeds"] = run.constants["text_embeds"]
    if len(rows) > 10:
        arrays["places"] = embeddings.plane(arrays["embeds"])
    return arrays


def gallery_array(config):
    """Name of the output that neighbours are searched by; image_embeds if no rule searches."""
    for function, renames in configured_rules(config).values():
        if "gallery_embeds" in needs(function)[0]:
            return gallery_of(renames)
    return "image_embeds"


def image_of(records, row, config):
    """u8[H, W, 3] of a record, the middle frame of a video; None if records have no images."""
    if records.read is not None:
        stored, size = storage.decode_row(records, row, config.data)
    elif "frames" in records.inputs:
        frames = np.asarray(records.inputs["frames"][row])
        stored, size = frames[len(frames) // 2], np.asarray(records.inputs["size"][row])
    else:
        return None
    return stored[: size[0], : size[1]]


def neighbours(model, rows, count=6):
    """Nearest rows of the gallery, i64[len(rows), count], for `rows` of a Rerun's arrays."""
    gallery = embeddings.unit(model.run.constants["gallery_embeds"])
    similarity = embeddings.unit(model.arrays["embeds"][rows]) @ gallery.T
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]
