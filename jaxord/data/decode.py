"""Encoded bytes -> one uint8 image of the stored form."""

import io

import numpy as np
from PIL import Image, ImageOps

# A closed list keeps Pillow's rare parsers away from user files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's own bound; beyond it a small file could fill the memory
MAX_ASPECT = 2  # of the "shorter" form; the centre of a longer image is kept


def canvas(resize, stored_size):
    """Side of the square canvas that an image of this stored form fits into."""
    if resize not in ("square", "shorter"):
        raise ValueError(f"config.data.resize is {resize!r}; it is 'square' or 'shorter'")
    return stored_size if resize == "square" else MAX_ASPECT * stored_size


def decode_image(encoded, *, resize, stored_size):
    """Decodes one image and resizes it by Pillow's bicubic filter.

    Applies the orientation tag and converts to RGB as CLIP does: alpha is dropped, 16 bits are
    divided by 257, and the first frame of an animation counts. `resize` is "square", which makes
    both sides `stored_size`, or "shorter", which makes the shorter side `stored_size` and the
    longer int(stored_size * long / short), as torchvision and CLIP do, keeps the centre beyond 2:1
    and pads with black.

    Returns:
      (u8[C, C, 3], (h, w)): the image at the top left of its canvas, and its true size.

    Raises:
      ValueError: no image in one of FORMATS, cut short, or of more than MAX_PIXELS pixels.
    """
    side = canvas(resize, stored_size)
    image = _read(encoded)
    if resize == "square":
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)), (side, side)
    short = min(image.size)
    w, h = (int(stored_size * length / short) for length in image.size)
    # Resamples only what is kept: the box is in pixels of the source.
    left = image.width * (max(w - side, 0) / 2) / w
    top = image.height * (max(h - side, 0) / 2) / h
    box = (left, top, image.width - left, image.height - top)
    w, h = min(w, side), min(h, side)
    stored = np.zeros((side, side, 3), np.uint8)
    stored[:h, :w] = np.asarray(image.resize((w, h), Image.Resampling.BICUBIC, box=box))
    return stored, (h, w)


def _read(encoded):
    """The image of these bytes in RGB, turned as its orientation tag says."""
    if not encoded:
        raise ValueError("zero bytes")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise ValueError(f"{size}, more than the limit of {MAX_PIXELS}")
            return _rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise ValueError(f"no image in a known format ({formats}); {len(encoded)} bytes") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly every type on damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _rgb(image):
    """RGB of an image in any mode."""
    remedy = "store the image with 8 or 16 bits"
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels from {values.min()} to {values.max()} in 32 bits; {remedy}")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError(f"pixels are floating point numbers of unknown range; {remedy}")
    if image.mode == "P" and "transparency" in image.info:
        # Resolves the palette's transparency first; otherwise Pillow warns.
        image = image.convert("RGBA")
    return image.convert("RGB")
