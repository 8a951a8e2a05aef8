"""Encoded bytes -> one uint8 image of the stored form."""

import io

import numpy as np
from PIL import Image, ImageOps

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
)  # a closed list: Pillow's rare parsers never see user files
MAX_PIXELS = 89_478_485  # Pillow's own bound; beyond it a small file could fill the memory
MAX_ASPECT = 2  # of the "shorter" form; the centre of a longer image is kept


def canvas(resize, stored_size):
    """Side of the stored square array: `stored_size`, or twice that where the longer side may be
    longer."""
    if resize not in ("square", "shorter"):
        raise ValueError(f"config.data.resize is {resize!r}; it is 'square' or 'shorter'")
    return stored_size if resize == "square" else MAX_ASPECT * stored_size


def decode(encoded, *, resize, stored_size):
    """Decodes and resizes one image.

    The orientation tag is applied and the image converted to RGB as CLIP does (alpha is dropped; 16
    bits become 8 by dividing by 257; of an animation the first frame counts), then resized by
    Pillow's bicubic filter: "square" makes both sides `stored_size`; "shorter" makes the shorter
    side `stored_size` and the longer int(stored_size * long / short), as torchvision and CLIP do,
    keeps the centre beyond 2:1 and pads with black.

    Args:
        encoded: bytes of a file in one of FORMATS.
        resize: "square" or "shorter".
        stored_size: pixels.

    Returns:
        (u8[C, C, 3], (h, w)): the image at the top left of its canvas, and its true size.

    Raises:
        ValueError: the bytes are no image of these formats, are cut short, or hold more than
          MAX_PIXELS pixels.
    """
    side = canvas(resize, stored_size)
    if not encoded:
        raise ValueError("zero bytes")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}"
                )
            image = _rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"no image in a known format ({', '.join(FORMATS)}); {len(encoded)} bytes"
        ) from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly every type on damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if resize == "square":
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)), (side, side)
    w, h = image.size
    short = min(w, h)
    w, h = int(stored_size * w / short), int(stored_size * h / short)
    left, top = max(w - side, 0) / 2, max(h - side, 0) / 2
    if left or top:  # resample only what is kept: the box is in pixels of the source
        cut = [image.width * left / w, image.height * top / h]
        w, h = min(w, side), min(h, side)
        image = image.resize(
            (w, h),
            Image.Resampling.BICUBIC,
            box=(cut[0], cut[1], image.width - cut[0], image.height - cut[1]),
        )
    else:
        image = image.resize((w, h), Image.Resampling.BICUBIC)
    stored = np.zeros((side, side, 3), np.uint8)
    stored[:h, :w] = np.asarray(image)
    return stored, (h, w)


def _rgb(image):
    """RGB of an image in any mode."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"pixels from {values.min()} to {values.max()} in 32 bits; store the image with 8 or 16 bits"
            )
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError(
            "pixels are floating point numbers of unknown range; store the image with 8 or 16 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert(
            "RGBA"
        )  # resolves the palette's transparency first, otherwise Pillow warns
    return image.convert("RGB")
