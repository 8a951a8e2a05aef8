"""Sections for which the model runs over the test images again; as those of
jaxord.report.outcome."""

import jax
import numpy as np

from jaxord import metrics
from jaxord.report import gradcam, page, rerun
from jaxord.report.figures import embeddings, predictions

SHOWN = 8  # best and worst cases
BESIDE = "A test image, and its nearest training images"


def calibration(folds, seen):
    """Whether probabilities can be believed."""
    parts = []
    for logits, of in (("logits", "rank"), ("group_logits", "group")):
        if logits in seen.arrays and of in seen.arrays:
            chances = np.asarray(jax.nn.softmax(seen.arrays[logits].astype(np.float32), axis=1))
            said = f"Probabilities of the {of}s on {of_all(folds, seen)}; on the dashed line they come true."
            parts.append(page.picture(predictions.calibration(chances, seen.arrays[of], of), said))
    return parts or absent(seen, "the model gives no probabilities of ranks or groups.")


def texts(folds, seen):
    """Similarity of the texts of the ranks."""
    if "text_embeds" not in seen.arrays:
        return absent(seen, "the model has no text side.")
    rows = embeddings.unit(seen.arrays["text_embeds"])
    score = metrics.ordinality_score(seen.arrays["text_embeds"])
    panel = {f"Ordinality score {100 * score:.1f} %": (rows @ rows.T, folds[0].ranks.names)}
    words = (
        "Cosine of the texts of each two ranks. The score is the share of pairs whose similarity falls when one of them "
        "moves a rank away: 100 % where the texts are in order."
    )
    return [page.picture(embeddings.matrices(panel, "cosine", "rank"), words)]


def features(folds, seen):
    """Similarity of image features in the order of the labels, and their map."""
    if "embeds" not in seen.arrays:
        return absent(seen)
    target = scalar_target(seen)
    matrix, ordered = embeddings.in_order(seen.arrays["embeds"], target)
    many = (
        f"{len(ordered)} of {len(target):,}" if len(ordered) < len(target) else f"{len(target):,}"
    )
    panel = {"Features in the order of their labels": (matrix, shown(ordered))}
    words = (
        f"Negative L2 distance of the unit features of {many} test samples, sorted by label: in order where a bright "
        "band follows the diagonal and fades away from it."
    )
    parts = [page.picture(embeddings.matrices(panel, "− distance", "true label"), words)]
    if "places" in seen.arrays:
        figure = embeddings.points(
            {f"t-SNE of {of_all(folds, seen)}": (seen.arrays["places"], target)}, "label"
        )
        words = "Near in the map is near among the features; sizes of clusters and distances between them mean nothing."
        if len(target) < len(folds[0].target):
            words += " The samples are drawn by chance, the same ones in each report."
        parts.append(page.picture(figure, words))
    off = np.abs(
        seen.arrays["prediction"] - folds[0].predictions[folds[0].headline][seen.arrays["row"]]
    ).max()
    words = (
        f"differ from predictions.csv by {off:.2g} at most"
        if off > 1e-4
        else "agree with predictions.csv"
    )
    parts.append(
        page.paragraph(
            f"The model was run again for this report; its predictions {words}.", kind="note"
        )
    )
    return parts


def of_all(folds, seen):
    """How many test samples the model was run on, of how many."""
    ran, there = len(seen.arrays["target"]), len(folds[0].target)
    return f"{ran:,} test samples" if ran == there else f"{ran:,} of {there:,} test samples"


def scalar_target(seen):
    """The label by which features are sorted and coloured: of two angles the first."""
    target = seen.arrays["target"]
    return target if target.ndim == 1 else target[:, 0]


def shown(values):
    """Labels as short texts."""
    return [f"{value:.3g}" for value in values]


def caption(prediction, target):
    """estimated [true]"""
    return f"{label_of(prediction)} [{label_of(target)}]"


def label_of(values):
    """A label, which may be two angles, as a short text."""
    return " ".join(shown(np.atleast_1d(values)))


def absent(seen, otherwise=""):
    """Why something that needs the model is not there."""
    return f"the model could not be run on the data: {seen.missing}" if seen.missing else otherwise


def compared(folds, seen):
    """Test images and the training images that are nearest to them: [[(image, caption)] of each];
    or why there are none."""
    if seen.missing or "gallery_embeds" not in seen.run.constants:
        return absent(seen, "no rule compares with training images.")
    train, config, arrays = seen.records["train"], folds[0].config, seen.arrays
    gallery = np.asarray(seen.run.constants["gallery_targets"]) * config.data.target_scale
    if rerun.picture(seen.records["test"], 0, config) is None or len(gallery) != len(train):
        return "the samples are no images, or the training split is another one than that of the gallery."
    order = np.argsort(scalar_target(seen), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, 7).astype(int)[1:-1]]
    rows = []
    for place, nearest in zip(chosen, rerun.neighbours(seen, chosen), strict=True):
        image = rerun.picture(seen.records["test"], seen.places[arrays["row"][place]], config)
        items = [(image, caption(arrays["prediction"][place], arrays["target"][place]))]
        rows.append(
            items + [(rerun.picture(train, int(k), config), label_of(gallery[k])) for k in nearest]
        )
    return rows


def neighbours(folds, seen):
    """Training images that test images are compared with."""
    found = compared(folds, seen)
    if isinstance(found, str):
        return found
    rows = [
        ("" if k else BESIDE, [(*item, None) for item in items]) for k, items in enumerate(found)
    ]
    k = next(rule["k"] for rule in folds[0].config.rules if "k" in rule)
    words = (
        f"On the left test images, “estimated [true]”; to the right of each the nearest of "
        f"{len(seen.records['train']):,} training images with their labels. The prediction averages {k}."
    )
    return [page.picture(embeddings.examples(rows), words)]


def best_and_worst(fold, count=SHOWN):
    """(rows of predictions.csv with the smallest errors, at first one a label; rows with the
    largest)."""
    order = np.argsort(fold.error, kind="stable")
    labels = fold.target if fold.target.ndim == 1 else fold.target[:, 0]
    _, first = np.unique(labels[order], return_index=True)
    front = [*order[np.sort(first)], *np.delete(order, first)]
    best = sorted(front[:count], key=lambda row: fold.error[row])
    return best, order[::-1][:count]


def cases(folds, seen):
    """Best and worst test samples."""
    if seen.missing:
        return absent(seen)
    fold, test = folds[0], seen.records["test"]
    best, worst = best_and_worst(fold)
    rule = fold.headline
    if rerun.picture(test, 0, fold.config) is None:
        texts = [name for name in fold.further if name.startswith("sentence")]
        header = ["case", "estimated [true]", *(texts or ["path"])]
        body = [
            [
                kind,
                caption(fold.predictions[rule][row], fold.target[row]),
                *(fold.columns[n][row] for n in header[2:]),
            ]
            for kind, rows in (("best", best), ("worst", worst))
            for row in rows
        ]
        note = page.paragraph("Best: at first one of each label.", kind="note")
        return [page.table(header, body, words=range(2, len(header))), note]
    lines = []
    for title, rows in (("Best, at first one of each label", best), ("Worst", worst)):
        pictures = [rerun.picture(test, seen.places[row], fold.config) for row in rows]
        lines.append(
            (
                title,
                [
                    (image, caption(fold.predictions[rule][row], fold.target[row]), None)
                    for image, row in zip(pictures, rows, strict=True)
                ],
            )
        )
    return [
        page.picture(
            embeddings.examples(lines),
            "“estimated [true]”, in the stored form that crops are taken from.",
        )
    ]


def looks_at(folds, seen):
    """Grad-CAM of some best and worst cases, and of test images beside their neighbours (ConOrd
    Figure 14)."""
    if seen.missing:
        return absent(seen)
    fold, test = folds[0], seen.records["test"]
    if test.read is None:
        return "the samples are no single images."
    lines = []
    for title, rows in zip(("Best", "Worst"), best_and_worst(fold), strict=True):
        rows = rows[: SHOWN // 2]
        pictures = [rerun.picture(test, seen.places[row], fold.config) for row in rows]
        maps = gradcam.maps(seen.run, pictures)
        if maps is None:
            return "the image tower has no map of features."
        items = []
        for image, over, row in zip(pictures, maps, rows, strict=True):
            items += [
                (image, caption(fold.predictions[fold.headline][row], fold.target[row]), None),
                (image, "", over),
            ]
        lines.append((title, items))
    found = compared(folds, seen)
    for k, items in enumerate(found[::2] if not isinstance(found, str) else ()):
        maps = gradcam.maps(seen.run, [image for image, _ in items])
        lines.append(
            ("" if k else BESIDE, [(*item, over) for item, over in zip(items, maps, strict=True)])
        )
    _, number = gradcam.explained(fold.config)
    words = (
        f"Grad-CAM of {number}: yellow is what raises it most in the last map of features; no colour: nothing does. Each "
        "map has a scale of its own. It shows what this number rests on, not why it is right or wrong."
    )
    return [page.picture(embeddings.examples(lines), words)]
