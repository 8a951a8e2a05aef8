"""The 19 corruptions of ImageNet-C at five severities (Hendrycks and Dietterich 2019).

ConOrd's Table 19 evaluates on them. The images come from imagecorruptions, which takes any size
from 32 pixels on; its elastic_transform has its own constants, for waves that grow with the image.
"""

import threading

import numpy as np

from jaxord.binding import did_you_mean
from jaxord.shipped import install_hint

NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur"),
    *("zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform"),
    *("pixelate", "jpeg_compression", "speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
# These take a seed; the others draw from numpy's global generator.
SEEDED = ("impulse_noise", "glass_blur")
SMALLEST = 32  # pixels of a side
DRAWING = threading.Lock()  # several threads decode, but numpy has one global generator


def check(name, severity):
    """Raises ValueError if the corruption, the severity or the library does not exist."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES, f"It is one of {sorted(NAMES)}.")
        raise ValueError(f"there is no corruption {name!r}. {hint}")
    if severity not in range(6):
        raise ValueError(f"the severity of {name} is {severity}; it takes integers 0 (none) to 5")
    _library()


def apply(image, name, severity, seed):
    """The image with one corruption, u8[H, W, 3].

    The image has no padding, and severity 0 leaves it as it is. The `seed`, one integer or several,
    fixes what is drawn: give each image its own. Raises ValueError for any other array, or a side
    below 32 pixels.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image is {image.dtype}{list(image.shape)}; expected uint8[H, W, 3]")
    if severity == 0:
        return image.copy()
    if min(image.shape[:2]) < SMALLEST:
        size = " x ".join(map(str, image.shape[:2]))
        needed = f"corruptions need {SMALLEST} a side, in the file and by data.stored_size"
        raise ValueError(f"the image is {size}; {needed}")
    seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    # Restores the global generator, so that nothing else draws other numbers.
    with DRAWING:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            settings = {"seed": seed} if name in SEEDED else {}
            return _library().corrupt(image, severity, name, **settings)
        finally:
            np.random.set_state(before)


def _library():
    try:
        import imagecorruptions
    except ImportError:
        install = install_hint("corruptions")
        raise ValueError(
            f"corruptions need imagecorruptions, which is not installed: {install}"
        ) from None
    return imagecorruptions
