"""The 19 corruptions of ImageNet-C at five severities, for evaluation on damaged images (ConOrd Table 19).

After Hendrycks and Dietterich 2019, with their constants, which are meant for images of 224 pixels and are not scaled.
Three types differ from the published images, since numpy, scipy and Pillow are all that is used: frost lays a synthesised
texture over the image in place of photographs of frost; drops of water (spatter 1 to 3) are shaded around the borders of
the drops themselves, not around Canny's edges of them; glass_blur takes each pixel from a random neighbour instead of
exchanging the two one after the other.

A corruption is a function (image f64[H, W, 3] in 0..1, generator, *constants) -> the same, which may leave 0..1.
"""

import difflib
import io
import sys

import numpy as np
import scipy  # its parts load when they are used
from PIL import Image

CONSTANTS = {  # severities 1 to 5
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "elastic_transform": (
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    "speckle_noise": ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    "gaussian_blur": ((1,), (2,), (3,), (4,), (6,)),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, "water"),
        (0.65, 0.3, 3, 0.68, 0.6, "water"),
        (0.65, 0.3, 2, 0.68, 0.5, "water"),
        (0.65, 0.3, 1, 0.65, 1.5, "mud"),
        (0.67, 0.4, 1, 0.65, 1.5, "mud"),
    ),
    "saturate": ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
}
NAMES = tuple(CONSTANTS)


def corrupt(image, name, severity, seed):
    """The image with one corruption.

    Args:
        image: u8[H, W, 3], without padding.
        name: one of NAMES.
        severity: 0 (the image as it is) to 5.
        seed: an integer, or several, that fix what is drawn: give each image its own.

    Returns:
        u8[H, W, 3].

    Raises:
        ValueError: an unknown name or severity, or an array that is no such image.
    """
    image = np.asarray(image)
    if name not in CONSTANTS:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It is one of {sorted(NAMES)}."
        raise ValueError(f"there is no corruption {name!r}. {hint}")
    if severity not in range(6):
        raise ValueError(f"the severity of {name} is {severity}; it takes the integers 0 (none) to 5")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image is {image.dtype}{list(image.shape)}; expected uint8[H, W, 3]")
    if severity == 0:
        return image.copy()
    change = getattr(sys.modules[__name__], name)
    return _bytes(change(image / 255.0, np.random.default_rng(seed), *CONSTANTS[name][severity - 1]))


def gaussian_noise(image, generator, deviation):
    """Adds normal noise to every value."""
    return image + generator.normal(0, deviation, image.shape)


def shot_noise(image, generator, photons):
    """Counts of photons: Poisson with that many in full light."""
    return generator.poisson(image * photons) / photons


def impulse_noise(image, generator, share):
    """That share of the values becomes 0 or 1."""
    hit, white = generator.random(image.shape) < share, generator.random(image.shape) < 0.5
    return np.where(hit, white, image)


def speckle_noise(image, generator, deviation):
    """Normal noise proportional to the value."""
    return image * (1 + generator.normal(0, deviation, image.shape))


def gaussian_blur(image, generator, deviation):
    """Gaussian of that many pixels."""
    return _smooth(image, deviation)


def defocus_blur(image, generator, radius, soft):
    """A disk of that radius, whose border is softened."""
    side = np.arange(-max(radius, 8) - 2, max(radius, 8) + 3)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(np.float64)
    disk = scipy.ndimage.gaussian_filter(disk / disk.sum(), soft, radius=1 if radius <= 8 else 2)
    reach = len(side) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "symmetric")
    return scipy.signal.fftconvolve(padded, disk[..., None], "valid", axes=(0, 1))


def glass_blur(image, generator, deviation, reach, rounds):
    """Pixels from random places up to `reach` away, between two Gaussians."""
    image = _smooth(image, deviation)
    rows, columns = np.indices(image.shape[:2])
    for _ in range(rounds):
        down, right = generator.integers(-reach, reach, (2, *image.shape[:2]))
        image = _at(image, rows + down, columns + right)
    return _smooth(image, deviation)


def motion_blur(image, generator, radius, deviation):
    """A one-sided Gaussian trail at an angle within 45 degrees of the horizontal."""
    return _trail(image, radius, deviation, generator.uniform(-45, 45))


def zoom_blur(image, generator, count, step):
    """Mean of the image and of its enlargements by 1, 1 + step, ..."""
    return (image + sum(_enlarge(image, 1 + step * i) for i in range(count))) / (count + 1)


def snow(image, generator, mean, deviation, zoom, threshold, radius, blur, keep):
    """Flakes, blurred downwards, over an image that is made paler."""
    flakes = _enlarge(generator.normal(mean, deviation, image.shape[:2])[..., None], zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _trail(flakes, radius, blur, generator.uniform(-135, -45))
    pale = np.maximum(image, 1.5 * (image @ [0.299, 0.587, 0.114])[..., None] + 0.5)
    return keep * image + (1 - keep) * pale + flakes + flakes[::-1, ::-1]


def frost(image, generator, keep, amount):
    """A texture of ice over a darker image. The texture is synthesised: bluish white ridges of two fractals."""
    side = max(image.shape[:2])
    coarse, fine = (_fractal(side, decay, generator)[: image.shape[0], : image.shape[1]] for decay in (1.5, 1.2))
    ridges = 1 - np.abs(2 * np.stack([coarse, fine]) - 1)  # [2, H, W], bright where a fractal crosses its middle
    ice = np.clip(0.15 + 0.85 * (ridges**3).mean(0), 0, 1)[..., None] * [0.88, 0.96, 1.0]
    return keep * image + amount * ice


def fog(image, generator, amount, decay):
    """A fractal cloud, and the whole dimmed to the brightness that it had."""
    cloud = _fractal(max(image.shape[:2]), decay, generator)[: image.shape[0], : image.shape[1], None]
    most = image.max()
    return (image + amount * cloud) * most / (most + amount)


def brightness(image, generator, amount):
    """Raises the value of HSV."""
    value = image.max(-1, keepdims=True)
    raised = np.minimum(value + amount, 1)
    return np.where(value > 0, image * raised / np.where(value > 0, value, 1), raised)


def contrast(image, generator, factor):
    """Moves every pixel towards the mean of its channel."""
    mean = image.mean((0, 1))
    return mean + factor * (image - mean)


def saturate(image, generator, factor, amount):
    """factor * saturation of HSV + amount; greys, which HSV gives the hue of red, become reddish."""
    value = image.max(-1, keepdims=True)
    chroma = value - image.min(-1, keepdims=True)
    saturation = chroma / np.where(value > 0, value, 1)
    share = np.where(chroma > 0, (value - image) / np.where(chroma > 0, chroma, 1), [0, 1, 1])  # of the chroma
    return value * (1 - share * np.clip(saturation * factor + amount, 0, 1))


def elastic_transform(image, generator, strength, deviation, shift):
    """Moves three corners at random (an affine map), then every pixel by a smooth random field."""
    shape = np.array(image.shape[:2])
    middle, reach = shape // 2, min(shape) // 3
    source = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = source + generator.uniform(-shift, shift, source.shape)
    solved = np.linalg.solve(np.c_[moved, np.ones(3)], source)  # [3, 2]: where a place of the result comes from
    parts = [
        scipy.ndimage.affine_transform(part, solved[:2].T, solved[2], order=1, mode="mirror")
        for part in np.moveaxis(image, -1, 0)
    ]
    field = generator.uniform(-1, 1, (2, *shape))
    field = [strength * scipy.ndimage.gaussian_filter(part, deviation, mode="reflect", truncate=3) for part in field]
    places = np.indices(shape) + field
    return np.stack([scipy.ndimage.map_coordinates(part, places, order=1, mode="reflect") for part in parts], -1)


def pixelate(image, generator, scale):
    """Shrinks by box averages and enlarges again."""
    height, width = image.shape[:2]
    small = Image.fromarray(_bytes(image)).resize(
        (max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)) / 255.0


def jpeg_compression(image, generator, quality):
    """Through JPEG of that quality."""
    file = io.BytesIO()
    Image.fromarray(_bytes(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255.0


def spatter(image, generator, mean, deviation, blur, threshold, amount, kind):
    """Drops of water that brighten, or of mud that cover."""
    liquid = scipy.ndimage.gaussian_filter(generator.normal(mean, deviation, image.shape[:2]), blur, mode="nearest")
    drops = liquid > threshold
    if kind == "mud":
        cover = scipy.ndimage.gaussian_filter(drops.astype(np.float64), amount, mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
    border = drops & ~scipy.ndimage.binary_erosion(drops)
    depth = np.minimum(scipy.ndimage.distance_transform_edt(~border), 20) if border.any() else np.zeros(drops.shape)
    depth = scipy.ndimage.uniform_filter(depth, 3)
    depth = np.searchsorted(np.sort(depth, axis=None), depth, side="right") / depth.size  # equalised
    relief = np.clip(scipy.ndimage.correlate(depth, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode="mirror"), 0, 1)
    shade = np.where(drops, liquid, 0) * scipy.ndimage.uniform_filter(relief, 3)
    shade = shade / max(shade.max(), 1e-12)
    return image + amount * shade[..., None] * np.array([175, 238, 238]) / 255


def _bytes(image):
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _smooth(image, deviation):
    return scipy.ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="nearest")


def _at(image, rows, columns):
    """The pixels at these places; beyond the border, those of the border."""
    return image[np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)]


def _trail(image, radius, deviation, angle):
    """Mean along a line that starts at each pixel, weighted by half a Gaussian; degrees, 0 to the right, 90 down."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    down, right = (np.rint(steps * f(np.radians(angle))).astype(int) for f in (np.sin, np.cos))
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    parts = [w * _at(image, rows + y, columns + x) for w, y, x in zip(weights, down, right, strict=True)]
    return sum(parts) / weights.sum()


def _enlarge(image, factor):
    """The middle of the image, enlarged to its size by linear interpolation."""
    middle = (np.array(image.shape[:2]) - 1) / 2
    scale, offset = [1 / factor, 1 / factor, 1], [*(middle - middle / factor), 0]
    return scipy.ndimage.affine_transform(image, scale, offset, order=1, mode="nearest")


def _fractal(side, decay, generator):
    """f64[n, n] in 0..1, n the power of two from `side` on: a landscape by midpoint displacement (diamond-square).

    The displacement shrinks by the square of `decay` from one scale to the next, as in the published program.
    """
    n = 1 << max(side - 1, 1).bit_length()
    height, step, rough = np.zeros((n, n)), n, 1.0

    def displaced(*neighbours):
        return sum(neighbours) / 4 + generator.uniform(-rough, rough, neighbours[0].shape)

    while step > 1:
        on, between = slice(0, n, step), slice(step // 2, n, step)
        corners = height[on, on]  # periodic: beyond the last one stands the first
        below, right = np.roll(corners, -1, 0), np.roll(corners, -1, 1)
        centres = displaced(corners, below, right, np.roll(below, -1, 1))
        height[between, between] = centres
        height[on, between] = displaced(corners, right, centres, np.roll(centres, 1, 0))
        height[between, on] = displaced(corners, below, centres, np.roll(centres, 1, 1))
        step, rough = step // 2, rough / decay**2
    height -= height.min()
    return height / height.max()
