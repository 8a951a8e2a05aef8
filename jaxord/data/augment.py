"""Crop, flip, colour and normalise inside jit: one pure function of (seed, epoch, row).

B batch, V views, F frames of a video, C side of the stored canvas, H W side of the model's image.

A crop is a function (stored u8[C, C, 3], size i32[2], key, *, image_size, settings) -> f32[V, H, W,
3] of one image, whose pixels are in 0..255 and whose true height and width `size` lie at the top
left of the canvas.
"""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import binding
from jaxord.data import color_jitter

__all__ = [
    "random_crop",
    "center_crop",
    "diagonal_crops",
    "spread_crops",
    "resize",
    "random_resized_crop",
]

NORMALISATIONS = {  # mean and standard deviation of the channels, of images in 0..1
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def augment(
    stored,
    size,
    index,
    epoch,
    *,
    crop,
    flip,
    image_size,
    normalize,
    seed,
    train,
    jitter=(),
    grey=0.0,
):
    """Images as the model sees them.

    The key of a row is fold_in(fold_in(key(seed), epoch), index); no step, batch size, tier or
    device count enters.

    Args:
        stored: u8[B, C, C, 3], or u8[B, F, C, C, 3]: frames of one record, cropped, flipped and
          coloured alike.
        size: i32[B, 2], true height and width in the canvas.
        index: i32[B], row of the record.
        epoch: i32[B], how often the row was seen before; not read when `train` is False.
        crop: mapping with the `name` of a function of this module and its settings.
        flip: mirror half of the images left to right; in training only.
        image_size: H = W.
        normalize: name in NORMALISATIONS.
        seed: of the run.
        train: False gives the evaluation's images, the same in every epoch.
        jitter: settings of `colour.jitter`; in training only.
        grey: probability of removing all colour, after the jitter; in training only.

    Returns:
        f32[B, V, H, W, 3], all views of an image flipped and coloured alike. Of F frames the views
        of each stand together, in the order of the frames.

    Raises:
        ValueError: an unknown crop, setting or normalisation; a strength or probability out of its
          range.
    """
    if normalize not in NORMALISATIONS:
        raise ValueError(
            f"config.data.normalize is {normalize!r}; it is one of {sorted(NORMALISATIONS)}"
        )
    cut = functools.partial(binding.configured(sys.modules[__name__], crop), image_size=image_size)
    mean, std = (np.asarray(values, np.float32) for values in NORMALISATIONS[normalize])
    root = jax.random.key(seed)

    def one(stored, size, index, epoch):
        key = jax.random.fold_in(jax.random.fold_in(root, epoch if train else 0), index)
        crop_key, flip_key = jax.random.split(key)
        if stored.ndim == 4:
            image = jax.vmap(cut, (0, None, None))(stored, size, crop_key)  # [F, views, H, W, 3]
            image = image.reshape(-1, *image.shape[2:])
        else:
            image = cut(stored, size, crop_key)  # [V, H, W, 3]
        if flip and train:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, :, ::-1], image)
        if train:
            jitter_key, grey_key = jax.random.split(
                jax.random.fold_in(key, 2)
            )  # split made fold_in(key, 0) and 1
            image = color_jitter.jitter(image, jitter_key, **dict(jitter))
            image = color_jitter.random_grey(image, grey_key, probability=grey)
        return (image / 255.0 - mean) / std

    return jax.vmap(one)(stored, size, index, epoch)


def choice(count, index, epoch, seed):
    """Which of its labels an image shows this time: i32[B], uniform in 0..count-1, a function of
    (seed, epoch, row).

    Args:
      count: i32[B], number of labels of each image.
      index: i32[B], row of the record.
      epoch: i32[B], how often the row was seen before.
      seed: of the run.
    """
    root = jax.random.key(seed)

    def one(count, index, epoch):
        key = jax.random.fold_in(jax.random.fold_in(root, epoch), index)
        return jax.random.randint(jax.random.fold_in(key, 3), (), 0, count)

    return jax.vmap(one)(count, index, epoch)


def random_crop(stored, size, key, *, image_size, padding=0, step=1):
    """A square at a random place; `padding` black pixels are laid around the image first.

    The square begins at multiples of `step` pixels: 8 keeps the blocks of JPEG in one phase to a
    ViT's patches.
    """
    if padding:
        stored = jnp.pad(stored, ((padding, padding), (padding, padding), (0, 0)))
    room = _room(stored, size + 2 * padding, image_size)
    return _cut(stored, step * jax.random.randint(key, (2,), 0, room // step + 1), image_size)[None]


def center_crop(stored, size, key, *, image_size):
    """The square in the middle; an odd rest goes to the bottom and right, as in CLIP's
    preprocessing."""
    return _cut(stored, _room(stored, size, image_size) // 2, image_size)[None]


def diagonal_crops(stored, size, key, *, image_size, views=3):
    """Squares evenly spaced from the top left to the bottom right corner: with three views, those
    of ConOrd."""
    room = _room(stored, size, image_size)
    places = [0.5] if views == 1 else [v / (views - 1) for v in range(views)]
    return jnp.stack([_cut(stored, _at(room, p, p), image_size) for p in places])


def spread_crops(stored, size, key, *, image_size, views=4, step=1):
    """Squares spread evenly over the image, the same for every image: the points of the R2 sequence
    (Roberts 2018).

    Not a regular grid, whose steps would keep a phase of their own to periodic patterns of an
    image. `step` as in `random_crop`.
    """
    room = _room(stored, size, image_size)
    points = [
        ((0.5 + v * 0.7548776662466927) % 1, (0.5 + v * 0.5698402909980532) % 1)
        for v in range(views)
    ]
    starts = [step * (jnp.array(point) * (room // step + 1)).astype(jnp.int32) for point in points]
    return jnp.stack([_cut(stored, start, image_size) for start in starts])


def resize(stored, size, key, *, image_size):
    """The whole image, whatever its aspect; leaves an image of the right size exactly as it is."""
    return _resample(stored, jnp.zeros(2, jnp.int32), size, image_size)[None]


def random_resized_crop(stored, size, key, *, image_size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """A rectangle of random area and aspect, resized to the square: the distribution of
    torchvision's.

    Ten draws of an area in `scale` (a share of the image) and an aspect log-uniform in `ratio`; the
    first that fits counts; where none fits, the centre with the nearest allowed aspect.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    h, w = size[0].astype(jnp.float32), size[1].astype(jnp.float32)
    area = h * w * jax.random.uniform(area_key, (10,), minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(
        jax.random.uniform(ratio_key, (10,), minval=math.log(ratio[0]), maxval=math.log(ratio[1]))
    )
    draws = jnp.stack(
        [jnp.round(jnp.sqrt(area / aspect)), jnp.round(jnp.sqrt(area * aspect))], -1
    )  # [10, 2]
    fits = jnp.all((draws > 0) & (draws <= size), -1)
    length = draws[jnp.argmax(fits)].astype(jnp.int32)
    start = jnp.floor(jax.random.uniform(place_key, (2,)) * (size - length + 1)).astype(jnp.int32)
    whole = jnp.round(
        jnp.stack([jnp.minimum(h, w / ratio[0]), jnp.minimum(w, h * ratio[1])])
    ).astype(jnp.int32)
    length = jnp.where(jnp.any(fits), length, whole)
    start = jnp.where(jnp.any(fits), jnp.clip(start, 0, size - length), (size - whole) // 2)
    return _resample(stored, start, length, image_size)[None]


def _room(stored, size, image_size):
    """i32[2]: rows and columns by which the square can move."""
    if min(stored.shape[:2]) < image_size:
        raise ValueError(
            f"a crop of config.data.image_size {image_size} does not fit into stored images of "
            f"{stored.shape[0]} pixels; raise config.data.stored_size or use the crop 'resize'"
        )
    return jnp.maximum(size - image_size, 0)


def _at(room, y, x):
    return (room * jnp.array([y, x]) + 0.5).astype(jnp.int32)  # nearest pixel


def _cut(stored, start, image_size):
    square = jax.lax.dynamic_slice(stored, (start[0], start[1], 0), (image_size, image_size, 3))
    return square.astype(jnp.float32)


def _resample(stored, start, length, image_size):
    """Bicubic resize of a rectangle with the weights of Pillow's crop and resize, rounded nowhere.

    Nothing outside the rectangle is read; jax.image.scale_and_translate would mix in neighbours
    beyond it, and the canvas's black padding.
    """
    exact = jax.lax.Precision.HIGHEST  # pixels have 8 bits; TF32 and bfloat16 keep no more
    down = _weights(start[0], length[0], stored.shape[0], image_size)
    across = _weights(start[1], length[1], stored.shape[1], image_size)
    image = jnp.einsum("yh,hwc->ywc", down, stored.astype(jnp.float32), precision=exact)
    return jnp.clip(jnp.einsum("xw,ywc->yxc", across, image, precision=exact), 0.0, 255.0)


def _weights(start, length, source, target):
    """f32[target, source]: row i weighs the source pixels that make pixel i (Keys' cubic, a = -1/2,
    antialiased)."""
    scale = length / target
    centre = start + (jnp.arange(target) + 0.5) * scale  # [target]
    pixel = jnp.arange(source)
    x = jnp.abs(pixel + 0.5 - centre[:, None]) / jnp.maximum(scale, 1.0)  # [target, source]
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weight = jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))
    weight = jnp.where((pixel >= start) & (pixel < start + length), weight, 0.0)
    return weight / jnp.sum(weight, 1, keepdims=True)
