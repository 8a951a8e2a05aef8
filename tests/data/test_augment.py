"""Crops, flip, colour and normalisation, against Pillow and by hand."""

import colorsys
import functools
import io
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxord.data import augment, color_jitter
from jaxord.data.decode import decode_image

SIDE, IMAGE = 24, 16
RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
SIZE = np.full((4, 2), SIDE, np.int32)


RESAMPLE = jax.jit(augment._resample, static_argnums=3)


def data_of(crop, flip=True, image_size=IMAGE, normalize="clip", jitter=None, grey=0.0):
    """What `transform` reads of config.data."""
    fields = {"flip": flip, "image_size": image_size, "normalize": normalize, "grey": grey}
    crops = {"train_crop": crop, "eval_crop": crop}
    return types.SimpleNamespace(**fields, **crops, jitter=jitter or {})


@functools.cache
def compiled(crop, train=True, seed=0, settings=(), jitter=(), **fields):
    crop = {"name": crop, **dict(settings)}
    data = data_of(crop=crop, jitter=dict(jitter), **fields)
    return jax.jit(functools.partial(augment.transform, data=data, train=train, seed=seed))


def run(crop, index=(0, 1, 2, 3), epoch=(0, 0, 0, 0), stored=STORED, size=SIZE, **fixed):
    return np.asarray(
        compiled(crop, **fixed)(stored, size, np.array(index, np.int32), np.array(epoch, np.int32))
    )


def pixels(images, normalize="clip"):
    """Undoes the normalisation: f32 in 0..255."""
    mean, std = augment.NORMALISATIONS[normalize]
    return (images * np.float32(std) + np.float32(mean)) * 255


@pytest.mark.parametrize("crop", ["random_crop", "random_resized_crop"])
def test_an_image_depends_on_seed_epoch_and_row_only(crop):
    first = run(crop)
    assert first.shape == (4, 1, IMAGE, IMAGE, 3) and first.dtype == np.float32
    turned = run(crop, index=(3, 2, 1, 0), stored=STORED[::-1])[::-1]
    np.testing.assert_array_equal(first, turned)  # another place in the batch
    mixed = run(crop, epoch=(0, 1, 0, 1))  # a batch that straddles two epochs
    np.testing.assert_array_equal(first[[0, 2]], mixed[[0, 2]])
    np.testing.assert_array_equal(run(crop, epoch=(1, 1, 1, 1))[[1, 3]], mixed[[1, 3]])
    assert not np.array_equal(first[1], mixed[1])
    assert not np.array_equal(first, run(crop, seed=1))
    assert not np.array_equal(run(crop, index=(7, 8, 9, 10)), first)


def test_random_crop_reaches_every_place_and_flips_half():
    image = np.broadcast_to(np.arange(18 * 18).reshape(18, 18, 1) % 251, (1, 18, 18, 3)).astype(
        np.uint8
    )
    n = 400
    args = (
        np.repeat(image, n, 0),
        np.full((n, 2), 18, np.int32),
        np.arange(n, dtype=np.int32),
        np.zeros(n, np.int32),
    )
    found = pixels(np.asarray(compiled("random_crop")(*args)))[:, 0, :, :, 0].round()
    seen = {}
    for top in range(3):
        for left in range(3):
            part = image[0, top : top + IMAGE, left : left + IMAGE, 0]
            for flipped in (False, True):
                match = np.all(found == (part[:, ::-1] if flipped else part), axis=(1, 2)).sum()
                seen[top, left, flipped] = match
    assert sum(seen.values()) == n  # nothing else was made
    assert min(seen.values()) > 5  # 400 draws of 18 equal chances
    assert 150 < sum(count for (_, _, flipped), count in seen.items() if flipped) < 250


def test_evaluation_neither_flips_nor_moves():
    expected = STORED[:, 4:20, 4:20].astype(np.float32)
    for epoch in ((0, 0, 0, 0), (5, 6, 7, 8)):
        found = run("center_crop", epoch=epoch, train=False)
        np.testing.assert_allclose(
            pixels(found)[:, 0], expected, atol=1e-3
        )  # of 255: float32 rounding
    np.testing.assert_array_equal(
        run("random_crop", train=False), run("random_crop", epoch=(3, 3, 3, 3), train=False)
    )


def test_center_crop_of_an_odd_rest_goes_up_and_left():
    stored = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    found = augment.center_crop(stored, jnp.array([5, 5]), None, image_size=2)
    np.testing.assert_array_equal(found[0], stored[1:3, 1:3])


def test_no_flip_when_told():
    assert np.array_equal(run("center_crop", flip=False), run("center_crop", train=False))
    assert not np.array_equal(
        run("center_crop", index=range(4, 8)), run("center_crop", index=range(4, 8), flip=False)
    )


def test_normalisations():
    grey = np.full_like(STORED, 51)
    for name, (mean, std) in augment.NORMALISATIONS.items():
        found = run("center_crop", stored=grey, train=False, normalize=name)
        np.testing.assert_allclose(
            found[0, 0, 0, 0], (0.2 - np.array(mean)) / np.array(std), rtol=1e-6
        )


def test_crops_stay_inside_the_true_size():
    """White images on black canvases: a black pixel in a crop would come from the padding."""
    sizes = np.array([[24, 17], [16, 24], [20, 20], [16, 16]], np.int32)
    stored = np.zeros_like(STORED)
    for image, (h, w) in zip(stored, sizes, strict=True):
        image[:h, :w] = 255
    for crop in (
        "random_crop",
        "center_crop",
        "resize",
        "random_resized_crop",
        "diagonal_crops",
        "spread_crops",
    ):
        for epoch in range(5):
            found = pixels(run(crop, epoch=(epoch,) * 4, stored=stored, size=sizes))
            np.testing.assert_allclose(found, 255, atol=1e-2, err_msg=crop)


def test_views():
    diagonal = pixels(run("diagonal_crops", train=False))
    assert diagonal.shape == (4, 3, IMAGE, IMAGE, 3)
    for view, start in enumerate((0, 4, 8)):
        np.testing.assert_allclose(
            diagonal[:, view], STORED[:, start : start + 16, start : start + 16], atol=1e-3
        )
    spread = pixels(run("spread_crops", train=False, settings=(("views", 6),)))
    assert spread.shape[1] == 6
    starts = [
        (int((0.5 + v * 0.75487766624) % 1 * 9), int((0.5 + v * 0.56984029099) % 1 * 9))
        for v in range(6)
    ]
    assert len(set(starts)) == 6 and starts[0] == (4, 4)
    for view, (top, left) in enumerate(starts):
        np.testing.assert_allclose(
            spread[:, view], STORED[:, top : top + 16, left : left + 16], atol=1e-3
        )
    for crop in (
        "random_crop",
        "spread_crops",
    ):  # STORED's side is 24: with steps of 8 the starts are 0 and 8
        stepped = pixels(run(crop, settings=(("step", 8),)))[:, 0]
        corners = [
            STORED[:, top : top + 16, left : left + 16].astype(np.float32)
            for top in (0, 8)
            for left in (0, 8)
        ]
        found = [
            min(np.abs(image - corner[i]).max() for corner in corners)
            for i, image in enumerate(stepped)
        ]
        flipped = [
            min(np.abs(image[:, ::-1] - corner[i]).max() for corner in corners)
            for i, image in enumerate(stepped)
        ]
        assert np.minimum(found, flipped).max() < 1e-3
    middle = run("center_crop", train=False)
    for crop in ("spread_crops", "diagonal_crops"):
        np.testing.assert_array_equal(run(crop, train=False, settings=(("views", 1),)), middle)


def test_padding():
    found = pixels(run("random_crop", image_size=SIDE, settings=(("padding", 4),)))
    assert np.all(
        np.isclose(found, 0, atol=1e-3).all(-1).any((-1, -2, -3))
    )  # each moved, so each has a black border
    tall = np.zeros((1, 32, 32, 3), np.uint8)
    tall[:, :24, :16] = 200
    one = functools.partial(augment.random_crop, image_size=16, padding=2)
    keys = jax.random.split(jax.random.key(0), 200)
    found = np.asarray(jax.jit(jax.vmap(lambda key: one(tall[0], jnp.array([24, 16]), key)))(keys))[
        :, 0, :, :, 0
    ]
    rows, columns = (found > 0).any(2).sum(1), (found > 0).any(1).sum(1)
    assert (
        rows.min() == 14 and columns.min() == 14 and columns.max() == 16
    )  # at most `padding` black lines


def test_resize_leaves_the_right_size_alone():
    np.testing.assert_array_equal(
        RESAMPLE(STORED[0], np.zeros(2, int), SIZE[0], SIDE), STORED[0].astype(np.float32)
    )


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (3, 5, 37, 20), (10, 0, 8, 30), (32, 31, 8, 9)])
def test_resampling_equals_pillow(box):
    """Pillow rounds to 8 bits after each of two passes: 0.5, and 0.5 times the sum of absolute
    weights (below 1.6)."""
    top, left, h, w = box
    noise = RNG.integers(
        80, 176, (40, 40, 3), np.uint8
    )  # no overshoot reaches 0 or 255, where Pillow cuts twice
    part = Image.fromarray(noise[top : top + h, left : left + w])
    expected = np.asarray(part.resize((IMAGE, IMAGE), Image.Resampling.BICUBIC), np.float32)
    found = RESAMPLE(noise, np.array([top, left]), np.array([h, w]), IMAGE)
    np.testing.assert_allclose(found, expected, atol=1.3)
    assert np.abs(np.asarray(found) - expected).mean() < 0.4


def test_random_resized_crop_has_torchvisions_distribution():
    """The box is read off an image whose pixels say where they are; areas and aspects follow the
    ranges asked for."""
    side = 64
    ramp = np.zeros((side, side, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(side)[:, None] * 3, np.arange(side)[None] * 3
    crop = functools.partial(
        augment.random_resized_crop, image_size=8, scale=(0.2, 0.8), ratio=(0.5, 2.0)
    )
    keys = jax.random.split(jax.random.key(0), 1000)
    views = np.asarray(
        jax.jit(jax.vmap(lambda key: crop(ramp, jnp.array([side, side]), key)))(keys)
    )[:, 0]
    slope = lambda lines: (lines[:, 5] - lines[:, 2]) / 3 / 3 * 8  # noqa: E731  length of the box along one axis
    h, w = slope(views[:, :, 0, 0]), slope(views[:, 0, :, 1])
    share, aspect = h * w / side**2, w / h
    assert share.min() > 0.18 and share.max() < 0.82 and abs(share.mean() - 0.5) < 0.04
    assert aspect.min() > 0.48 and aspect.max() < 2.1 and abs(np.log(aspect).mean()) < 0.06


def test_random_resized_crop_falls_back_to_the_centre():
    """No aspect of 1 fits four fifths of a 3:1 image: torchvision then takes the largest centred
    square."""
    stored = np.zeros((60, 60, 3), np.uint8)
    stored[:20, 20:40] = 255
    crop = functools.partial(
        augment.random_resized_crop, image_size=20, scale=(0.8, 1.0), ratio=(1.0, 1.0)
    )
    found = jax.jit(crop)(stored, np.array([20, 60]), jax.random.key(0))
    np.testing.assert_allclose(found, 255, atol=1e-3)


def test_whole_chain_equals_clips_preprocessing():
    """Shorter side by Pillow's bicubic, centre crop, mean and standard deviation; nothing is
    resampled twice."""
    photo = Image.fromarray(RNG.integers(0, 256, (37, 50, 3), np.uint8))
    resized = np.asarray(
        photo.resize((int(IMAGE * 50 / 37), IMAGE), Image.Resampling.BICUBIC), np.float32
    )
    left = (resized.shape[1] - IMAGE) // 2
    mean, std = np.float32(augment.NORMALISATIONS["clip"])
    expected = (resized[:, left : left + IMAGE] / 255 - mean) / std
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    stored, size = decode_image(encoded.getvalue(), resize="shorter", stored_size=IMAGE)
    stored, size = np.repeat(stored[None], 4, 0), np.array([size] * 4, np.int32)
    found = run("center_crop", stored=stored, size=size, train=False)[:, 0]
    np.testing.assert_allclose(found, np.stack([expected] * 4), atol=2e-6)


JITTER = (
    ("probability", 0.8),
    ("brightness", 0.4),
    ("contrast", 0.4),
    ("saturation", 0.4),
    ("hue", 0.1),
)
PHOTO = RNG.integers(0, 256, (2, 9, 11, 3)).astype(np.float32)
PHOTO[0, :2] = PHOTO[0, :2, :, :1]  # greys, which have no hue
PHOTO[0, 2:4, :, 1] = PHOTO[0, 2:4, :, 0]  # ties between channels
PHOTO[0, 0, 0], PHOTO[0, 0, 1] = 0, 255


def blend_loop(image, other, factor):
    return np.clip(image * factor + other * (1 - factor), 0, 255)


def hue_loop(image, factor):
    """Each pixel by the standard library's HSV, in float64."""
    turned = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in image.reshape(-1, 3)]
    return 255 * np.reshape(
        [colorsys.hsv_to_rgb((h + factor) % 1, s, v) for h, s, v in turned], image.shape
    )


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_blends_equal_torchvisions_formulas_and_pillow(factor):
    """Pillow, which torchvision calls on files, rounds luminance, mean and result to 8 bits, hence
    its tolerance."""
    exact = PHOTO.astype(np.float64)
    luminance = exact @ np.array([0.299, 0.587, 0.114])
    found = {
        "Brightness": color_jitter.adjust_brightness(PHOTO, factor),
        "Contrast": color_jitter.adjust_contrast(PHOTO, factor),
        "Color": color_jitter.adjust_saturation(PHOTO, factor),
    }
    others = [np.zeros(()), luminance.mean((1, 2))[:, None, None, None], luminance[..., None]]
    for (name, adjusted), other in zip(found.items(), others, strict=True):
        np.testing.assert_allclose(
            adjusted, blend_loop(exact, other, factor), atol=1e-4
        )  # measured: 4e-5
        for image, ours in zip(PHOTO, adjusted, strict=True):
            pillow = getattr(ImageEnhance, name)(Image.fromarray(image.astype(np.uint8))).enhance(
                factor
            )
            np.testing.assert_allclose(np.asarray(pillow, np.float32), ours, atol=1.6)
    if factor == 1:
        np.testing.assert_allclose(found["Contrast"], PHOTO, atol=1e-4)


@pytest.mark.parametrize("factor", [-0.5, -0.1, 0.0, 0.27])
def test_hue_equals_the_standard_librarys(factor):
    found = np.asarray(color_jitter.adjust_hue(PHOTO, factor))
    np.testing.assert_allclose(
        found, hue_loop(PHOTO.astype(np.float64), factor), atol=5e-4
    )  # of 255; measured: 2e-4
    np.testing.assert_allclose(found[0, :2], PHOTO[0, :2], atol=1e-4)
    np.testing.assert_allclose(found.max(-1), PHOTO.max(-1), atol=1e-4)


def test_hue_by_hand():
    red = np.array([[[200.0, 0, 0]]], np.float32)
    for third, expected in ((1, [0, 200, 0]), (2, [0, 0, 200])):
        np.testing.assert_allclose(
            color_jitter.adjust_hue(red, third / 3)[0, 0], expected, atol=1e-3
        )
    np.testing.assert_allclose(color_jitter.adjust_hue(red, 0.5)[0, 0], [0, 200, 200], atol=1e-3)


def test_colour_leaves_crop_and_flip_alone_and_is_for_training():
    plain = run("random_crop", epoch=(0, 1, 2, 3))
    off = (("probability", 0.0), *JITTER[1:])
    np.testing.assert_array_equal(
        run("random_crop", epoch=(0, 1, 2, 3), jitter=off, grey=0.0), plain
    )
    grey = pixels(run("random_crop", epoch=(0, 1, 2, 3), grey=1.0))
    np.testing.assert_allclose(grey, np.repeat(color_jitter.grey(pixels(plain)), 3, -1), atol=1e-3)
    np.testing.assert_array_equal(
        run("random_crop", train=False, jitter=JITTER, grey=1.0), run("random_crop", train=False)
    )
    changed = run("random_crop", jitter=JITTER, grey=0.5)
    turned = run("random_crop", jitter=JITTER, grey=0.5, index=(3, 2, 1, 0), stored=STORED[::-1])[
        ::-1
    ]
    np.testing.assert_array_equal(changed, turned)  # another place in the batch
    assert not np.array_equal(changed, run("random_crop"))
    assert pixels(changed).min() > -1e-3 and pixels(changed).max() < 255.001


PAIR = np.array(
    [[[100.0, 60, 40], [70, 70, 70]]], np.float32
)  # a pixel of hue 1/18 turn and a grey one


def drawn(n=600, image=PAIR, **settings):
    """The two pixels of an image under n keys, [n, 2, 3]."""
    change = jax.jit(jax.vmap(lambda key: color_jitter.jitter(image, key, **settings)))
    return np.asarray(change(jax.random.split(jax.random.key(1), n)))[:, 0]


def test_factors_are_uniform_and_apply_as_often_as_asked():
    brightened = drawn(probability=0.8, brightness=0.4)
    factor = brightened[:, 0, 0] / 100
    np.testing.assert_allclose(
        brightened, factor[:, None, None] * np.array([[100, 60, 40], [70, 70, 70]]), rtol=1e-5
    )
    assert abs((factor != 1).mean() - 0.8) < 0.06  # 600 draws: standard deviation 0.016
    used = np.sort(factor[factor != 1])
    assert 0.6 <= used[0] < 0.61 and 1.39 < used[-1] <= 1.4
    assert (
        np.abs(used - np.linspace(0.6, 1.4, len(used))).max() < 0.06
    )  # Kolmogorov's distance, 0.075 of the width
    wide = drawn(n=200, probability=1.0, saturation=3.0)[:, 0]
    assert (
        np.isclose(np.ptp(wide, axis=-1), 0).sum() == 0 and (wide >= 0).all()
    )  # factors begin at 0, not at -2
    turned = drawn(n=300, probability=1.0, hue=0.1)
    np.testing.assert_allclose(turned[:, 1], 70, atol=1e-3)
    hues = np.array(
        [
            (colorsys.rgb_to_hsv(*rgb)[0] - 1 / 18 + 0.5) % 1 - 0.5
            for rgb in turned[:, 0].astype(np.float64)
        ]
    )
    assert -0.1 < hues.min() < -0.095 and 0.095 < hues.max() < 0.1


def test_both_orders_of_two_changes_occur_alike():
    """Brightness cuts at 255: before a contrast below 1 the two pixels then sum to 255, after it to
    more."""
    image = np.array([[[200.0] * 3, [0.0] * 3]], np.float32)
    light, dark = drawn(n=2000, image=image, probability=1.0, brightness=1.0, contrast=1.0)[
        ..., 0
    ].T
    cut = (dark > 1) & (
        light + dark > 254.99
    )  # of dark pixels that brighten the contrast is below 1
    assert cut.sum() > 300
    assert abs((light + dark < 255.01)[cut].mean() - 0.5) < 0.1  # standard deviation 0.026


def test_grey_as_often_as_asked_for_all_views_together():
    images = np.broadcast_to(np.array([100.0, 60, 40], np.float32), (3, 2, 2, 3))
    change = jax.jit(jax.vmap(lambda key: color_jitter.random_grey(images, key, probability=0.2)))
    found = np.asarray(change(jax.random.split(jax.random.key(0), 500)))
    grey = np.ptp(found, axis=-1) == 0
    assert np.array_equal(grey.any((1, 2, 3)), grey.all((1, 2, 3)))
    assert abs(grey.mean() - 0.2) < 0.06  # standard deviation 0.018
    np.testing.assert_allclose(found[grey], 0.299 * 100 + 0.587 * 60 + 0.114 * 40, rtol=1e-6)


def test_frames_become_views_and_are_changed_alike():
    """A record of equal frames gives equal views; other frames lie where they would lie alone."""
    video = np.stack([STORED, 255 - STORED, STORED], 1)
    for crop, views in (("random_crop", 1), ("diagonal_crops", 3)):
        plain = run(crop, stored=video)
        assert plain.shape == (4, 3 * views, IMAGE, IMAGE, 3)
        for frame in range(3):
            part = plain[:, frame * views : (frame + 1) * views]
            np.testing.assert_allclose(
                part, run(crop, stored=np.ascontiguousarray(video[:, frame])), atol=1e-6
            )
    coloured = run("random_crop", stored=video, jitter=JITTER, grey=0.5)
    np.testing.assert_array_equal(coloured[:, 0], coloured[:, 2])
    np.testing.assert_allclose(
        coloured[:, :1], run("random_crop", jitter=JITTER, grey=0.5), atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"crop": {"name": "centre_crop"}},
            "jaxord.data.augment has no 'centre_crop'. Did you mean 'center_crop'",
        ),
        (
            {"crop": {"name": "spread_crops", "view": 3}},
            "spread_crops has no setting 'view'. Did you mean 'views'",
        ),
        (
            {"normalize": "zero"},
            r"config.data.normalize is 'zero'; it is one of \['clip', 'half', 'imagenet'\]",
        ),
        (
            {"image_size": 25},
            "config.data.image_size 25 does not fit into stored images of 24 pixels",
        ),
        ({"jitter": {"hue": 0.6}}, "config.data.jitter.hue is 0.6; it takes 0 to 0.5"),
        ({"jitter": {"contrast": -1}}, "config.data.jitter.contrast is -1; it takes 0 or more"),
        ({"grey": 1.5}, "config.data.grey is 1.5; it takes 0 to 1"),
    ],
)
def test_bad_settings(fields, message):
    data = data_of(**{"crop": {"name": "center_crop"}, **fields})
    with pytest.raises(ValueError, match=message):
        augment.transform(STORED, SIZE, np.arange(4), np.zeros(4, int), data=data, train=True)
