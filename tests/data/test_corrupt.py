import colorsys
import concurrent.futures
import functools
import sys

import numpy as np
import pytest
from scipy import ndimage

from jaxord.data import corrupt
from jaxord.data.corrupt import NAMES

pytest.importorskip("imagecorruptions")
RNG = np.random.default_rng(0)
# A smooth picture with some texture and a grey corner, higher than wide.
PHOTO = ndimage.gaussian_filter(RNG.normal(size=(60, 44, 3)), (5, 5, 0)) + 0.1 * RNG.normal(
    size=(60, 44, 3)
)
PHOTO = np.uint8(255 * (PHOTO - PHOTO.min()) / np.ptp(PHOTO))
PHOTO[:6, :6] = PHOTO[:6, :6, :1]
FIXED = (
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
)


@functools.cache
def corrupted(name, severity, seed=0):
    return corrupt.apply(PHOTO, name, severity, seed)


def distance(name, severity):
    return np.abs(corrupted(name, severity).astype(float) - PHOTO).mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_corruption(name):
    assert len(NAMES) == len(set(NAMES)) == 19
    before, drawn = PHOTO.copy(), np.random.get_state()
    np.testing.assert_array_equal(corrupted(name, 0), PHOTO)
    for severity in range(1, 6):
        found = corrupted(name, severity)
        assert found.shape == PHOTO.shape and found.dtype == np.uint8
        assert distance(name, severity) > 0.5
        assert len(np.unique(found)) >= 4  # still a picture; shot noise counts 0 to 3 photons
    np.testing.assert_array_equal(corrupt.apply(PHOTO, name, 3, 0), corrupted(name, 3))
    assert np.array_equal(corrupt.apply(PHOTO, name, 3, 1), corrupted(name, 3)) == (name in FIXED)
    np.testing.assert_array_equal(PHOTO, before)
    for now, then in zip(
        np.random.get_state(), drawn, strict=True
    ):  # whoever else draws is not disturbed
        np.testing.assert_array_equal(now, then)


def test_severity_damages_more():
    by_severity = np.array([[distance(name, severity) for severity in range(6)] for name in NAMES])
    assert (np.diff(by_severity.mean(0)) > 0).all()
    # By the published constants saturation first falls and then rises, glass is once shaken less
    # often, and mud follows water; weather is random, and ice and clouds darken the image too.
    # These lose likeness from first to last.
    uneven = ("saturate", "glass_blur", "spatter", "snow", "frost", "fog", "zoom_blur")
    steps = dict(zip(NAMES, np.diff(by_severity, axis=1).min(1), strict=True))
    assert not [name for name, step in steps.items() if step <= 0 and name not in uneven]
    for name in uneven[1:]:
        first, last = (
            np.corrcoef(corrupted(name, severity).ravel(), PHOTO.ravel())[0, 1]
            for severity in (1, 5)
        )
        assert last < first - 0.01, name


def test_threads_do_not_draw_from_each_other():
    """Eight threads that damage at once make what one makes."""
    rows = [(name, row) for row in range(20) for name in NAMES if name not in FIXED]
    one = [corrupt.apply(PHOTO, name, 3, row) for name, row in rows]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda pair: corrupt.apply(PHOTO, pair[0], 3, pair[1]), rows))
    for pair, a, b in zip(rows, one, many, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(pair))


def test_noises_have_the_spread_asked_for():
    grey = np.full((100, 100, 3), 102, np.uint8)
    values = {
        name: corrupt.apply(grey, name, 1, 0) / 255 for name in NAMES[:3] + ("speckle_noise",)
    }
    for name, deviation in (
        ("gaussian_noise", 0.08),
        ("speckle_noise", 0.4 * 0.15),
        ("shot_noise", np.sqrt(0.4 / 60)),
    ):
        assert values[name].mean() == pytest.approx(0.398, abs=0.002)  # cut down to whole numbers
        assert values[name].std() == pytest.approx(deviation, rel=0.03)
    for extreme in (0, 1):
        assert (values["impulse_noise"] == extreme).mean() == pytest.approx(0.015, abs=0.003)


def test_brightness_equals_the_standard_librarys_hsv():
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in PHOTO.reshape(-1, 3) / 255]
    rgb = [colorsys.hsv_to_rgb(h, s, min(v + 0.3, 1)) for h, s, v in hsv]
    lost = 255 * np.reshape(rgb, PHOTO.shape) - corrupted("brightness", 3)
    assert lost.min() > -1e-9 and lost.max() < 1 + 1e-9  # cut down to whole numbers


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            corrupt.check,
            ("motion_blurr", 1),
            "there is no corruption 'motion_blurr'. Did you mean 'motion_blur'?",
        ),
        (corrupt.check, ("corrupt", 1), "there is no corruption 'corrupt'"),
        (corrupt.check, ("fog", 6), "the severity of fog is 6; it takes integers 0"),
        (
            corrupt.apply,
            (PHOTO / 255, "fog", 1, 0),
            r"the image is float64\[60, 44, 3\]; expected uint8\[H, W, 3\]",
        ),
        (
            corrupt.apply,
            (PHOTO[:31], "fog", 1, 0),
            "the image is 31 x 44; corruptions need 32 a side, in the file and by",
        ),
    ],
)
def test_bad_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(
        ValueError,
        match=r"imagecorruptions, which is not installed: pip install -e .*\[corruptions\]",
    ):
        corrupt.check("fog", 1)
