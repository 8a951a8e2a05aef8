"""Eight CPU devices for every test, and one persistent cache of compiled functions for all of them
and their processes."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

# Neither here nor in processes of a test: files that are written twice within a second would be
# read as they were before.
sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
FLAGS = "--xla_force_host_platform_device_count=8"
if importlib.metadata.version("jaxlib").startswith(
    "0.10."
):  # later ones do not know it, and end at once
    FLAGS += " --xla_cpu_use_fusion_emitters=false"  # compiles in two thirds of the time
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jaxord-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402  after the settings above

FIRST = (
    "hosts",
    "methods",
    "main",
    "stages",
    "train",
    "export",
    "pretrained",
    "devices",
    "programs",
    "configs",
    "population",
)


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that no process is left with one of them at the
    end."""
    order = {f"test_{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Four ranks of brightness, 24 images each, a folder a rank."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for rank in range(4):
        (root / str(rank)).mkdir()
        for i in range(24):
            pixels = np.clip(40 + 50 * rank + generator.normal(0, 20, (40, 40, 3)), 0, 255).astype(
                np.uint8
            )
            Image.fromarray(pixels).save(root / str(rank) / f"image {i}.png")
    return root


@pytest.fixture(scope="session")
def photographs():
    """Files of scikit-image's wheel, a list of one frame each: square, broad, and grey."""
    skimage = pytest.importorskip("skimage")
    root = skimage.__path__[0] + "/data/"
    return [[root + name] for name in ("astronaut.png", "coffee.png", "camera.png")]


@pytest.fixture(scope="module")
def lightly_compiled():
    """Compiles without most of XLA's optimisations: where steps are few, compiling counts for more
    than their speed."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def shallow():
    """The tiny variant with one block a tower, which compiles in a third of the time."""
    from jaxord.models import variants

    tiny = variants.VARIANTS["tiny"]
    towers = {
        side: dataclasses.replace(getattr(tiny, side), layers=1) for side in ("vision", "text")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.VARIANTS, "tiny", dataclasses.replace(tiny, **towers))
        yield


def write_vocabulary(path):
    """vocab.json and merges.txt in the order of CLIP's: 256 bytes, 256 bytes that end a word,
    merges, start and end."""
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    merges = [
        "p h",
        "ph o",
        "pho t",
        "phot o</w>",
        "o f</w>",
        "p e",
        "pe r",
        "s o",
        "so n</w>",
        "per son</w>",
    ]
    merges += ["' s</w>", ". .", ".. .</w>"]
    words = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return path
