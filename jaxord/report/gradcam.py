"""Where in an image the model finds what its prediction rests on: Grad-CAM.

B images, V views of each, C side of the stored canvas, H W side of the model's image, h w of the
last map of features, D its channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxord import inference
from jaxord.report import rerun
from jaxord.vectors import inner, unit


def place_of(run):
    """Path of the module that ends with the last map of features, or that begins with it: of CLIP's
    last block only the class token is read on, so that the map is what enters it; None for a tower
    without maps."""
    name = run.config.model.image_tower
    if not name:
        return ("vision_model", "encoder", "layers", str(run.model.settings.vision.layers - 1))
    return {
        "ResNet-18": ("resnet", "layer4"),
        "ResNet-50": ("resnet", "layer4"),
        "VGG-16": ("vgg", "features"),
    }.get(name)


def maps(run, images):
    """Grad-CAM (Selvaraju et al. 2017) of `explained` on stored images.

    With A_d [h, w] the channels of the last map and y the number: relu(sum_d mean(dy / dA_d) A_d)
    for each view, enlarged to the view, laid where the view was taken from, averaged where views
    overlap, and divided by its largest value.

    Args:
      run: trained_model.TrainedModel.
      images: [u8[H, W, 3]], as of `model.picture`.

    Returns:
      [f32[H, W]] in 0..1, 0 where nothing raises the number or no view reaches; None where the
      tower has no map.
    """
    side = max(max(image.shape[:2]) for image in images)
    stored = np.zeros((len(images), side, side, 3), np.float32)
    for canvas, image in zip(stored, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    size = np.array([image.shape[:2] for image in images], np.int32)
    seen, back = jax.vjp(
        lambda stored: run.images(stored, size), jnp.asarray(stored)
    )  # [B, V, H, W, 3]
    shape = jax.eval_shape(functools.partial(_with, run), run.variables, run.constants, seen)[1]
    if shape is None:
        return None
    number = explained(run.config)[0]

    @jax.jit
    def views(variables, constants, seen):
        def total(moved):
            outputs, tapped = _with(run, variables, constants, seen, moved)
            return number({**constants, **outputs}).sum(), tapped

        gradient, tapped = jax.grad(total, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
        gradient, tapped = (_as_map(x.astype(jnp.float32)) for x in (gradient, tapped))
        found = nn.relu((gradient.mean((1, 2), keepdims=True) * tapped).sum(-1))  # [B V, h, w]
        found = jax.image.resize(found, (len(found), *seen.shape[2:4]), "linear")
        return jnp.broadcast_to(found.reshape(seen.shape[:-1])[..., None], seen.shape)

    found = views(run.variables, run.constants, seen)
    laid, covered = (
        np.asarray(back(x.astype(seen.dtype))[0], np.float32).sum(-1)
        for x in (found, jnp.ones_like(seen))
    )
    there = covered > 0.01 * covered.max()
    whole = np.where(there, np.maximum(laid, 0) / np.where(there, covered, 1), 0)
    return [
        one[:high, :wide] / max(one.max(), 1e-30)
        for one, (high, wide) in zip(whole, size, strict=True)
    ]


def _with(run, variables, constants, images, moved=0.0):
    """(outputs of the model with `moved` added to the last map, that map; None where there is
    none)."""
    place, found = place_of(run), []

    def tap(call, arguments, settings, context):
        if context.module.path != place or context.method_name != "__call__":
            return call(*arguments, **settings)
        if place[0] == "vision_model":
            found.append(arguments[0] + moved)
            return call(found[0], *arguments[1:], **settings)
        found.append(call(*arguments, **settings) + moved)
        return found[0]

    with nn.intercept_methods(tap):
        outputs = run.outputs(variables, constants, {"image": images})
    return outputs, found[0] if found else None


def _as_map(x):
    """Tokens [N, 1 + h w, D] without the class token, as [N, h, w, D]; a map stays."""
    side = round((x.shape[1] - 1) ** 0.5)
    return x if x.ndim == 4 else x[:, 1:].reshape(len(x), side, side, -1)


def explained(config):
    """(function of named arrays -> [B], what it is in words): the number whose gradient is taken.

    It is the headline's value where that has a gradient; else the nearest number that has one.
    """
    name = config.rules[0]["name"]
    searched = rerun.gallery_array(config)
    rules = {
        "argmax": (
            lambda a: inference.expectation(a["logits"], a["rank_values"]),
            "the expected value over the ranks",
        ),
        "thresholds": (
            lambda a: jax.nn.sigmoid(a["threshold_logits"]).sum(1),
            "the sum of the thresholds' probabilities",
        ),
        "nearest_reference": (
            lambda a: _mean_similarity(a["image_embeds"], a["reference_points"], 1),
            "the similarity to the nearest reference",
        ),
        "knn": (
            lambda a: _mean_similarity(
                a[searched], a["gallery_embeds"], config.rules[0].get("k", 1)
            ),
            "the mean similarity to the nearest training images",
        ),
    }
    return rules.get(name, (lambda a: a[name], f"the predicted value ({name})"))


def _mean_similarity(embeds, gallery, k):
    """[B], mean cosine to the k nearest rows of a gallery."""
    similarity = inner(unit(embeds), unit(gallery))  # [B, N]
    return jax.lax.top_k(similarity, k)[0].mean(1)
