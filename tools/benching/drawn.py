"""Drawn data: images, features and arrays in place of a data set's."""

import io
from unittest import mock

import numpy as np
from PIL import Image

from jaxord.data import readers
from jaxord.data.records import Records
from jaxord.task import make_task

DISTINCT = 16  # synthetic images; more would repeat them, and content does not change the speed


def task_of(config, fold, records, start=None):
    """`make_task` on these {split: Records} in place of the config's data set."""
    with mock.patch.object(readers, "load", lambda *_: records):
        return make_task(config, fold, start)


def photographs(root):
    """Writes four ranks of twelve noisy images each, a folder per rank; returns the root."""
    for rank in range(4):
        (root / str(rank)).mkdir(parents=True)
        for i in range(12):
            noise = np.random.default_rng(100 * rank + i).normal(50 + 50 * rank, 20, (48, 48, 3))
            pixels = np.clip(noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(rank) / f"{i}.png")
    return root


def images(config, count):
    """Smooth random JPEG images with labels that go through all ranks: {split: Records}."""
    kind, side = config.data.reader["name"].partition(".")[0], config.data.stored_size
    if kind in ("sentences", "videos", "gaze"):
        takes = "--synthetic makes single images with one number each"
        raise ValueError(f"{takes}; the reader of {config.name} is of {kind}")
    labels, groups = config.ranks.labels or config.ranks.edges, config.groups
    if not labels:
        labels = np.arange(groups.low, groups.high) if groups.high > groups.low else np.arange(10)
    generator, contents = np.random.default_rng(0), []
    for _ in range(min(count, DISTINCT)):
        small = generator.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        image.save(file := io.BytesIO(), "JPEG", quality=90)
        contents.append(file.getvalue())
    records = Records(
        paths=tuple(f"{row}.jpg" for row in range(count)),
        targets=np.resize(np.asarray(labels, np.float32), count),
        read=lambda row: contents[row % len(contents)],
        columns={},
        name=f"{count} synthetic images",
    )
    return {"train": records, "test": records}


def features(count, width):
    """Normal features with labels that are a noisy linear function of them: {split: Records}."""
    draw = np.random.default_rng(0)
    rows = draw.normal(0, 1, (count, width)).astype(np.float32)
    targets = rows @ draw.normal(0, width**-0.5, width) + draw.normal(0, 0.1, count)
    targets = targets.astype(np.float32)
    middle = count - count // 5

    def part(name, a, b):
        paths, inputs = tuple(map(str, range(a, b))), {"image_features": rows[a:b]}
        return Records(paths, targets[a:b], None, {}, f"drawn {name}", inputs=inputs)

    return {"train": part("train", 0, middle), "test": part("test", middle, count)}


def loss_arrays(size, width, ranks, seed=0):
    """Every array that a contrastive loss names, as numpy arrays."""
    draw = np.random.default_rng(seed)

    def normal(*shape):
        return draw.standard_normal(shape, dtype=np.float32)

    rank = draw.integers(0, ranks, size, dtype=np.int32)
    return {
        "image_embeds": normal(size, width),
        "text_embeds": normal(ranks, width),
        "logits": 3 * normal(size, ranks),
        "rank": rank,
        "target": rank.astype(np.float32),
        "group": rank // 5,
        "rank_values": np.arange(ranks, dtype=np.float32),
        "reference": rank,
        "reference_points": normal(ranks, width),
        "margins": np.full(ranks - 1, 0.1, np.float32),
    }
