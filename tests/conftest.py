"""Eight CPU devices for every test, and one persistent cache of compiled functions for all of them and their processes."""

import os
import pathlib
import tempfile

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jaxord-test-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Four ranks of brightness, 24 images each, a folder a rank."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for rank in range(4):
        (root / str(rank)).mkdir()
        for i in range(24):
            pixels = np.clip(40 + 50 * rank + generator.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(rank) / f"image {i}.png")
    return root
