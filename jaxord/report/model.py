"""What only the trained model can say of the test images: features, probabilities, neighbours, and where it looks.

N test samples, M those of them that are looked at, C side of the stored canvas, H W an image's own size, K ranks, G groups,
D embedding.
"""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxord import assemble, finished, inference, labels
from jaxord.binding import needs
from jaxord.data import augment, load, pipeline, tiers
from jaxord.figures import embeddings
from jaxord.vectors import inner, unit

FEATURES = "features.npz"
MOST = 2000  # test images that go through the model
KEPT = ("image_embeds", "logits", "group_logits")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A fold's model and data, loaded again.

    Attributes:
      arrays: [M, ...] each: row (of predictions.csv), target, prediction, embeds (what neighbours are searched by, else
        image_embeds), places f32[M, 2] by t-SNE of them; rank and group, logits and group_logits where there are such;
        text_embeds f32[K, D] with a text side.
      run: the finished.Finished; None where only what an earlier report has kept is there.
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
      Seen; where the data are gone, the arrays that an earlier report has kept in features.npz, beside the predictions.
    """
    try:
        run = finished.load(fold.root, fold.name)
        records = load.load(fold.config.data, fold.name, fold.config.seed)
        place = {path: row for row, path in enumerate(records["test"].paths)}
        if not set(fold.columns["path"]) <= set(place):
            raise ValueError("the test split is another one than that of predictions.csv")
        places = tuple(place[path] for path in fold.columns["path"])
        arrays = _arrays(fold, run, records["test"], places, most)
    except (ValueError, OSError) as error:
        kept, file = {}, fold.folder / FEATURES
        if file.exists():
            with np.load(file, allow_pickle=False) as stored:
                kept = dict(stored)
        return Seen(kept, missing=str(error).splitlines()[0])
    return Seen(arrays, run, records, places)


def _arrays(fold, run, test, places, most):
    """Seen.arrays."""
    count = len(places)
    rows = np.sort(np.random.default_rng(0).choice(count, min(most, count), replace=False))
    data = copy.deepcopy(assemble.data_of(fold.config, "test")).unlock()
    data.tier, data.cache = "cached" if test.read else data.tier, ""
    split = tiers.decode_split(test.take([places[row] for row in rows]), data, jnp.asarray)
    if split.skipped:
        rows = rows[split.slots]
    searched = gallery_array(fold.config)
    names = {*KEPT, searched, fold.headline}

    @jax.jit
    def forward(variables, constants, batch):
        outputs = run.outputs(variables, constants, inputs(run, batch))
        return {name: array for name, array in outputs.items() if name in names}

    placed = jax.device_put((run.variables, run.constants))
    found = pipeline.outputs(split, functools.partial(forward, *placed), batch=data.eval_batch)
    arrays = {"row": rows, "target": fold.target[rows], "embeds": found[searched]}
    arrays |= {name: found[name] for name in ("logits", "group_logits") if name in found}
    arrays["prediction"] = np.asarray(found.get(fold.headline, fold.predictions[fold.headline][rows]))
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
    arrays = {name: array for name, array in batch.items() if name not in ("stored", "frames", "size", "epoch")}
    for name in {"stored", "frames"} & set(batch):
        arrays["image"] = run.images(batch[name], batch["size"])
    return arrays


def gallery_array(config):
    """Name of the output that neighbours are searched by; image_embeds where no rule searches any."""
    for function, renames in assemble.rules(config).values():
        if "gallery_embeds" in needs(function)[0]:
            return assemble.gallery_of(renames)
    return "image_embeds"


def picture(records, row, config):
    """u8[H, W, 3] of one record, the middle frame of a video; None where records have no images."""
    if records.read is not None:
        stored, size = tiers.decode_row(records, row, config.data)
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
    return np.argsort(-embeddings.unit(seen.arrays["embeds"][rows]) @ gallery.T, axis=1, kind="stable")[:, :count]


def saliency(run, images, config):
    """Where an image decides its prediction: |sum over colours of gradient x input| on the stored image, smoothed.

    The gradient is that of `explained`, through all views, with respect to each stored pixel; the input is the pixel less the
    mean that normalisation subtracts. Smoothed by a Gaussian of a thirtieth of the side, and divided by its largest value.

    Args:
      run: finished.Finished.
      images: [u8[H, W, 3]], as of `picture`.
      config: of the run.

    Returns:
      [f32[H, W]] in 0..1.
    """
    side = max(max(image.shape[:2]) for image in images)
    stored = np.zeros((len(images), side, side, 3), np.float32)
    for canvas, image in zip(stored, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    size = np.array([image.shape[:2] for image in images], np.int32)
    scalar, _ = explained(config)

    @jax.jit
    def gradient(variables, constants, stored, size):
        def total(stored):
            outputs = run.outputs(variables, constants, {"image": run.images(stored, size)})
            return scalar({**constants, **outputs}).sum()

        return jax.grad(total)(stored)

    mean = 255 * np.asarray(augment.NORMALISATIONS[config.data.normalize][0], np.float32)
    maps = np.abs((np.asarray(gradient(run.variables, run.constants, stored, size)) * (stored - mean)).sum(-1))
    found = []
    for one, (high, wide) in zip(maps, size, strict=True):
        smooth = ndimage.gaussian_filter(one[:high, :wide], max(high, wide) / 30)
        found.append(smooth / max(smooth.max(), 1e-30))
    return found


def explained(config):
    """(function of named arrays -> [B], what it is in words): the number whose gradient shows where a model looks.

    It is the headline's value where that has a gradient; else the nearest number that has one.
    """
    name = config.rules[0]["name"]
    searched = gallery_array(config)
    rules = {
        "argmax": (lambda a: inference.expectation(a["logits"], a["rank_values"]), "the expected value over the ranks"),
        "thresholds": (lambda a: jax.nn.sigmoid(a["threshold_logits"]).sum(1), "the sum of the thresholds' probabilities"),
        "nearest_reference": (
            lambda a: _mean_similarity(a["image_embeds"], a["reference_points"], 1), "the similarity to the nearest reference",
        ),
        "knn": (
            lambda a: _mean_similarity(a[searched], a["gallery_embeds"], config.rules[0].get("k", 1)),
            "the mean similarity to the nearest training images",
        ),
    }  # fmt: skip
    return rules.get(name, (lambda a: a[name], f"the predicted value ({name})"))


def _mean_similarity(embeds, gallery, k):
    """[B], mean cosine to the k nearest rows of a gallery."""
    similarity = inner(unit(embeds), unit(gallery))  # [B, N]
    return jax.lax.top_k(similarity, k)[0].mean(1)
