"""Decoding, the tiers, copies and other inputs, and what can go wrong in them."""

import dataclasses
import functools
import io
import itertools
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxord.data import decode, sampling, storage
from jaxord.data.batches import eval_batches, outputs, train_batches
from jaxord.data.decode import decode_image
from jaxord.data.readers import faces
from jaxord.data.records import Records, concatenate
from jaxord.data.tables import read_table

N, BATCH, SIDE = 10, 8, 12
RNG = np.random.default_rng(0)


def encoded(image, form="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def noise(w, h, mode="RGB"):
    channels = {"RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,), "L": ()}[mode]
    return Image.fromarray(
        RNG.integers(0, 256, (h, w, *channels), np.uint8), mode if mode == "CMYK" else None
    )


FILES = [encoded(noise(20 + 3 * row, 30 - 2 * row)) for row in range(N)]


def records(files=FILES):
    paths = tuple(f"{row}.png" for row in range(len(files)))
    return Records(
        paths,
        np.arange(len(files), dtype=np.float32),
        lambda row: files[row],
        {},
        "made train",
        "1",
    )


def settings(**fields):
    base = {
        "resize": "square",
        "stored_size": SIDE,
        "image_size": 8,
        "tier": "cached",
        "cache": "",
        "workers": 2,
    }
    crops = {"train_crop": {"name": "random_crop"}, "eval_crop": {"name": "center_crop"}}
    others = {
        "copies": 1,
        "bucket": 0,
        "corruption": {"name": "", "severity": 0},
        "broken": "raise",
        "broken_share": 0.2,
    }
    return ConfigDict({**base, **crops, "batch": BATCH, **others, **fields})


@functools.cache
def sharding():
    mesh = jax.make_mesh(
        (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4]
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))


def place(array):
    return jax.device_put(array, sharding())


def split(files=FILES, **fields):
    return storage.decode_split(records(files), settings(**fields), place)


def some(batches, n):
    return [
        {name: np.asarray(value) for name, value in batch.items()}
        for batch in itertools.islice(batches, n)
    ]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
            assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize("resize", ["square", "shorter"])
def test_tiers_give_the_same_bytes_and_resume_anywhere(resize, tmp_path):
    ways = [
        {"tier": "cached"},
        {"tier": "resident"},
        {"tier": "stream"},
        {"tier": "cached", "cache": str(tmp_path)},
    ]
    splits = [split(resize=resize, **way) for way in ways]
    expected = some(train_batches(splits[0], batch=BATCH, seed=3), 6)
    evaluated = some(eval_batches(splits[0], batch=4), 99)
    assert expected[1]["epoch"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    for one in splits:
        assert_same(some(train_batches(one, batch=BATCH, seed=3), 6), expected)
        assert_same(some(train_batches(one, batch=BATCH, seed=3, start_step=4), 2), expected[4:])
        assert_same(some(eval_batches(one, batch=4), 99), evaluated)
    for batch in expected:
        for stored, size, index in zip(batch["stored"], batch["size"], batch["index"], strict=True):
            image, true = decode_image(FILES[index], resize=resize, stored_size=SIDE)
            np.testing.assert_array_equal(stored, image)
            assert tuple(size) == true


def with_inputs(n=N, read=lambda row: FILES[row]):
    """Records with a padded input, whose row r has r % 5 + 1 valid steps of 12, and features in
    half precision."""
    lengths = np.arange(n) % 5 + 1
    mask = np.arange(12) < lengths[:, None]
    inputs = {
        "sentences": (np.arange(n)[:, None] + 100 * mask).astype(np.int32),
        "sentence_mask": mask,
        "motion": RNG.normal(size=(n, 2, 3)).astype(np.float16),
    }
    paths = tuple(f"{row}.png" for row in range(n))
    return Records(paths, np.arange(n, dtype=np.float32), read, {}, "made train", "1", inputs)


@pytest.mark.parametrize("tier", ["resident", "cached", "stream"])
def test_copies_are_the_same_image_seen_again(tier):
    counted = with_inputs(read=lambda row: FILES[row])
    both = storage.decode_split(counted, settings(tier=tier, copies=2), place)
    batches = some(train_batches(both, batch=BATCH, seed=3), 5)
    plain = some(train_batches(split(), batch=BATCH, seed=3), 5)
    for batch, once in zip(batches, plain, strict=True):
        for name in ("stored", "size", "index"):
            np.testing.assert_array_equal(batch[name], np.repeat(once[name], 2, axis=0))
        assert batch["epoch"][::2].tolist() == (2 * once["epoch"]).tolist()
        assert batch["epoch"][1::2].tolist() == (2 * once["epoch"] + 1).tolist()
        np.testing.assert_array_equal(batch["motion"], counted.inputs["motion"][batch["index"]])
    seen = {
        (row, time)
        for batch in batches
        for row, time in zip(batch["index"], batch["epoch"], strict=True)
    }
    assert len(seen) == 5 * 2 * BATCH  # no augmentation is drawn twice
    assert_same(some(train_batches(both, batch=BATCH, seed=3, start_step=3), 2), batches[3:])
    assert len(next(eval_batches(both, batch=4))["index"]) == 4
    if tier == "stream":  # prefetching decodes ahead, but a row only once for all its copies
        reads = []  # of this iterator alone: those above may still be reading ahead
        rows = [
            row for step in range(99) for row in sampling.train_rows(3, N, BATCH, step)[0].tolist()
        ]
        told = with_inputs(read=lambda row: reads.append(row) or FILES[row])
        one_thread = storage.decode_split(told, settings(tier=tier, workers=1, copies=2), place)
        some(train_batches(one_thread, batch=BATCH, seed=3), 2)
        assert reads == rows[: len(reads)]


def test_copies_of_a_row_lie_on_one_device():
    batch = next(train_batches(split(tier="resident", copies=2), batch=4, seed=0))
    for shard in batch["index"].addressable_shards:
        assert len(set(np.asarray(shard.data).tolist())) == 1


def test_records_without_images():
    found = storage.decode_split(
        with_inputs(read=None), settings(image_size=16), place
    )  # crops do not matter
    assert (found.tier, found.images, found.sizes, found.skipped) == ("inputs", None, None, ())
    inputs = found.records.inputs
    batches = some(train_batches(found, batch=BATCH, seed=3), 4)
    for batch in batches:
        assert sorted(batch) == ["epoch", "index", "motion", "sentence_mask", "sentences"]
        assert (
            batch["sentences"].shape == batch["sentence_mask"].shape == (BATCH, 8)
        )  # at most 5 steps of 12 are valid
        assert batch["motion"].dtype == np.float16 and batch["sentences"].dtype == np.int32
        for name, array in inputs.items():
            expected = array[batch["index"]]
            np.testing.assert_array_equal(
                batch[name], expected if name == "motion" else expected[:, :8]
            )
    assert_same(some(train_batches(found, batch=BATCH, seed=3, start_step=2), 2), batches[2:])
    evaluated = some(eval_batches(found, batch=4), 9)
    shortest_first = sorted(range(N), key=lambda row: row % 5)
    assert np.concatenate([b["index"][b["valid"]] for b in evaluated]).tolist() == shortest_first
    assert outputs(found, dict, batch=4)["index"].tolist() == list(range(N))
    assert next(train_batches(found, batch=BATCH, seed=0))["motion"].sharding == sharding()


def test_inputs_follow_the_images_that_are_left():
    broken = dataclasses.replace(with_inputs(), read=lambda row: BROKEN[row])
    found = storage.decode_split(broken, settings(broken="skip"), place)
    left = outputs(found, dict, batch=8)["sentences"][:8]
    np.testing.assert_array_equal(left[:, 11 - 4] % 100, [0, 2, 4, 5, 6, 7, 8, 9])


def test_batches_of_like_length():
    found = storage.decode_split(with_inputs(n=24, read=None), settings(bucket=3), place)
    batches = some(train_batches(found, batch=4, seed=1), 12)
    for first in range(0, 12, 3):  # each window holds what it holds unsorted
        plain = [sampling.train_rows(1, 24, 4, step) for step in range(first, first + 3)]
        rows = np.concatenate([batch["index"] for batch in batches[first : first + 3]])
        assert sorted(rows) == sorted(np.concatenate([rows for rows, _ in plain]))
    assert_same(some(train_batches(found, batch=4, seed=1, start_step=7), 5), batches[7:])


def test_inputs_and_annotations_are_taken_and_joined(tmp_path):
    both = dataclasses.replace(
        with_inputs(4, read=None),
        annotations=np.array([[1, np.nan], [2, 3], [4, np.nan], [5, 6]], np.float32),
        vocabulary=("a",),
    )
    part = both.take([2, 0])
    assert (part.read, part.vocabulary) == (None, ("a",))
    np.testing.assert_array_equal(part.inputs["motion"], both.inputs["motion"][[2, 0]])
    plain = dataclasses.replace(both, annotations=None)
    wide = dataclasses.replace(part, annotations=np.ones((2, 3), np.float32))
    joined = concatenate([both, plain, wide])
    assert joined.read is None and joined.vocabulary == ("a",) and len(joined) == 10
    np.testing.assert_array_equal(joined.inputs["motion"][8:], part.inputs["motion"])
    nan = np.nan
    expected = [
        [1, nan, nan],
        [2, 3, nan],
        [4, nan, nan],
        [5, 6, nan],
        *([k, nan, nan] for k in range(4)),
        *[[1] * 3] * 2,
    ]
    np.testing.assert_array_equal(joined.annotations, np.array(expected, np.float32))
    assert joined.annotations.dtype == np.float32
    assert concatenate([plain, plain]).annotations is None
    np.save(tmp_path / "motion.npy", both.inputs["motion"])
    stored = dataclasses.replace(
        plain, inputs={"motion": np.load(tmp_path / "motion.npy", mmap_mode="r")}
    )
    consecutive = stored.take([1, 2]).inputs["motion"]
    assert np.shares_memory(consecutive, stored.inputs["motion"])  # nothing is read
    np.testing.assert_array_equal(consecutive, both.inputs["motion"][1:3])


def test_lists_with_several_labels(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abcd":
        (tmp_path / f"images/{name}.jpg").write_bytes(b"")
    (tmp_path / "ET_proto_train.txt").write_text("a.jpg 21 23 31\nb.jpg 41\n")
    (tmp_path / "ET_proto_val.txt").write_text("c.jpg 3 5\nd.jpg 7\n")
    splits = faces.morph(tmp_path, fold="", seed=0, setting="ordinalclip", label_offset=1)
    np.testing.assert_array_equal(splits["train"].annotations, [[20, 22, 30], [40, np.nan, np.nan]])
    assert splits["train"].annotations.dtype == np.float32
    assert splits["train"].targets.tolist() == [22, 40] and splits["test"].targets.tolist() == [
        4,
        6,
    ]
    assert splits["test"].annotations is None
    cut = faces.morph(tmp_path, fold="", seed=0, setting="ordinalclip", val_fraction=0.5)
    assert (len(cut["val"]), cut["val"].annotations, cut["train"].annotations.shape) == (
        1,
        None,
        (1, 3),
    )
    table = read_table(tmp_path / "ET_proto_val.txt", ("path", "age"))
    assert table.where([False, True]).annotations("age") is None  # one label each
    (tmp_path / "ET_proto_val.txt").write_text("c.jpg x 5\n")
    with pytest.raises(ValueError, match="line 1: age 'x 5' is not a number"):
        read_table(tmp_path / "ET_proto_val.txt", ("path", "age")).annotations("age")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"copies": 0}, "config.data.copies is 0; each row"),
        (
            {"bucket": 4},
            r"config.data.bucket is 4, and made train has the inputs \[\]; it is a number of",
        ),
    ],
)
def test_bad_copies_and_buckets(way, message):
    with pytest.raises(ValueError, match=message):
        next(train_batches(split(**way), batch=4, seed=0))


@pytest.mark.parametrize("tier", ["resident", "cached", "stream"])
def test_arrays_lie_as_place_lays_them(tier):
    batch = next(train_batches(split(tier=tier), batch=BATCH, seed=0))
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
    one = storage.decode_split(records(), settings(tier="resident"), jax.numpy.asarray)
    assert_same(some(eval_batches(one, batch=4), 9), some(eval_batches(split(), batch=4), 9))


@pytest.mark.parametrize("batch", [4, 8, 12])
def test_evaluation_sees_every_row_once(batch):
    batches = some(eval_batches(split(), batch=batch), 99)
    assert all(len(b["stored"]) == batch for b in batches)
    assert np.concatenate([b["index"][b["valid"]] for b in batches]).tolist() == list(range(N))
    assert not np.any(
        np.concatenate([b["index"][~b["valid"]] for b in batches])
    )  # filled up with row 0


def test_cache_is_reused_and_follows_what_it_holds(tmp_path, monkeypatch):
    reads = []
    counted = Records(
        records().paths,
        records().targets,
        lambda row: reads.append(row) or FILES[row],
        {},
        "x",
        "1",
    )

    def run(given=counted, **fields):
        return storage.decode_split(given, settings(cache=str(tmp_path), **fields), place)

    first = run()
    assert len(reads) == N and isinstance(first.images, np.memmap)
    assert_same(some(eval_batches(run(), batch=4), 9), some(eval_batches(first, batch=4), 9))
    assert len(reads) == N
    run(stored_size=SIDE + 1)
    run(dataclasses.replace(counted, stamp="2"))
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

    dying = Records(records().paths, records().targets, read, {}, "x", "1")
    with pytest.raises(Killed):
        storage.decode_split(dying, settings(cache=str(tmp_path)), place)
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
        batches = some(eval_batches(found, batch=4), 9)
        np.testing.assert_array_equal(
            batches[0]["stored"][1], decode_image(FILES[2], resize="square", stored_size=SIDE)[0]
        )
        np.testing.assert_array_equal(
            batches[1]["stored"][3], decode_image(FILES[9], resize="square", stored_size=SIDE)[0]
        )
        order = np.concatenate([b["index"] for b in some(train_batches(found, batch=4, seed=0), 2)])
        assert sorted(order) == list(range(8))


@pytest.mark.parametrize("tier", ["resident", "cached"])
def test_broken_images_are_all_reported(tier):
    with pytest.raises(ValueError) as error:
        split(BROKEN, tier=tier)
    text = str(error.value)
    assert "made train: 2 of 10 images cannot be decoded" in text
    assert (
        "row 1, 1.png: no image in a known format (JPEG, PNG" in text
        and "row 3, 3.png: OSError: " in text
    )


def test_broken_image_stops_the_stream_when_it_comes():
    batches = eval_batches(split(BROKEN, tier="stream"), batch=4)
    with pytest.raises(ValueError, match="row 1, 1.png: no image in a known format"):
        next(batches)


def test_nothing_but_broken_images():
    with pytest.raises(ValueError, match="2 of 2 images cannot be decoded"):
        split([b"", b""], broken="skip", broken_share=1.0)


@pytest.mark.parametrize("tier", ["cached", "stream"])
def test_more_broken_images_than_allowed_are_named(tier):
    with pytest.raises(
        ValueError,
        match=r"(?s)2 of 10 images.*up to config.data.broken_share.*row 1, 1.png: .*row 3, 3.png: ",
    ):
        split(BROKEN, tier=tier, broken="skip", broken_share=0.19)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tier": "ram"}, r"config.data.tier is 'ram'; it is one of \('auto', 'resident'"),
        ({"broken": "ignore"}, "config.data.broken is 'ignore'"),
        ({"resize": "longer"}, "config.data.resize is 'longer'"),
        ({"workers": 0}, "config.data.workers is 0"),
        (
            {"image_size": 16},
            r"stored_size is 12, smaller than image_size 16, but "
            r"\['center_crop', 'random_crop'\] cut",
        ),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        split(**fields)


def test_empty_split():
    with pytest.raises(ValueError, match="made train is empty"):
        split([])


@pytest.mark.parametrize(
    ("host", "device", "tier"),
    [
        (1e12, (1e12, 1e12), "resident"),
        (
            1e12,
            (4319 * 4, 1e12),
            "cached",
        ),  # a split of 4,320 bytes gets a quarter of the device at most
        (1e12, (1e12, 4319 * 2), "cached"),  # and half of what is free
        (4319 * 2, (1e12, 1e12), "stream"),  # half of the host
    ],
)
def test_auto_chooses_by_size(monkeypatch, host, device, tier):
    monkeypatch.setattr(storage, "host_memory", lambda: host)
    monkeypatch.setattr(storage, "device_memory", lambda: device)
    monkeypatch.setattr(storage.jax, "default_backend", lambda: "gpu")
    assert 10 * SIDE * SIDE * 3 == 4320
    assert split(tier="auto").tier == tier
    monkeypatch.setattr(storage.jax, "default_backend", lambda: "cpu")
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
    monkeypatch.setattr(storage, "host_memory", lambda: host)
    monkeypatch.setattr(storage, "device_memory", lambda: (1e12, device))
    with pytest.raises(ValueError, match=message):
        split(tier=tier)


def test_memory_is_measured():
    assert 2**28 < storage.host_memory() < 2**45
    assert storage.device_memory()[0] >= storage.device_memory()[1] > 0


def test_decoding_equals_pillow():
    photo = noise(37, 50)
    stored, size = decode_image(encoded(photo), resize="square", stored_size=16)
    np.testing.assert_array_equal(
        stored, np.asarray(photo.resize((16, 16), Image.Resampling.BICUBIC))
    )
    assert size == (16, 16)
    stored, size = decode_image(encoded(photo), resize="shorter", stored_size=16)
    assert stored.shape == (32, 32, 3) and size == (21, 16)  # int(16 * 50 / 37), as torchvision
    np.testing.assert_array_equal(
        stored[:21, :16], np.asarray(photo.resize((16, 21), Image.Resampling.BICUBIC))
    )
    assert not stored[21:].any() and not stored[:, 16:].any()


def test_long_images_keep_their_centre():
    ramp = Image.fromarray(
        np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 10, 0).repeat(3, 2)
    )
    stored, size = decode_image(encoded(ramp), resize="shorter", stored_size=10)
    assert size == (10, 20)
    np.testing.assert_array_equal(stored[:10, :, 0], np.tile(np.arange(40, 60), (10, 1)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats(form):
    image = Image.new("RGB", (8, 8), (200, 30, 30))
    stored, _ = decode_image(encoded(image, form), resize="square", stored_size=8)
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
    stored, _ = decode_image(encoded(image, form), resize="square", stored_size=4)
    assert stored.dtype == np.uint8 and stored.shape == (4, 4, 3)
    np.testing.assert_array_equal(stored[0, 0], expected)


def test_orientation_tag_is_applied():
    image = Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8))  # black left of white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise to view"
    stored, _ = decode_image(
        encoded(image.resize((16, 8), 0), exif=exif), resize="square", stored_size=8
    )
    assert stored[0].mean() == 0 and stored[7].mean() == 255


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"%PDF-1.4", "no image in a known format"),
        (encoded(noise(40, 40))[:300], "OSError|SyntaxError"),
        (encoded(noise(40, 40), "JPEG")[:300], "OSError: "),
        (
            encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
            "floating point numbers of unknown range",
        ),
        (encoded(noise(8, 8), "ICO"), "no image in a known format"),
    ],
    ids=["empty", "pdf", "cut-png", "cut-jpeg", "float", "other-format"],
)
def test_bytes_that_are_no_image(data, message):
    with pytest.raises(ValueError, match=message):
        decode_image(data, resize="square", stored_size=8)


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 99)
    with pytest.raises(ValueError, match="10 x 10 pixels, more than the limit of 99"):
        decode_image(encoded(noise(10, 10)), resize="square", stored_size=8)
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    decode_image(encoded(noise(10, 10)), resize="square", stored_size=8)


def test_cache_holds_plain_files(tmp_path):
    split(BROKEN, broken="skip", cache=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == [
        "broken.json",
        "images.npy",
        "sizes.npy",
    ]
    assert sorted(json.loads((folder / "broken.json").read_text())) == ["1", "3"]
