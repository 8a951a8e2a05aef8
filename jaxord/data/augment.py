"""Crop, flip, colour and normalise inside jit, as a pure function of (seed, epoch, row).

B batch, V views, F frames of a video, C side of the stored canvas, H W side of the model's image.

A crop is a function (stored u8[C, C, 3], size i32[2], key, *, image_size, settings) ->
f32[V, H, W, 3] of one image. Pixels are in 0..255; the image of true height and width `size` lies
at the top left of the canvas.
"""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import binding
from jaxord.data import color_jitter

CUTTING_CROPS = ("random_crop", "center_crop", "diagonal_crops", "spread_crops")
RESIZING_CROPS = ("resize", "random_resized_crop")
__all__ = [*CUTTING_CROPS, *RESIZING_CROPS]

NORMALISATIONS = {  # mean and standard deviation of the channels, of images in 0..1
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def transform(stored, size, index, epoch, *, data, train=False, seed=0):
    """Images as the model sees them, by the crop, flip and colours of config.data.

    The key of a row is fold_in(fold_in(key(seed), epoch), index), so no step, batch size, tier or
    number of devices changes an image. Evaluation does not read `epoch` and applies its crop only.

    Args:
      stored: u8[B, C, C, 3], or u8[B, F, C, C, 3]: the frames of a record are changed alike.
      size: i32[B, 2], true height and width in the canvas.
      index: i32[B], row of the record.
      epoch: i32[B], how often the row was seen before.
      data: config.data: train_crop or eval_crop, image_size, normalize; in training flip (of half
        of the images, left to right), jitter, then grey (a probability).
      train: False gives the evaluation's images.
      seed: of the run.

    Returns:
      f32[B, V, H, W, 3]. All views of an image are flipped and coloured alike; those of a frame
      stand together, in the order of the frames.

    Raises:
      ValueError: an unknown crop, setting or normalisation; a strength or probability out of its
        range.
    """
    if data.normalize not in NORMALISATIONS:
        known = sorted(NORMALISATIONS)
        raise ValueError(f"config.data.normalize is {data.normalize!r}; it is one of {known}")
    crop = binding.configured(sys.modules[__name__], data.train_crop if train else data.eval_crop)
    cut = functools.partial(crop, image_size=data.image_size)
    mean, std = (np.asarray(values, np.float32) for values in NORMALISATIONS[data.normalize])
    root = jax.random.key(seed)

    def one(stored, size, index, epoch):
        key = _row_key(root, epoch if train else 0, index)
        crop_key, flip_key = jax.random.split(key)
        if stored.ndim == 4:
            image = jax.vmap(cut, (0, None, None))(stored, size, crop_key)  # [F, views, H, W, 3]
            image = image.reshape(-1, *image.shape[2:])
        else:
            image = cut(stored, size, crop_key)  # [V, H, W, 3]
        if train and data.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, :, ::-1], image)
        if train:
            # The split above already uses fold_in(key, 0) and fold_in(key, 1).
            jitter_key, grey_key = jax.random.split(jax.random.fold_in(key, 2))
            image = color_jitter.jitter(image, jitter_key, **data.jitter)
            image = color_jitter.random_grey(image, grey_key, probability=data.grey)
        return (image / 255.0 - mean) / std

    return jax.vmap(one)(stored, size, index, epoch)


def choice(count, index, epoch, seed):
    """Draws which of its `count` labels each image shows: i32[B], uniform in 0..count-1.

    `index` and `epoch` are those of `transform`.
    """
    root = jax.random.key(seed)

    def one(count, index, epoch):
        key = jax.random.fold_in(_row_key(root, epoch, index), 3)
        return jax.random.randint(key, (), 0, count)

    return jax.vmap(one)(count, index, epoch)


def _row_key(root, epoch, index):
    return jax.random.fold_in(jax.random.fold_in(root, epoch), index)


def random_crop(stored, size, key, *, image_size, padding=0, step=1):
    """A square at a random place, after `padding` black pixels are laid around the image.

    The square begins at multiples of `step` pixels: 8 keeps JPEG's blocks in one phase to the
    patches of a ViT.
    """
    if padding:
        stored = jnp.pad(stored, ((padding, padding), (padding, padding), (0, 0)))
    room = _room(stored, size + 2 * padding, image_size)
    return _cut(stored, step * jax.random.randint(key, (2,), 0, room // step + 1), image_size)[None]


def center_crop(stored, size, key, *, image_size):
    """The square in the middle; an odd rest goes to the bottom and right, as in CLIP."""
    return _cut(stored, _room(stored, size, image_size) // 2, image_size)[None]


def diagonal_crops(stored, size, key, *, image_size, views=3):
    """Squares evenly spaced from the top left to the bottom right corner; ConOrd takes three."""
    room = _room(stored, size, image_size)
    places = [0.5] if views == 1 else [v / (views - 1) for v in range(views)]
    starts = [(room * jnp.array([p, p]) + 0.5).astype(jnp.int32) for p in places]  # nearest pixel
    return jnp.stack([_cut(stored, start, image_size) for start in starts])


def spread_crops(stored, size, key, *, image_size, views=4, step=1):
    """Squares at the points of the R2 sequence (Roberts 2018), the same for every image.

    The steps of a regular grid would keep one phase to periodic patterns of an image. `step` is
    that of `random_crop`.
    """
    room = _room(stored, size, image_size)
    ratios = (0.7548776662466927, 0.5698402909980532)
    points = [[(0.5 + v * ratio) % 1 for ratio in ratios] for v in range(views)]
    starts = [step * (jnp.array(point) * (room // step + 1)).astype(jnp.int32) for point in points]
    return jnp.stack([_cut(stored, start, image_size) for start in starts])


def resize(stored, size, key, *, image_size):
    """The whole image, whatever its aspect; an image of the right size stays exactly as it is."""
    return _resample(stored, jnp.zeros(2, jnp.int32), size, image_size)[None]


def random_resized_crop(stored, size, key, *, image_size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """A rectangle of random area and aspect, resized to the square, as torchvision draws it.

    Draws ten areas uniform in `scale` (shares of the image) and aspects log-uniform in `ratio`, and
    takes the first that fits; if none does, the centre with the nearest allowed aspect.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    h, w = size[0].astype(jnp.float32), size[1].astype(jnp.float32)
    area = h * w * jax.random.uniform(area_key, (10,), minval=scale[0], maxval=scale[1])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, (10,), minval=low, maxval=high))
    lengths = [jnp.round(jnp.sqrt(area / aspect)), jnp.round(jnp.sqrt(area * aspect))]
    draws = jnp.stack(lengths, -1)  # [10, 2]
    fits = jnp.all((draws > 0) & (draws <= size), -1)
    length = draws[jnp.argmax(fits)].astype(jnp.int32)
    start = jnp.floor(jax.random.uniform(place_key, (2,)) * (size - length + 1)).astype(jnp.int32)
    largest = jnp.stack([jnp.minimum(h, w / ratio[0]), jnp.minimum(w, h * ratio[1])])
    largest = jnp.round(largest).astype(jnp.int32)
    length = jnp.where(jnp.any(fits), length, largest)
    # Rounding may push a drawn rectangle over the edge, hence the clip.
    start = jnp.where(jnp.any(fits), jnp.clip(start, 0, size - length), (size - largest) // 2)
    return _resample(stored, start, length, image_size)[None]


def _room(stored, size, image_size):
    """i32[2]: rows and columns by which the square can move."""
    if min(stored.shape[:2]) < image_size:
        raise ValueError(
            f"a crop of config.data.image_size {image_size} does not fit into stored images of "
            f"{stored.shape[0]} pixels; raise config.data.stored_size or use the crop 'resize'"
        )
    return jnp.maximum(size - image_size, 0)


def _cut(stored, start, image_size):
    square = jax.lax.dynamic_slice(stored, (start[0], start[1], 0), (image_size, image_size, 3))
    return square.astype(jnp.float32)


def _resample(stored, start, length, image_size):
    """Bicubic resize of a rectangle with the weights of Pillow's crop and resize, not rounded.

    Reads nothing outside the rectangle; jax.image.scale_and_translate would mix in its neighbours
    and the canvas's black padding.
    """
    exact = jax.lax.Precision.HIGHEST  # pixels have 8 bits; TF32 and bfloat16 keep no more
    down = _weights(start[0], length[0], stored.shape[0], image_size)
    across = _weights(start[1], length[1], stored.shape[1], image_size)
    image = jnp.einsum("yh,hwc->ywc", down, stored.astype(jnp.float32), precision=exact)
    return jnp.clip(jnp.einsum("xw,ywc->yxc", across, image, precision=exact), 0.0, 255.0)


def _weights(start, length, source, target):
    """f32[target, source]: weights of the source pixels in each pixel (Keys' cubic, a = -1/2)."""
    scale = length / target
    centre = start + (jnp.arange(target) + 0.5) * scale  # [target]
    pixel = jnp.arange(source)
    # Antialiasing: where the image shrinks, the kernel is stretched over the pixels that it merges.
    x = jnp.abs(pixel + 0.5 - centre[:, None]) / jnp.maximum(scale, 1.0)  # [target, source]
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weight = jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))
    weight = jnp.where((pixel >= start) & (pixel < start + length), weight, 0.0)
    return weight / jnp.sum(weight, 1, keepdims=True)
