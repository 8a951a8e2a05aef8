"""Changes of colour with the formulas of torchvision's ColorJitter and RandomGrayscale, on pixels
in 0..255.

Images are f32[..., H, W, 3] and rounded nowhere; every function leaves them in 0..255.
"""

import jax
import jax.numpy as jnp

LUMA = (
    0.299,
    0.587,
    0.114,
)  # of Pillow's "L" (ITU-R 601-2), and so of torchvision on files; its tensors take 0.2989


def jitter(image, key, *, probability=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """With `probability` the four changes below in a random order, each by a random factor.

    Factors are uniform in [max(0, 1 - strength), 1 + strength], that of the hue in [-hue, hue]
    turns. All images of the array get the same factors in the same order; where nothing is to
    change they come back as they are.

    Args:
        image: f32[..., H, W, 3].
        key: of this image.
        probability: of changing anything at all, 0..1.
        brightness: strength, 0 or more; 0 leaves this change out.
        contrast: strength, 0 or more.
        saturation: strength, 0 or more.
        hue: largest turn, 0..0.5.

    Raises:
        ValueError: a strength or the probability is out of its range.
    """
    _check("jitter.probability", probability, 1)
    _check("jitter.hue", hue, 0.5)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in strengths.items():
        _check(f"jitter.{name}", strength, float("inf"))
    ranges = {
        name: (max(0.0, 1.0 - strength), 1.0 + strength)
        for name, strength in strengths.items()
        if strength
    }
    if hue:
        ranges["hue"] = (-hue, hue)
    if not probability or not ranges:
        return image
    count = len(ranges)
    low, high = jnp.array(list(ranges.values())).T
    draws = jax.random.uniform(
        key, (2 * count + 1,)
    )  # one call: each one costs half a second of compiling
    factors, order = low + draws[:count] * (high - low), jnp.argsort(draws[count:-1])
    changes = [
        lambda x, change=CHANGES[name], i=i: change(x, factors[i]) for i, name in enumerate(ranges)
    ]
    changed, _ = jax.lax.scan(
        lambda x, place: (jax.lax.switch(place, changes, x), None), image, order
    )
    return jnp.where(draws[-1] < probability, changed, image)


def random_grey(image, key, *, probability):
    """All images of the array without their colour, with `probability`; else, and where it is 0, as
    they are."""
    _check("grey", probability, 1)
    if not probability:
        return image
    return jnp.where(
        jax.random.bernoulli(key, probability), jnp.broadcast_to(grey(image), image.shape), image
    )


def grey(image):
    """Luminance f32[..., H, W, 1]: 0.299 R + 0.587 G + 0.114 B."""
    # A matrix product would run in reduced precision on accelerators.
    return (image * jnp.array(LUMA, jnp.float32)).sum(-1, keepdims=True)


def adjust_brightness(image, factor):
    """factor * image; 0 is black, 1 the image."""
    return _blend(image, 0.0, factor)


def adjust_contrast(image, factor):
    """factor * image + (1 - factor) * mean luminance of each image [H, W, 3]; 0 is an even grey."""
    return _blend(image, grey(image).mean((-3, -2, -1), keepdims=True), factor)


def adjust_saturation(image, factor):
    """factor * image + (1 - factor) * luminance of each pixel; 0 is without colour."""
    return _blend(image, grey(image), factor)


def adjust_hue(image, factor):
    """Turns the hue of HSV by `factor` of the circle; value and saturation, and so every grey,
    stay.

    channel = value - chroma * clip(min(k, 4 - k), 0, 1),  k = (6 hue + n) mod 6,  n = 5, 3, 1 of red, green, blue
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(-1)
    chroma = value - image.min(-1)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, (blue - red) / divisor + 2.0, (red - green) / divisor + 4.0),
    )
    k = (hue[..., None] + 6.0 * factor + jnp.array([5.0, 3.0, 1.0])) % 6.0  # [..., H, W, 3]
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


CHANGES = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _blend(image, other, factor):
    return jnp.clip(factor * image + (1.0 - factor) * other, 0.0, 255.0)


def _check(name, value, most):
    if not 0 <= value <= most:
        raise ValueError(
            f"config.data.{name} is {value}; it takes "
            + (f"0 to {most}" if most < 2 else "0 or more")
        )
