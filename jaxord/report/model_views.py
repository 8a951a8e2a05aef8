"""Sections that need the model: calibration, features, neighbours, examples and attribution maps.

Arguments and results are those of jaxord.report.results.
"""

import jax
import numpy as np

from jaxord import metrics
from jaxord.report import gradcam, page, rerun
from jaxord.report.figures import embeddings, predictions

SHOWN = 8  # best and worst cases
COMPARED = 5  # test images beside their neighbours
BESIDE = "A test image, and its nearest training images"


def calibration(folds, model):
    """Probabilities against how often they come true."""
    parts, arrays = [], model.arrays
    for logits, of in (("logits", "rank"), ("group_logits", "group")):
        if logits in arrays and of in arrays:
            chances = np.asarray(jax.nn.softmax(arrays[logits].astype(np.float32), axis=1))
            caption = f"Probabilities of the {of}s on {_of_all(folds, model)}; "
            caption += "on the dashed line they come true."
            figure = predictions.calibration(chances, arrays[of], of)
            parts.append(page.picture(figure, caption))
    return parts or _reason(model, "the model gives no probabilities of ranks or groups.")


def texts(folds, model):
    """Similarity of the ranks' texts."""
    if "text_embeds" not in model.arrays:
        return _reason(model, "the model has no text side.")
    rows = embeddings.unit(model.arrays["text_embeds"])
    score = metrics.ordinality_score(model.arrays["text_embeds"])
    panel = {f"Ordinality score {100 * score:.1f} %": (rows @ rows.T, folds[0].ranks.names)}
    caption = (
        "Cosine of the texts of each two ranks. The score is the share of pairs whose similarity "
        "falls when one of them moves a rank away: 100 % if the texts are in order."
    )
    return [page.picture(embeddings.matrices(panel, "cosine", "rank"), caption)]


def features(folds, model):
    """Similarity of image features in the order of the labels, and their map."""
    if "embeds" not in model.arrays:
        return _reason(model)
    fold, arrays, target = folds[0], model.arrays, first_angle(model.arrays["target"])
    matrix, labels = embeddings.in_order(arrays["embeds"], target)
    count = f"{len(labels)} of " if len(labels) < len(target) else ""
    panel = {"Features in the order of their labels": (matrix, embeddings.short(labels))}
    caption = (
        f"Negative L2 distance of the unit features of {count}{len(target):,} test samples, sorted "
        "by label: in order if a bright band follows the diagonal and fades away from it."
    )
    parts = [page.picture(embeddings.matrices(panel, "− distance", "true label"), caption)]
    if "places" in arrays:
        panel = {f"t-SNE of {_of_all(folds, model)}": (arrays["places"], target)}
        caption = "Neighbours in the map are neighbours among the features; sizes of clusters and "
        caption += "distances between them mean nothing."
        if len(target) < len(fold.test.target):
            caption += " The samples are drawn at random, the same ones in each report."
        parts.append(page.picture(embeddings.points(panel, "label"), caption))
    # Another device or version of jax can differ from the run.
    off = np.abs(arrays["prediction"] - fold.predicted[arrays["row"]]).max()
    agree = "agree with predictions.csv"
    if off > 1e-4:
        agree = f"differ from predictions.csv by {off:.2g} at most"
    note = f"The model was run again for this report; its predictions {agree}."
    return [*parts, page.note(note)]


def _of_all(folds, model):
    """How many of how many test samples went through the model."""
    run, total = len(model.arrays["target"]), len(folds[0].test.target)
    return f"{run:,} test samples" if run == total else f"{run:,} of {total:,} test samples"


def first_angle(target):
    """[N] by which samples are sorted and coloured: the label, of two angles the first."""
    return target if target.ndim == 1 else target[:, 0]


def _label(values):
    """A number or several as a short text."""
    return " ".join(embeddings.short(np.atleast_1d(values)))


def _caption(prediction, target):
    return f"{_label(prediction)} [{_label(target)}]"


def _reason(model, otherwise=""):
    """Why a section that needs the model is left out."""
    missing = f"the model could not be run on the data: {model.missing}"
    return missing if model.missing else otherwise


def _compared(folds, model):
    """[[(image, caption)]] of test images and their nearest training images, or why there are none.

    The test images are spread over the labels.
    """
    if model.missing or "gallery_embeds" not in model.run.constants:
        return _reason(model, "no rule compares with training images.")
    config, arrays = folds[0].config, model.arrays
    train, test = model.records["train"], model.records["test"]
    gallery = np.asarray(model.run.constants["gallery_targets"]) * config.data.target_scale
    if rerun.image_of(test, 0, config) is None:
        return "the samples are no images."
    if len(gallery) != len(train):
        return "the training split differs from that of the gallery."
    # Neither the lowest nor the highest label, which are often outliers.
    order = np.argsort(first_angle(arrays["target"]), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, COMPARED + 2).astype(int)[1:-1]]
    rows = []
    for place, nearest in zip(chosen, rerun.neighbours(model, chosen), strict=True):
        image = rerun.image_of(test, model.places[arrays["row"][place]], config)
        items = [(image, _caption(arrays["prediction"][place], arrays["target"][place]))]
        items += [(rerun.image_of(train, int(k), config), _label(gallery[k])) for k in nearest]
        rows.append(items)
    return rows


def neighbours(folds, model):
    """Training images that test images are compared with."""
    rows = _compared(folds, model)
    if isinstance(rows, str):
        return rows
    count = next(rule["k"] for rule in folds[0].config.rules if "k" in rule)
    caption = (
        "On the left test images, “estimated [true]”; to the right of each the nearest of "
        f"{len(model.records['train']):,} training images with their labels. "
        f"The prediction averages {count}."
    )
    return [page.picture(embeddings.examples(_titled(rows)), caption)]


def _titled(rows):
    """The rows of test images and neighbours, with a title above the first."""
    return [("" if k else BESIDE, items) for k, items in enumerate(rows)]


def best_and_worst(fold, count=SHOWN):
    """Rows of predictions.csv: (smallest errors, led by one of each label; largest errors)."""
    order = np.argsort(fold.error, kind="stable")
    _, first = np.unique(first_angle(fold.test.target)[order], return_index=True)
    front = [*order[np.sort(first)], *np.delete(order, first)]
    best = sorted(front[:count], key=lambda row: fold.error[row])
    return best, order[::-1][:count]


def _examples(fold, model, rows):
    """[(image, caption)] of rows of predictions.csv; images are None if the data has none."""
    test = model.records["test"]
    images = [rerun.image_of(test, model.places[row], fold.config) for row in rows]
    captions = [_caption(fold.predicted[row], fold.test.target[row]) for row in rows]
    return list(zip(images, captions, strict=True))


def cases(folds, model):
    """Best and worst test samples."""
    if model.missing:
        return _reason(model)
    fold = folds[0]
    best, worst = (_examples(fold, model, rows) for rows in best_and_worst(fold))
    if best[0][0] is not None:
        lines = [("Best, at first one of each label", best), ("Worst", worst)]
        caption = "“estimated [true]”, in the stored form that crops are taken from."
        return [page.picture(embeddings.examples(lines), caption)]
    # Pairs of sentences and features of videos have no images to show.
    extra = fold.test.extra
    texts = {name: extra[name] for name in extra if name.startswith("sentence")}
    texts = texts or {"path": fold.test.paths}
    kinds = ["best"] * len(best) + ["worst"] * len(worst)
    rows = np.concatenate(best_and_worst(fold))
    captions = [caption for _, caption in best + worst]
    body = list(zip(kinds, captions, *(column[rows] for column in texts.values()), strict=True))
    header = ["case", "estimated [true]", *texts]
    table = page.table(header, body, words=range(2, len(header)))
    return [table, page.note("Best: at first one of each label.")]


def attribution(folds, model):
    """Grad-CAM of best and worst cases, and of images and their neighbours (ConOrd Figure 14)."""
    if model.missing:
        return _reason(model)
    fold = folds[0]
    if model.records["test"].read is None:
        return "the samples are no single images."
    lines = []
    for title, rows in zip(("Best", "Worst"), best_and_worst(fold), strict=True):
        items = _examples(fold, model, rows[: SHOWN // 2])
        # Maps of the shown images only: each takes a backward pass.
        maps = gradcam.maps(model.run, [image for image, _ in items])
        if maps is None:
            return "the image tower has no map of features."
        pairs = zip(items, maps, strict=True)
        beside = [part for item, heat in pairs for part in (item, (item[0], "", heat))]
        lines.append((title, beside))
    compared = _compared(folds, model)
    for title, items in _titled([] if isinstance(compared, str) else compared[::2]):
        maps = gradcam.maps(model.run, [image for image, _ in items])
        lines.append((title, [(*item, heat) for item, heat in zip(items, maps, strict=True)]))
    _, number = gradcam.explained(fold.config)
    caption = (
        f"Grad-CAM of {number}: yellow raises it most in the last feature map, uncoloured does not "
        "raise it. Each map has its own scale. It shows the basis of this number, not why it is "
        "right or wrong."
    )
    return [page.picture(embeddings.examples(lines), caption)]
