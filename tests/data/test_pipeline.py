"""Order of the rows, decoding, the three tiers and what can go wrong in them."""

import functools
import io
import itertools
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxord.data import decode as decoding
from jaxord.data import pipeline, sources
from jaxord.data.decode import decode

N, BATCH, SIDE = 10, 8, 12
RNG = np.random.default_rng(0)


def encoded(image, form="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def noise(w, h, mode="RGB"):
    channels = {"RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,), "L": ()}[mode]
    return Image.fromarray(RNG.integers(0, 256, (h, w, *channels), np.uint8), mode if mode == "CMYK" else None)


FILES = [encoded(noise(20 + 3 * row, 30 - 2 * row)) for row in range(N)]


def records(files=FILES):
    paths = tuple(f"{row}.png" for row in range(len(files)))
    return sources.Records(
        paths, np.arange(len(files), dtype=np.float32), lambda row: files[row], {}, "made train", "1"
    )


def settings(**fields):
    base = {"resize": "square", "stored_size": SIDE, "image_size": 8, "tier": "cached", "cache": "", "workers": 2}
    crops = {"train_crop": {"name": "random_crop"}, "eval_crop": {"name": "center_crop"}}
    return ConfigDict({**base, **crops, "broken": "raise", "batch": BATCH, **fields})


@functools.cache
def sharding():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))


def place(array):
    return jax.device_put(array, sharding())


def split(files=FILES, **fields):
    return pipeline.decode_split(records(files), settings(**fields), place)


def some(batches, n):
    return [{name: np.asarray(value) for name, value in batch.items()} for batch in itertools.islice(batches, n)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
            assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (10, 10), (3, 8), (1, 5), (7, 3)])
def test_every_epoch_holds_every_row_once(n, batch):
    rows, epochs = (
        np.concatenate(part) for part in zip(*(pipeline.train_rows(5, n, batch, s) for s in range(3 * n)), strict=True)
    )
    assert rows.dtype == epochs.dtype == np.int32
    np.testing.assert_array_equal(epochs, np.arange(len(rows)) // n)  # batches straddle epochs, nothing is dropped
    for epoch in range(3 * batch):
        assert sorted(rows[epochs == epoch]) == list(range(n))


def test_order_changes_with_seed_and_epoch():
    orders = {tuple(pipeline.permutation(seed, epoch, 20)) for seed in (0, 1, -1) for epoch in range(3)}
    assert len(orders) == 9


def test_the_order_is_pinned():
    """A changed order would break exact resumption across versions; drawn when the function was written."""
    assert pipeline.permutation(3, 1, 8).tolist() == [7, 3, 5, 6, 4, 0, 2, 1]


@pytest.mark.parametrize("resize", ["square", "shorter"])
def test_tiers_give_the_same_bytes_and_resume_anywhere(resize, tmp_path):
    ways = [{"tier": "cached"}, {"tier": "resident"}, {"tier": "stream"}, {"tier": "cached", "cache": str(tmp_path)}]
    splits = [split(resize=resize, **way) for way in ways]
    expected = some(pipeline.train_batches(splits[0], batch=BATCH, seed=3), 6)
    evaluated = some(pipeline.eval_batches(splits[0], batch=4), 99)
    assert expected[1]["epoch"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    for one in splits:
        assert_same(some(pipeline.train_batches(one, batch=BATCH, seed=3), 6), expected)
        assert_same(some(pipeline.train_batches(one, batch=BATCH, seed=3, start_step=4), 2), expected[4:])
        assert_same(some(pipeline.eval_batches(one, batch=4), 99), evaluated)
    for batch in expected:
        for stored, size, index in zip(batch["stored"], batch["size"], batch["index"], strict=True):
            image, true = decode(FILES[index], resize=resize, stored_size=SIDE)
            np.testing.assert_array_equal(stored, image)
            assert tuple(size) == true


@pytest.mark.parametrize("tier", ["resident", "cached", "stream"])
def test_arrays_lie_as_place_lays_them(tier):
    batch = next(pipeline.train_batches(split(tier=tier), batch=BATCH, seed=0))
    assert {name: value.sharding.spec for name, value in batch.items()} == dict.fromkeys(
        ("stored", "size", "index", "epoch"), jax.sharding.PartitionSpec("data")
    )
    assert [batch[name].dtype for name in ("stored", "size", "index", "epoch")] == [
        np.uint8,
        np.int32,
        np.int32,
        np.int32,
    ]


def test_one_device_without_a_mesh():
    one = pipeline.decode_split(records(), settings(tier="resident"), jax.numpy.asarray)
    assert_same(some(pipeline.eval_batches(one, batch=4), 9), some(pipeline.eval_batches(split(), batch=4), 9))


@pytest.mark.parametrize("batch", [4, 8, 12])
def test_evaluation_sees_every_row_once(batch):
    batches = some(pipeline.eval_batches(split(), batch=batch), 99)
    assert all(len(b["stored"]) == batch for b in batches)
    assert np.concatenate([b["index"][b["valid"]] for b in batches]).tolist() == list(range(N))
    assert not np.any(np.concatenate([b["index"][~b["valid"]] for b in batches]))  # filled up with row 0


def test_cache_is_reused_and_follows_what_it_holds(tmp_path, monkeypatch):
    reads = []
    counted = sources.Records(
        records().paths, records().targets, lambda row: reads.append(row) or FILES[row], {}, "x", "1"
    )
    run = lambda given=counted, **fields: pipeline.decode_split(given, settings(cache=str(tmp_path), **fields), place)  # noqa: E731
    first = run()
    assert len(reads) == N and isinstance(first.images, np.memmap)
    assert_same(some(pipeline.eval_batches(run(), batch=4), 9), some(pipeline.eval_batches(first, batch=4), 9))
    assert len(reads) == N
    run(stored_size=SIDE + 1)
    run(sources.dataclasses.replace(counted, stamp="2"))
    run(counted.take(range(5)))
    assert len(reads) == N + N + N + 5
    assert len(list(tmp_path.iterdir())) == 4  # one folder each, no parts left over


def test_a_killed_or_failed_fill_leaves_no_cache(tmp_path):
    class Killed(BaseException):
        pass

    def read(row):
        if row == 7:
            raise Killed
        return FILES[row]

    dying = sources.Records(records().paths, records().targets, read, {}, "x", "1")
    with pytest.raises(Killed):
        pipeline.decode_split(dying, settings(cache=str(tmp_path)), place)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot be decoded"):
        split([b"", *FILES[1:]], cache=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


BROKEN = [FILES[0], b"no image", FILES[2], FILES[3][:200], *FILES[4:]]


@pytest.mark.parametrize("tier", ["resident", "cached", "stream", "cache"])
def test_broken_images_are_left_out_when_told(tier, tmp_path, caplog):
    fields = {"tier": "cached", "cache": str(tmp_path)} if tier == "cache" else {"tier": tier}
    for _ in range(2):  # the second time from the cache
        found = split(BROKEN, broken="skip", **fields)
        assert [(row, path) for row, path, _ in found.skipped] == [(1, "1.png"), (3, "3.png")]
        assert found.records.paths == tuple(f"{row}.png" for row in (0, 2, 4, 5, 6, 7, 8, 9))
        batches = some(pipeline.eval_batches(found, batch=4), 9)
        np.testing.assert_array_equal(batches[0]["stored"][1], decode(FILES[2], resize="square", stored_size=SIDE)[0])
        np.testing.assert_array_equal(batches[1]["stored"][3], decode(FILES[9], resize="square", stored_size=SIDE)[0])
        order = np.concatenate([b["index"] for b in some(pipeline.train_batches(found, batch=4, seed=0), 2)])
        assert sorted(order) == list(range(8))


@pytest.mark.parametrize("tier", ["resident", "cached"])
def test_broken_images_are_all_reported(tier):
    with pytest.raises(ValueError) as error:
        split(BROKEN, tier=tier)
    text = str(error.value)
    assert "made train: 2 of 10 images cannot be decoded" in text
    assert "row 1, 1.png: no image in a known format (JPEG, PNG" in text and "row 3, 3.png: OSError: " in text


def test_broken_image_stops_the_stream_when_it_comes():
    batches = pipeline.eval_batches(split(BROKEN, tier="stream"), batch=4)
    with pytest.raises(ValueError, match="row 1, 1.png: no image in a known format"):
        next(batches)


def test_nothing_but_broken_images():
    with pytest.raises(ValueError, match="2 of 2 images cannot be decoded"):
        split([b"", b""], broken="skip")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tier": "ram"}, r"config.data.tier is 'ram'; it is one of \('auto', 'resident'"),
        ({"broken": "ignore"}, "config.data.broken is 'ignore'"),
        ({"resize": "longer"}, "config.data.resize is 'longer'"),
        ({"workers": 0}, "config.data.workers is 0"),
        (
            {"image_size": 16},
            r"stored_size is 12, smaller than image_size 16, but \['center_crop', 'random_crop'\] cut",
        ),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        split(**fields)


def test_empty_split():
    with pytest.raises(ValueError, match="made train has no images"):
        split([])


@pytest.mark.parametrize(
    ("host", "device", "tier"),
    [
        (1e12, (1e12, 1e12), "resident"),
        (1e12, (4319 * 4, 1e12), "cached"),  # a split of 4,320 bytes gets a quarter of the device at most
        (1e12, (1e12, 4319 * 2), "cached"),  # and half of what is free
        (4319 * 2, (1e12, 1e12), "stream"),  # half of the host
    ],
)
def test_auto_chooses_by_size(monkeypatch, host, device, tier):
    monkeypatch.setattr(pipeline, "host_memory", lambda: host)
    monkeypatch.setattr(pipeline, "device_memory", lambda: device)
    monkeypatch.setattr(pipeline.jax, "default_backend", lambda: "gpu")
    assert 10 * SIDE * SIDE * 3 == 4320
    assert split(tier="auto").tier == tier
    monkeypatch.setattr(pipeline.jax, "default_backend", lambda: "cpu")
    assert split(tier="auto").tier == {"resident": "cached"}.get(tier, tier)


@pytest.mark.parametrize(
    ("tier", "host", "device", "message"),
    [
        ("cached", 4319, 1e12, "takes 4,320 bytes decoded, but host memory has 4,319"),
        ("resident", 4319, 1e12, "takes 4,320 bytes decoded, but host memory has 4,319"),
        ("resident", 1e12, 4319, "takes 4,320 bytes decoded, but the device has 4,319"),
    ],
)
def test_a_forced_tier_that_does_not_fit(monkeypatch, tier, host, device, message):
    monkeypatch.setattr(pipeline, "host_memory", lambda: host)
    monkeypatch.setattr(pipeline, "device_memory", lambda: (1e12, device))
    with pytest.raises(ValueError, match=message):
        split(tier=tier)


def test_memory_is_measured():
    assert 2**28 < pipeline.host_memory() < 2**45
    assert pipeline.device_memory()[0] >= pipeline.device_memory()[1] > 0


def test_decoding_equals_pillow():
    photo = noise(37, 50)
    stored, size = decode(encoded(photo), resize="square", stored_size=16)
    np.testing.assert_array_equal(stored, np.asarray(photo.resize((16, 16), Image.Resampling.BICUBIC)))
    assert size == (16, 16)
    stored, size = decode(encoded(photo), resize="shorter", stored_size=16)
    assert stored.shape == (32, 32, 3) and size == (21, 16)  # int(16 * 50 / 37), as torchvision
    np.testing.assert_array_equal(stored[:21, :16], np.asarray(photo.resize((16, 21), Image.Resampling.BICUBIC)))
    assert not stored[21:].any() and not stored[:, 16:].any()


def test_long_images_keep_their_centre():
    ramp = Image.fromarray(np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 10, 0).repeat(3, 2))
    stored, size = decode(encoded(ramp), resize="shorter", stored_size=10)
    assert size == (10, 20)
    np.testing.assert_array_equal(stored[:10, :, 0], np.tile(np.arange(40, 60), (10, 1)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats(form):
    image = Image.new("RGB", (8, 8), (200, 30, 30))
    stored, _ = decode(encoded(image, form), resize="square", stored_size=8)
    assert np.abs(stored.astype(int) - (200, 30, 30)).max() <= 3


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (Image.new("L", (4, 4), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (9, 8, 7, 0)), "PNG", (9, 8, 7)),
        (Image.new("LA", (4, 4), (9, 100)), "PNG", (9, 9, 9)),
        (Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF", (0, 255, 255)),
        (Image.new("P", (4, 4), 0), "GIF", (0, 0, 0)),
        (Image.fromarray(np.full((4, 4), 257 * 200, np.uint16)), "PNG", (200, 200, 200)),
        (Image.fromarray(np.full((4, 4), 257 * 200, np.int32)), "TIFF", (200, 200, 200)),
    ],
    ids=["grey", "bits", "alpha", "grey-alpha", "cmyk", "palette", "16-bit", "32-bit"],
)
def test_modes_become_rgb(image, form, expected):
    stored, _ = decode(encoded(image, form), resize="square", stored_size=4)
    assert stored.dtype == np.uint8 and stored.shape == (4, 4, 3)
    np.testing.assert_array_equal(stored[0, 0], expected)


def test_orientation_tag_is_applied():
    image = Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8))  # black left of white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise to view"
    stored, _ = decode(encoded(image.resize((16, 8), 0), exif=exif), resize="square", stored_size=8)
    assert stored[0].mean() == 0 and stored[7].mean() == 255


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no image in a known format .* 0 bytes"),
        (b"%PDF-1.4", "no image in a known format"),
        (encoded(noise(40, 40))[:300], "OSError|SyntaxError"),
        (encoded(noise(40, 40), "JPEG")[:300], "OSError: "),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating point numbers of unknown range"),
        (encoded(noise(8, 8), "ICO"), "no image in a known format"),
    ],
    ids=["empty", "pdf", "cut-png", "cut-jpeg", "float", "other-format"],
)
def test_bytes_that_are_no_image(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data, resize="square", stored_size=8)


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(ValueError, match="10 x 10 pixels, more than the limit of 99"):
        decode(encoded(noise(10, 10)), resize="square", stored_size=8)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    decode(encoded(noise(10, 10)), resize="square", stored_size=8)


def test_cache_holds_plain_files(tmp_path):
    split(BROKEN, broken="skip", cache=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["broken.json", "images.npy", "sizes.npy"]
    assert sorted(json.loads((folder / "broken.json").read_text())) == ["1", "3"]
