"""Grad-CAM: the places in an image that a prediction rests on.

B images, V views of each, C side of the stored canvas, H W side of the model's image, h w of the
last feature map, D its channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxord import inference
from jaxord.report import rerun
from jaxord.vectors import inner, unit

LAST_MAPS = {
    "ResNet-18": ("resnet", "layer4"),
    "ResNet-50": ("resnet", "layer4"),
    "VGG-16": ("vgg", "features"),
}


def map_module(run):
    """Path of the module with the last feature map; None for a tower without maps.

    A convolutional module returns it. CLIP's last block takes it: only the class token is read
    after that block.
    """
    name = run.config.model.image_tower
    if not name:
        return ("vision_model", "encoder", "layers", str(run.model.settings.vision.layers - 1))
    return LAST_MAPS.get(name)


def maps(run, images):
    """Grad-CAM (Selvaraju et al. 2017) of the number of `explained`, on stored images.

    With A_d [h, w] the channels of the last map and y the number: relu(sum_d mean(dy / dA_d) A_d)
    for each view, enlarged to the view, put where the view was cut out, averaged where views
    overlap, and divided by its largest value.

    Args:
      run: trained_model.TrainedModel.
      images: [u8[H, W, 3]], as of `rerun.image_of`.

    Returns:
      [f32[H, W]] in 0..1, 0 where nothing raises the number or no view reaches; None if the tower
      has no map.
    """
    side = max(max(image.shape[:2]) for image in images)
    stored = np.zeros((len(images), side, side, 3), np.float32)
    for canvas, image in zip(stored, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    size = np.array([image.shape[:2] for image in images], np.int32)
    # Cropping is linear, so its transpose puts maps of views [B, V, H, W, 3] back into the image.
    views, back = jax.vjp(lambda stored: run.images(stored, size), jnp.asarray(stored))
    shape = jax.eval_shape(functools.partial(_tapped, run), run.variables, run.constants, views)[1]
    if shape is None:
        return None
    number = explained(run.config)[0]

    @jax.jit
    def view_maps(variables, constants, views):
        def total(offset):
            outputs, last_map = _tapped(run, variables, constants, views, offset)
            return number({**constants, **outputs}).sum(), last_map

        found = jax.grad(total, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
        gradient, last_map = (_as_map(x.astype(jnp.float32)) for x in found)
        raised = nn.relu((gradient.mean((1, 2), keepdims=True) * last_map).sum(-1))  # [B V, h, w]
        raised = jax.image.resize(raised, (len(raised), *views.shape[2:4]), "linear")
        return jnp.broadcast_to(raised.reshape(views.shape[:-1])[..., None], views.shape)

    raised = view_maps(run.variables, run.constants, views)
    total, weight = (
        np.asarray(back(x.astype(views.dtype))[0], np.float32).sum(-1)
        for x in (raised, jnp.ones_like(views))
    )
    covered = weight > 0.01 * weight.max()
    mean = np.where(covered, np.maximum(total, 0) / np.where(covered, weight, 1), 0)
    cut = [one[:high, :wide] for one, (high, wide) in zip(mean, size, strict=True)]
    return [one / max(whole.max(), 1e-30) for one, whole in zip(cut, mean, strict=True)]


def _tapped(run, variables, constants, images, offset=0.0):
    """(outputs with `offset` added to the last map, that map or None)."""
    path, tapped = map_module(run), []

    def tap(call, arguments, settings, context):
        if context.module.path != path or context.method_name != "__call__":
            return call(*arguments, **settings)
        if path[0] == "vision_model":
            tapped.append(arguments[0] + offset)
            return call(tapped[0], *arguments[1:], **settings)
        tapped.append(call(*arguments, **settings) + offset)
        return tapped[0]

    with nn.intercept_methods(tap):
        outputs = run.outputs(variables, constants, {"image": images})
    return outputs, tapped[0] if tapped else None


def _as_map(x):
    """Tokens [N, 1 + h w, D] without the class token as [N, h, w, D]; a map as it is."""
    side = round((x.shape[1] - 1) ** 0.5)
    return x if x.ndim == 4 else x[:, 1:].reshape(len(x), side, side, -1)


def explained(config):
    """(function of named arrays -> [B], its name in words): the number whose gradient is taken.

    The headline's value, or a related number if that has no gradient.
    """
    rule = config.rules[0]
    embeds, k = rerun.gallery_array(config), rule.get("k", 1)
    # argmax, counts and neighbours are piecewise constant: their gradient is zero.
    related = {
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
            lambda a: _mean_similarity(a[embeds], a["gallery_embeds"], k),
            "the mean similarity to the nearest training images",
        ),
    }
    name = rule["name"]
    return related.get(name, (lambda a: a[name], f"the predicted value ({name})"))


def _mean_similarity(embeds, gallery, k):
    """[B], mean cosine to the k nearest rows of a gallery."""
    similarity = inner(unit(embeds), unit(gallery))  # [B, N]
    return jax.lax.top_k(similarity, k)[0].mean(1)
