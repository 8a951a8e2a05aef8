"""Changes of colour by the formulas of torchvision's ColorJitter and RandomGrayscale.

Images are f32[..., H, W, 3] with pixels in 0..255, which every function keeps; nothing is rounded.
"""

import jax
import jax.numpy as jnp

# Of Pillow's "L" (ITU-R 601-2), and so of torchvision on files; on tensors it takes 0.2989.
LUMA = (0.299, 0.587, 0.114)


def jitter(image, key, *, probability=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Applies the four changes below in a random order, each by a random factor.

    Factors are uniform in [max(0, 1 - strength), 1 + strength], that of the hue in [-hue, hue]
    turns. All images of the array get the same factors in the same order. Raises ValueError for a
    setting out of its range.

    Args:
      probability: of changing anything at all, 0..1.
      brightness, contrast, saturation: strengths, 0 or more; 0 leaves the change out.
      hue: largest turn, 0..0.5.
    """
    _check("jitter.probability", probability, 1)
    _check("jitter.hue", hue, 0.5)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    ranges = {}
    for name, strength in strengths.items():
        _check(f"jitter.{name}", strength, float("inf"))
        if strength:
            ranges[name] = (max(0.0, 1.0 - strength), 1.0 + strength)
    if hue:
        ranges["hue"] = (-hue, hue)
    if not probability or not ranges:
        return image
    count = len(ranges)
    low, high = jnp.array(list(ranges.values())).T
    # All draws by one call: each call costs half a second of compiling.
    draws = jax.random.uniform(key, (2 * count + 1,))
    factors = low + draws[:count] * (high - low)
    order = jnp.argsort(draws[count:-1])
    changes = [
        lambda x, change=CHANGES[name], i=i: change(x, factors[i]) for i, name in enumerate(ranges)
    ]

    def change_one(x, place):
        return jax.lax.switch(place, changes, x), None

    changed, _ = jax.lax.scan(change_one, image, order)
    return jnp.where(draws[-1] < probability, changed, image)


def random_grey(image, key, *, probability):
    """Removes the colour of all images of the array with this probability."""
    _check("grey", probability, 1)
    if not probability:
        return image
    grey_image = jnp.broadcast_to(grey(image), image.shape)
    return jnp.where(jax.random.bernoulli(key, probability), grey_image, image)


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
    """Turns the hue of HSV by `factor` of the circle; value and saturation, so every grey, stay.

    channel = value - chroma * clip(min(k, 4 - k), 0, 1) with k = (6 hue + n) mod 6 and n = 5, 3, 1
    for red, green, blue.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(-1)
    chroma = value - image.min(-1)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    from_green = (blue - red) / divisor + 2.0
    from_blue = (red - green) / divisor + 4.0
    hue = jnp.where(value == green, from_green, from_blue)
    hue = jnp.where(value == red, (green - blue) / divisor, hue)
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
        allowed = f"0 to {most}" if most < 2 else "0 or more"
        raise ValueError(f"config.data.{name} is {value}; it takes {allowed}")
