"""The 19 corruptions of ImageNet-C at five severities, for evaluation on damaged images (ConOrd
Table 19).

They are those of Hendrycks and Dietterich 2019 as imagecorruptions has them, which works on images
of any size from 32 pixels on: its elastic_transform has constants of its own, for waves that grow
with the image.
"""

import threading

import numpy as np

from jaxord.binding import did_you_mean

NAMES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
SEEDED = (
    "impulse_noise",
    "glass_blur",
)  # by an argument; the others draw from numpy's global generator
SMALLEST = 32  # pixels of a side
DRAWING = threading.Lock()  # several threads decode, and there is one global generator


def check(name, severity):
    """Raises ValueError where there is no such corruption or severity, or the library that makes it
    is not installed."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES, f"It is one of {sorted(NAMES)}.")
        raise ValueError(f"there is no corruption {name!r}. {hint}")
    if severity not in range(6):
        raise ValueError(
            f"the severity of {name} is {severity}; it takes the integers 0 (none) to 5"
        )
    _library()


def corrupt(image, name, severity, seed):
    """The image with one corruption.

    Args:
        image: u8[H, W, 3], without padding.
        name, severity: as `check` accepts them; severity 0 leaves the image as it is.
        seed: an integer, or several, that fix what is drawn: give each image its own.

    Returns:
        u8[H, W, 3].

    Raises:
        ValueError: an array that is no such image, or has a side below 32 pixels.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image is {image.dtype}{list(image.shape)}; expected uint8[H, W, 3]")
    if severity == 0:
        return image.copy()
    if min(image.shape[:2]) < SMALLEST:
        size = " x ".join(map(str, image.shape[:2]))
        raise ValueError(
            f"the image is {size}; corruptions need {SMALLEST} a side, in the file and by data.stored_size"
        )
    seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with DRAWING:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            return _library().corrupt(
                image, severity, name, **({"seed": seed} if name in SEEDED else {})
            )
        finally:
            np.random.set_state(before)


def _library():
    try:
        import imagecorruptions
    except ImportError:
        raise ValueError(
            "images are damaged by imagecorruptions, which is not installed: pip install 'jaxord[corruptions]'"
        ) from None
    return imagecorruptions
