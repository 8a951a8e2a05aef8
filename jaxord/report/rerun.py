"""What only the trained model can say of the test images: features, probabilities and neighbours.

N test samples, M those of them that are looked at, H W an image's own size, K ranks, G groups, D
embedding.
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
KEPT = ("image_embeds", "logits", "group_logits")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A fold's model and data, loaded again.

    Attributes:
      arrays: [M, ...] each: row (of predictions.csv), target, prediction, embeds (what neighbours
        are searched by, else image_embeds), places f32[M, 2] by t-SNE of them; rank and group,
        logits and group_logits where there are such; text_embeds f32[K, D] with a text side.
      run: the trained_model.TrainedModel; None where only what an earlier report has kept is there.
      records: split -> Records; {} there.
      places: [N], row of records["test"] of each row of predictions.csv.
      missing: why there is no run; "".
    """

    arrays: dict
    run: object = None
    records: dict = dataclasses.field(default_factory=dict)
    places: tuple = ()
    missing: str = ""


def look(fold, most=MOST):
    """Runs the model over the test split, or over that many images of it drawn by chance.

    Args:
      fold: files.Fold.
      most: images.

    Returns:
      Seen; where the data are gone, the arrays that an earlier report has kept in features.npz,
      beside the predictions.
    """
    try:
        run = trained_model.load(fold.root, fold.name)
        records = readers.load(fold.config.data, fold.name, fold.config.seed)
        place = {path: row for row, path in enumerate(records["test"].paths)}
        if not set(fold.columns["path"]) <= set(place):
            raise ValueError("the test split is another one than that of predictions.csv")
        places = tuple(place[path] for path in fold.columns["path"])
        arrays = _arrays(fold, run, records["test"], places, most)
    except (ValueError, OSError) as error:
        kept, file = {}, fold.folder / FEATURES
        if file.exists():
            kept = files.read_arrays(file)
        return Seen(kept, missing=str(error).splitlines()[0])
    return Seen(arrays, run, records, places)


def _arrays(fold, run, test, places, most):
    """Seen.arrays."""
    count = len(places)
    rows = np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))
    data = copy.deepcopy(data_of(fold.config, "test")).unlock()
    data.tier, data.cache = "cached" if test.read else data.tier, ""
    split = storage.decode_split(test.take([places[row] for row in rows]), data, jnp.asarray)
    if split.skipped:
        rows = rows[split.slots]
    searched = gallery_array(fold.config)
    names = {*KEPT, searched, fold.headline}

    @jax.jit
    def forward(variables, constants, batch):
        outputs = run.outputs(variables, constants, inputs(run, batch))
        return {name: array for name, array in outputs.items() if name in names}

    placed = jax.device_put((run.variables, run.constants))
    found = outputs(split, functools.partial(forward, *placed), batch=data.eval_batch)
    arrays = {"row": rows, "target": fold.target[rows], "embeds": found[searched]}
    arrays |= {name: found[name] for name in ("logits", "group_logits") if name in found}
    arrays["prediction"] = np.asarray(
        found.get(fold.headline, fold.predictions[fold.headline][rows])
    )
    if fold.ranks:
        made = labels.build(fold.config, fold.train_targets, fold.ranks).columns(arrays["target"])
        arrays |= {name: made[name] for name in ("rank", "group") if name in made}
    if "text_embeds" in run.constants:
        arrays["text_embeds"] = run.constants["text_embeds"]
    if len(rows) > 10:
        arrays["places"] = embeddings.plane(arrays["embeds"])
    return arrays


def inputs(run, batch):
    """A stored batch as the model takes it."""
    arrays = {
        name: array
        for name, array in batch.items()
        if name not in ("stored", "frames", "size", "epoch")
    }
    for name in {"stored", "frames"} & set(batch):
        arrays["image"] = run.images(batch[name], batch["size"])
    return arrays


def gallery_array(config):
    """Name of the output that neighbours are searched by; image_embeds where no rule searches
    any."""
    for function, renames in configured_rules(config).values():
        if "gallery_embeds" in needs(function)[0]:
            return gallery_of(renames)
    return "image_embeds"


def picture(records, row, config):
    """u8[H, W, 3] of one record, the middle frame of a video; None where records have no images."""
    if records.read is not None:
        stored, size = storage.decode_row(records, row, config.data)
    elif "frames" in records.inputs:
        frames = np.asarray(records.inputs["frames"][row])
        stored, size = frames[len(frames) // 2], np.asarray(records.inputs["size"][row])
    else:
        return None
    return stored[: size[0], : size[1]]


def neighbours(seen, rows, count=6):
    """The nearest training samples of some test samples.

    Args:
      seen: Seen with a gallery among its constants.
      rows: places in seen.arrays.
      count: neighbours.

    Returns:
      i64[len(rows), count], rows of the gallery, nearest first.
    """
    gallery = embeddings.unit(seen.run.constants["gallery_embeds"])
    return np.argsort(
        -embeddings.unit(seen.arrays["embeds"][rows]) @ gallery.T, axis=1, kind="stable"
    )[:, :count]
