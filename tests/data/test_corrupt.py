import colorsys
import functools

import numpy as np
import pytest
from scipy import ndimage

from jaxord.data import corrupt
from jaxord.data.corrupt import NAMES

RNG = np.random.default_rng(0)
# A smooth picture with some texture and a grey corner, higher than wide.
PHOTO = ndimage.gaussian_filter(RNG.normal(size=(60, 44, 3)), (5, 5, 0)) + 0.1 * RNG.normal(size=(60, 44, 3))
PHOTO = np.uint8(255 * (PHOTO - PHOTO.min()) / np.ptp(PHOTO))
PHOTO[:6, :6] = PHOTO[:6, :6, :1]
FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate")


@functools.cache
def corrupted(name, severity, seed=0):
    return corrupt.corrupt(PHOTO, name, severity, seed)


def distance(name, severity):
    return np.abs(corrupted(name, severity).astype(float) - PHOTO).mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_corruption(name):
    assert len(NAMES) == len(set(NAMES)) == 19
    before = PHOTO.copy()
    np.testing.assert_array_equal(corrupted(name, 0), PHOTO)
    for severity in range(1, 6):
        found = corrupted(name, severity)
        assert found.shape == PHOTO.shape and found.dtype == np.uint8
        assert distance(name, severity) > 0.5
        assert len(np.unique(found)) >= 4  # still a picture; shot noise counts 0 to 3 photons
    np.testing.assert_array_equal(corrupt.corrupt(PHOTO, name, 3, 0), corrupted(name, 3))
    assert np.array_equal(corrupt.corrupt(PHOTO, name, 3, 1), corrupted(name, 3)) == (name in FIXED)
    np.testing.assert_array_equal(PHOTO, before)


def test_severity_damages_more():
    by_severity = np.array([[distance(name, severity) for severity in range(6)] for name in NAMES])
    assert (np.diff(by_severity.mean(0)) > 0).all()
    # By the published constants saturation first falls and then rises, elastic waves become shorter, glass is once shaken
    # less often, and mud follows water; frost darkens the image as it adds ice. These lose likeness from first to last.
    uneven = ("saturate", "elastic_transform", "glass_blur", "spatter", "frost", "zoom_blur")
    steps = dict(zip(NAMES, np.diff(by_severity, axis=1).min(1), strict=True))
    assert not [name for name, step in steps.items() if step <= 0 and name not in uneven]
    for name in uneven[2:]:
        first, last = (np.corrcoef(corrupted(name, severity).ravel(), PHOTO.ravel())[0, 1] for severity in (1, 5))
        assert last < first - 0.01, name


def test_blurs_leave_an_even_image_as_it_is():
    even = np.broadcast_to(np.uint8([200, 90, 20]), (30, 20, 3)).copy()
    for name in (*(name for name in NAMES if name.endswith("blur")), "pixelate", "contrast"):
        np.testing.assert_array_equal(corrupt.corrupt(even, name, 5, 0), even, err_msg=name)


def test_noises_have_the_spread_asked_for():
    grey = np.full((100, 100, 3), 102, np.uint8)
    values = {name: corrupt.corrupt(grey, name, 1, 0) / 255 for name in NAMES[:3] + ("speckle_noise",)}
    for name, deviation in (("gaussian_noise", 0.08), ("speckle_noise", 0.4 * 0.15), ("shot_noise", np.sqrt(0.4 / 60))):
        assert values[name].mean() == pytest.approx(0.4, abs=0.002)
        assert values[name].std() == pytest.approx(deviation, rel=0.03)
    for extreme in (0, 1):
        assert (values["impulse_noise"] == extreme).mean() == pytest.approx(0.015, abs=0.003)


def test_colour_changes_equal_the_standard_librarys_hsv():
    hsv = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in PHOTO.reshape(-1, 3) / 255])
    assert (hsv[:, 1] == 0).any()

    def back(h, s, v):
        rgb = [colorsys.hsv_to_rgb(*pixel) for pixel in zip(h, np.clip(s, 0, 1), np.clip(v, 0, 1), strict=True)]
        return 255 * np.reshape(rgb, PHOTO.shape)

    h, s, v = hsv.T
    np.testing.assert_allclose(corrupted("brightness", 3), back(h, s, v + 0.3), atol=0.501)
    np.testing.assert_allclose(corrupted("saturate", 2), back(h, 0.1 * s, v), atol=0.501)
    np.testing.assert_allclose(corrupted("saturate", 5), back(h, 20 * s + 0.2, v), atol=0.501)
    black = np.zeros((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(corrupt.corrupt(black, "brightness", 2, 0), 51)
    np.testing.assert_array_equal(corrupt.corrupt(black, "saturate", 5, 0), black)


def test_a_point_shows_the_blurs():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    lit = lambda name, severity: np.argwhere(corrupt.corrupt(point, name, severity, 3)[..., 0] > 0) - 20  # noqa: E731
    disk = lit("defocus_blur", 1)
    assert len(disk) == sum(x * x + y * y <= 9 for x in range(-3, 4) for y in range(-3, 4))
    trail = lit("motion_blur", 1)
    assert len(trail) >= 5 and (np.abs(trail[:, 1]) >= np.abs(trail[:, 0])).all()  # within 45 degrees of the horizontal
    assert (trail[:, 1] >= 0).all() or (trail[:, 1] <= 0).all()  # to one side


def test_fractal_is_rougher_with_less_decay():
    smooth, rough = (corrupt._fractal(50, decay, np.random.default_rng(0)) for decay in (3.0, 1.2))
    assert smooth.shape == rough.shape == (64, 64)
    for height in (smooth, rough):
        assert height.min() == 0 and height.max() == 1
    slope = [np.abs(np.diff(height, axis=0)).mean() for height in (smooth, rough)]
    assert slope[1] > 3 * slope[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PHOTO, "motion_blurr", 1, 0), "there is no corruption 'motion_blurr'. Did you mean 'motion_blur'?"),
        ((PHOTO, "corrupt", 1, 0), "there is no corruption 'corrupt'"),
        ((PHOTO, "fog", 6, 0), "the severity of fog is 6; it takes the integers 0"),
        ((PHOTO / 255, "fog", 1, 0), r"the image is float64\[60, 44, 3\]; expected uint8\[H, W, 3\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt.corrupt(*arguments)
