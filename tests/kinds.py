"""One small data set of each kind, and towers of one layer.

A function (folder, method) of each kind makes its files in the folder and returns the config of a
run. A step of real towers takes four times as long to compile.
"""

import contextlib
import importlib

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image

from jaxord.data import video
from jaxord.models import clip, resnet
from jaxord.runtime import devices

MESHES = {n: devices.data_mesh(jax.devices()[:n]) for n in (1, 8)}


class Flat(nn.Module):
    """In place of the image tower."""

    config: clip.ClipSettings
    dtype: object
    remat: bool = False
    attention: str = "xla"

    @nn.compact
    def __call__(self, image):
        return nn.tanh(nn.Dense(self.config.vision.width)(image.reshape(image.shape[0], -1)))


class Words(nn.Module):
    """In place of the text tower: the mean of the words through one layer."""

    config: clip.ClipSettings
    dtype: object
    remat: bool = False
    attention: str = "xla"

    def setup(self):
        width = self.config.text.width
        self.embeddings, self.layer = nn.Embed(self.config.vocab_size, width), nn.Dense(width)

    def embed(self, tokens):
        return self.embeddings(tokens)

    def __call__(self, embeddings, end):
        return nn.tanh(self.layer(embeddings.mean(1)))


@contextlib.contextmanager
def compiled_fast():
    """Compiles without optimising, as a test takes few steps, and caches all over 0.1 seconds."""
    settings = {
        "jax_disable_most_optimizations": (True, False),
        "jax_persistent_cache_min_compile_time_secs": (0.1, 0.5),
    }
    for name, (now, _) in settings.items():
        jax.config.update(name, now)
    yield
    for name, (_, before) in settings.items():
        jax.config.update(name, before)


@contextlib.contextmanager
def small_towers():
    """Patches in one-layer towers, the smallest ResNet, no network for motion; compiles fast."""
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(clip, "VisionModel", Flat)
        patch.setattr(clip, "TextModel", Words)
        patch.setitem(resnet.DEPTHS, 18, ((1,), (3, 3)))
        patch.setattr(video, "fast_motion", lambda weights: brightness)
        yield


def brightness(clips):
    return np.broadcast_to(
        clips.mean((1, 2, 3, 4))[:, None, None, None, None] / 255, (len(clips), 4, 1, 1, 256)
    )


def paint(path, share, shape=(36, 48)):
    """Writes a picture whose brightness is the label, as a share of the scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(round(1e4 * share)).normal(0, 10, (*shape, 3))
    Image.fromarray(np.clip(30 + 190 * share + noise, 0, 255).astype(np.uint8)).save(path)


def config(name, argument, root, rate=0.02, **fields):
    """A config of nine steps by momentum: Adam's first step would lose the size of gradients."""
    c = importlib.import_module(f"configs.{name}").get_config(argument).unlock()
    c.data.root, c.data.batch, c.data.eval_batch, c.data.image_size, c.data.stored_size = (
        str(root),
        16,
        16,
        16,
        20,
    )
    c.train.update(
        {
            "duration": "9 steps",
            "evaluate_every": "4 steps",
            "checkpoint_every": "3 steps",
            "log_every": "1 steps",
        }
    )
    c.optim.update({"name": "sgd", "clip": 1.0, "schedule": "constant", "warmup": "0 steps"})
    c.update_from_flattened_dict(fields)
    c.optim.rates = at(rate, c.optim.rates)
    kept = (
        "optim.groups",
        "optim.rates",
        "fresh",
        "heads",
        "losses",
        "rules",
        "select",
        "train.share",
        "train.statistics",
        "data.copies",
        "weights.scheme",
    )
    for stage in c.stages:
        stage.set = tuple(entry for entry in stage.set if entry.field in kept)
        for entry in stage.set:
            if entry.field == "optim.rates":
                entry.value = at(rate, entry.value)
    return c.lock()


def at(rate, groups):
    """Rates of the groups; the noise, whose square is the unit of balanced MSE, changes little."""
    rates = {
        group: {"lr": 1e-3 if group == "noise" else rate, "weight_decay": 0.0} for group in groups
    }
    return ConfigDict(rates, type_safe=False)


def photographs(root, method="conord"):
    """KonIQ: three crops of each, k-NN, reference points."""
    lines = [f"{i}.png,{20 + 1.5 * i}" for i in range(40)]
    for i in range(40):
        paint(root / f"images/{i}.png", i / 40)
    (root / "koniq10k_distributions_sets.csv").write_text(
        "\n".join(["image_name,MOS", *lines]) + "\n"
    )
    return config(
        "koniq", f"method={method},fold=0,backbone=tiny", root, **{"data.stored_size": 32}
    )  # can be damaged


def faces(root, method="fds"):
    """AgeDB: rare ages; the statistics of batch normalisation and of feature smoothing."""
    ages = [30] * 16 + [31] * 12 + [35] * 8 + [60] * 3 + [75]
    lines = []
    for split, count in (("train", 40), ("val", 8), ("test", 8)):
        for i in range(count):
            age = ages[i * 40 // count]
            paint(root / f"{split}/{i}.png", (age + i / 40) / 100)
            lines.append(f"{age},{split}/{i}.png,{split}")
    (root / "agedb.csv").write_text("\n".join(["age,path,split", *lines]) + "\n")
    return config(
        "agedb", f"method={method},backbone=ResNet-18", root, **{"shots.many": 10, "shots.few": 4}
    )


def gazes(root, method="conord"):
    """MPIIFaceGaze: two angles."""
    lines = []
    for person in range(15):
        for i in range(4):
            share, name = (4 * person + i) / 60, f"p{person:02d}"
            paint(root / f"{name}/{i}.png", share)
            angles = f"{0.6 * share - 0.3:.4f},{0.3 - 0.4 * share:.4f}"
            lines.append(f"{name}/{i}.png,{angles},{name}")
    (root / "gaze.csv").write_text("\n".join(["path,pitch,yaw,participant", *lines]) + "\n")
    return config("mpiifacegaze", f"method={method},fold=0", root)


def films(root, method="conord"):
    """KoNViD: frames, and motion from a stand-in for the pathway."""
    pytest.importorskip("av")
    from tests.data.test_videos import film

    for i in range(20):
        film(root / f"videos/{i}.mp4", 4, first=2 * i)
    (root / "KoNViD_1k_mos.csv").write_text(
        "flickr_id,mos\n" + "".join(f"{i},{1 + i / 5}\n" for i in range(20))
    )
    c = config("konvid", f"method={method},fold=0,backbone=tiny", root).unlock()
    c.data.reader.extract.update(
        {"frames": 2, "clips": 2, "clip_frames": 4, "clip_size": 32, "motion_weights": "random"}
    )
    c.heads[0].blocks, c.rules[0].k = 1, 4
    return c.lock()


def sentences(root, method="group_dir"):
    """STS-B: batches by length, dropout, experts of groups; the words alone tell the label, as few
    steps could not more."""
    words = "a man cat dog runs sits eats sleeps here there".split()
    draw = np.random.default_rng(0)
    for split, count in (("train", 48), ("dev", 12), ("test", 12)):
        lines = ["sentence1\tsentence2\tscore"]
        for i in range(count):
            same = i % 2
            one = [words[k + 5 * same] for k in draw.integers(0, 5, 3 + i // 2 % 2)]
            other = one if same else [words[k] for k in draw.integers(0, 5, 3 + i // 2 % 2)]
            lines.append(f"{' '.join(one)}\t{' '.join(other)}\t{4.5 if same else 0.5}")
        (root / f"{split}_new.tsv").write_text("\n".join(lines) + "\n")
    tower = {"model.sentence.hidden": 4, "model.sentence.layers": 1, "model.vector_size": 8}
    return config(
        "stsb", f"method={method},size=small", root, rate=0.1, **tower, **{"data.bucket": 2}
    )


KINDS = {
    "photographs": photographs,
    "faces": faces,
    "gazes": gazes,
    "films": films,
    "sentences": sentences,
}
