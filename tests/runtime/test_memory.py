"""Out of memory, wherever it happens, ends in one message with sizes and ways out."""

import jax
import numpy as np
import pytest

from jaxord import evaluate, train
from jaxord.data import storage
from jaxord.data.records import Records
from jaxord.runtime import devices, memory
from tests.data.test_batches import FILES, place, settings
from tests.kinds import MESHES, config, small_towers

FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123456789 bytes."


class Full:
    """A jitted function that finds no room."""

    def __init__(self, jitted, error=FULL):
        self.lower, self.error = jitted.lower, error

    def __call__(self, *arguments):
        raise jax.errors.JaxRuntimeError(self.error)


@pytest.mark.parametrize(
    "module, make, doing",
    [
        (train, "make_train_step", "a training step with data.batch=16"),
        (evaluate, "make_forward", "an evaluation with data.eval_batch=16"),
    ],
)
def test_a_run_says_how_much_and_what_to_do(photos, tmp_path, monkeypatch, module, make, doing):
    real = getattr(module, make)
    monkeypatch.setattr(module, make, lambda *arguments, **fields: Full(real(*arguments, **fields)))
    monkeypatch.setattr(devices, "data_mesh", lambda: MESHES[1])
    with small_towers(), pytest.raises(ValueError) as error:
        train.run(
            config(
                "folder", "method=l1,backbone=tiny", photos, **{"train.evaluate_every": "1 steps"}
            ),
            tmp_path,
        )
    title, size, found, ways, *three = str(error.value).split("\n  ")
    assert (
        title == f"out of memory in {doing}" and found == f"found: {FULL}" and ways == "ways out:"
    )
    assert int(size.partition("about ")[2].split()[0].replace(",", "")) > 1e5
    assert len(three) == 3 and all("--config." in way for way in three)


def test_images_that_find_no_room_on_the_device():
    records = Records(tuple("abc"), np.zeros(3, np.float32), lambda row: FILES[row], {}, "three")

    def full(array):
        if array.size:
            raise jax.errors.JaxRuntimeError(FULL)
        return place(array)

    with pytest.raises(
        ValueError, match=r"placing images with data.stored_size=12\n  1,296 bytes\n"
    ):
        storage.decode_split(records, settings(tier="resident"), full)


def test_other_errors_stay_what_they_are():
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        memory.explained("a training step", "", str),
    ):
        Full(jax.jit(abs), "INTERNAL: a fault of another kind")()
