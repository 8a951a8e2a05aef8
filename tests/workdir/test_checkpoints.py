"""Checkpoints are bit-exact and strict, and survive damaged files and kills; files; the lock."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from jaxord.runtime import devices
from jaxord.workdir import checkpoints, files
from jaxord.workdir.checkpoints import Checkpoints
from jaxord.workdir.files import replacing, write_json
from jaxord.workdir.layout import locked
from tools import mutate


@flax.struct.dataclass
class State:
    step: jax.Array
    trained: dict
    frozen: dict
    opt_state: optax.OptState


LABELS = {"tower/kernel": "a", "tower/bias": "a", "head/kernel": "b"}
OPTIMIZER = optax.partition(
    {"a": optax.adam(1e-3), "b": optax.chain(*[optax.trace(0.9)] * 12)}, LABELS
)


def make_state(seed=0, step=0):
    """Adam and momentum under a partition (NamedTuples in tuples, 12 of them: '10' sorts before
    '2'), bf16, ints."""
    draw = np.random.default_rng(seed)

    def new(*shape):
        return jnp.asarray(draw.normal(size=shape), jnp.float32)

    trained = {
        "tower/kernel": new(8, 4),
        "tower/bias": new(4).astype(jnp.bfloat16),
        "head/kernel": new(4, 2),
    }
    opt_state = jax.tree.map(lambda x: x + new(*x.shape).astype(x.dtype), OPTIMIZER.init(trained))
    frozen = {
        "text/ids": jnp.arange(6, dtype=jnp.int32),
        "text/nan": jnp.array([jnp.nan, -0.0, jnp.inf]),
    }
    return State(step=jnp.int32(step), trained=trained, frozen=frozen, opt_state=opt_state)


def abstract(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def write(folder, steps, scores=None):
    with Checkpoints(folder) as checkpoints:
        for i, step in enumerate(steps):
            checkpoints.save(step, make_state(step, step), dict(score=scores[i]) if scores else {})


def data_file(folder):
    """The largest file of a checkpoint's arrays."""
    return max(
        (p for p in (folder / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


@pytest.fixture
def warnings(monkeypatch):
    seen = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: seen.append(text % values))
    return seen


def test_round_trip_is_bit_exact(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, dict(epoch=1, score=0.5, note="ä"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3] and checkpoints.latest() == 3 and checkpoints.best() == 3
        assert checkpoints.meta(3) == dict(epoch=1, score=0.5, note="ä")
        for like in (
            state,
            abstract(state),
            abstract(state, devices.replicated(devices.data_mesh())),
        ):
            assert_same_bits(checkpoints.restore(3, like), state)


def test_arrays_come_back_where_and_as_asked(tmp_path):
    tree = dict(
        key=jax.random.key(7), host=np.arange(3), flags=np.array([True, False]), bias=jnp.ones(16)
    )
    split = devices.split(devices.data_mesh())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {})
        like = {**tree, "bias": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=split)}
        found = checkpoints.restore(1, like)
    assert isinstance(found["host"], np.ndarray) and found["host"].dtype == np.int64
    assert jnp.array_equal(jax.random.key_data(found["key"]), jax.random.key_data(tree["key"]))
    assert found["bias"].sharding == split
    np.testing.assert_array_equal(found["flags"], tree["flags"])


def test_donating_the_state_while_it_is_written_changes_nothing(tmp_path):
    state = {
        "w": jax.device_put(
            jnp.arange(1 << 20, dtype=jnp.float32), devices.replicated(devices.data_mesh())
        )
    }
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        for _ in range(3):
            state = step(state)
        assert float(checkpoints.restore(1, state)["w"][5]) == 5.0 and float(state["w"][5]) == 8.0


def test_every_difference_is_listed(tmp_path):
    write(tmp_path, [1])
    state = make_state()
    trained = dict(state.trained, extra=jnp.zeros(2), **{"tower/kernel": jnp.zeros((8, 5))})
    trained["tower/bias"] = trained["tower/bias"].astype(jnp.float32)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError) as error:
        checkpoints.restore(
            1, state.replace(trained=trained, frozen={"text/nan": state.frozen["text/nan"]})
        )
    assert str(error.value).splitlines()[1:] == [
        "  only in this run: trained/extra",
        "  only in the checkpoint: frozen/text/ids",
        "  trained/tower/bias: dtype bfloat16 in the checkpoint, float32 in this run",
        "  trained/tower/kernel: shape (8, 4) in the checkpoint, (8, 5) in this run",
    ]


def test_parts_leave_the_optimiser_unread(tmp_path):
    write(tmp_path, [1])
    state = make_state(1)
    like = dict(trained=state.trained, frozen=state.frozen)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same_bits(checkpoints.restore(1, like, parts=("trained", "frozen")), like)
        with pytest.raises(ValueError, match="only in the checkpoint: step"):
            checkpoints.restore(1, like)
        with pytest.raises(ValueError, match="only in this run: frozen/text/ids"):
            checkpoints.restore(1, like, parts=("trained",))
        with pytest.raises(ValueError, match="no checkpoint of step 2; it has .1."):
            checkpoints.restore(2, like)


def flip(folder):
    path = data_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder):
    os.truncate(data_file(folder), 10)


def remove(folder):
    data_file(folder).unlink()


def remove_sums(folder):
    (folder / "sha256.json").unlink()


def change_sums(folder):
    (folder / "sha256.json").write_text((folder / "sha256.json").read_text()[:-20])


def change_meta(folder):
    (folder / "checkpoint.json").write_text(
        (folder / "checkpoint.json").read_text().replace("0.2", "0.1")
    )


def forget_sum(folder):
    sums = json.loads((folder / "sha256.json").read_text())
    sums.pop(str(data_file(folder).relative_to(folder)))
    (folder / "sha256.json").write_text(json.dumps(sums))


def forget_sums(folder):
    (folder / "sha256.json").write_text("[]")


def add(folder):
    (folder / "arrays" / "more").write_text("")


@pytest.mark.parametrize(
    "damage",
    [flip, truncate, remove, remove_sums, change_sums, change_meta, forget_sum, forget_sums, add],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, warnings, damage):
    write(tmp_path, [1, 2], [0.3, 0.2])
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        assert (
            checkpoints.latest() == 1 and checkpoints.best() == 1 and checkpoints.steps() == [1, 2]
        )
        assert len(warnings) == 1 and str(tmp_path / "2") in warnings[0]
        assert_same_bits(checkpoints.restore(1, abstract(make_state())), make_state(1, 1))
        with pytest.raises(ValueError, match="is damaged"):
            checkpoints.restore(2, make_state())
        # Going on from 1 reaches 2 again; the damaged one is set aside, not in the way.
        checkpoints.save(2, make_state(5), dict(score=0.1))
        assert checkpoints.latest() == 2 and checkpoints.best() == 2
        assert_same_bits(checkpoints.restore(2, make_state()), make_state(5))
    assert (tmp_path / "2.damaged").is_dir()


def test_damage_that_keeps_the_size_is_seen_by_the_sum_alone(tmp_path):
    write(tmp_path, [1])
    size = data_file(tmp_path / "1").stat().st_size
    flip(tmp_path / "1")
    assert data_file(tmp_path / "1").stat().st_size == size
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=f"{size} bytes found, {size} written"),
    ):
        checkpoints.meta(1)


def test_every_file_broken_in_every_way_is_found(tmp_path, warnings):
    counts, silent = mutate.survey(tmp_path, mutate.each, warnings)
    assert not silent and {kind for kind, _ in counts} == set(mutate.KINDS)
    assert {result for _, result in counts} == {"found"}


@pytest.mark.long
def test_of_a_thousand_random_mutations_none_is_silent(tmp_path, warnings):
    counts, silent = mutate.survey(tmp_path, mutate.drawn(1000, seed=1), warnings)
    assert not silent and counts.total() > 950


def test_the_count_of_mutations_sees_a_silent_one(tmp_path, warnings, monkeypatch):
    # As if checkpoints had no sums.
    monkeypatch.setattr("jaxord.workdir.checkpoints._compare", lambda folder: [])
    _, silent = mutate.survey(
        tmp_path, lambda names: [("checkpoint.json", "swap", mutate.random.Random(0))], warnings
    )
    assert silent == ["swap checkpoint.json"]


def test_all_damaged_is_an_error_and_none_is_not(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert (
            checkpoints.latest() is None
            and checkpoints.best() is None
            and checkpoints.steps() == []
        )
    assert not (tmp_path / "none").exists()
    write(tmp_path, [1, 2])
    flip(tmp_path / "1"), remove_sums(tmp_path / "2")
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="are damaged; to start again") as error,
    ):
        checkpoints.latest()
    assert "1: arrays/" in str(error.value) and "2: sha256.json cannot be read" in str(error.value)


def test_the_last_two_and_the_best_are_kept(tmp_path):
    write(tmp_path, range(1, 7), [0.5, 0.2, float("nan"), 0.2, 0.4, 0.3])
    with Checkpoints(tmp_path) as checkpoints:
        assert (
            checkpoints.steps() == [2, 5, 6]
            and checkpoints.best() == 2
            and checkpoints.latest() == 6
        )
        checkpoints.save(7, make_state(), dict(score=0.1))
        checkpoints.save(8, make_state(), {})
        assert checkpoints.steps() == [7, 8] and checkpoints.best() == 7
    assert sorted(os.listdir(tmp_path)) == ["7", "8"]


def test_without_scores_there_is_no_best(tmp_path):
    write(tmp_path, [1, 2, 3])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 3] and checkpoints.best() is None


def test_what_was_not_judged_is_replaced_once_it_is(tmp_path):
    write(tmp_path, [4])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state(5, 5), dict(unjudged=True))
        assert checkpoints.latest() == 5 and checkpoints.best() is None
        for score in (0.2, 0.1):  # the second comes too late
            checkpoints.save(5, make_state(5, 5), dict(score=score))
        assert checkpoints.meta(5) == dict(score=0.2) and checkpoints.best() == 5
        assert_same_bits(checkpoints.restore(5, make_state()), make_state(5, 5))
    assert sorted(os.listdir(tmp_path)) == ["4", "5"]


def test_saving_a_step_twice_keeps_the_first_and_going_back_is_refused(tmp_path):
    write(tmp_path, [4, 5], [0.1, 0.2])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state(9), {})
        assert checkpoints.meta(5) == dict(score=0.2)
        for step in (3, 4):
            with pytest.raises(ValueError, match="holds the later steps"):
                checkpoints.save(step, make_state(), {})
        assert_same_bits(checkpoints.restore(5, make_state()), make_state(5, 5))


KILLED = """
import os, sys, jax.numpy as jnp
from jaxord.workdir.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(2, {"w": jnp.ones(3)}, {})
checkpoints._wait()
real = os.replace
def replace(a, b):  # dies where the checkpoint would begin to exist
    os.kill(os.getpid(), 9) if str(b).endswith("/3") else real(a, b)
os.replace = replace
checkpoints.save(3, {"w": jnp.zeros(3)}, {})
checkpoints._wait()
"""


def test_a_kill_while_saving_leaves_the_previous_one(tmp_path):
    assert (
        subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=os.getcwd()).returncode
        == -signal.SIGKILL
    )
    assert sorted(os.listdir(tmp_path)) == [".unfinished-3", "2"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 2
        checkpoints.save(3, {"w": jnp.zeros(3)}, {})
    assert sorted(os.listdir(tmp_path)) == ["2", "3"]


def test_a_failed_write_is_raised(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr("jaxord.workdir.checkpoints._digest", lambda path: 1 / 0)
    checkpoints.save(1, {"w": jnp.ones(2)}, {})
    with pytest.raises(ZeroDivisionError):
        checkpoints.close()


@contextlib.contextmanager
def files_of_at_most(size):
    """Refuses longer files, as a full disk refuses all; pytest needs some bytes for its output."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_room_for(name):
    """The disk is full when a file of this name is to be written."""
    real = files.write_json

    def refuse(path, obj):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, obj)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "write_json", refuse)
        yield


FULL = {
    "arrays": lambda: files_of_at_most(200_000),
    **{name: (lambda name=name: no_room_for(name)) for name in ("checkpoint.json", "sha256.json")},
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_leaves_the_previous_one_and_says_so(tmp_path, what):
    state = {"w": jax.random.normal(jax.random.key(0), (1 << 17,))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    checkpoints = Checkpoints(tmp_path)
    full = "(No space left|File too large)"
    expected = f"of step 2 could not be written, that of step 1 is whole(.|\n)*{full}"
    with FULL[what](), pytest.raises(ValueError, match=expected):
        checkpoints.save(2, state, {})
        checkpoints.close()
    checkpoints.close()
    assert os.listdir(tmp_path) == ["1"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
        assert_same_bits(checkpoints.restore(1, state), state)
        checkpoints.save(2, state, {})
        assert checkpoints.latest() == 2


def test_eight_devices_to_one_and_two(tmp_path):
    mesh = devices.data_mesh()
    assert mesh.size == 8
    state = make_state()
    rows = NamedSharding(mesh, PartitionSpec("data"))
    sharded = devices.put(state, devices.replicated(mesh))
    trained = {**sharded.trained, "tower/kernel": devices.put(state.trained["tower/kernel"], rows)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, sharded.replace(trained=trained), {})
        for count in (1, 2):
            target = devices.split(devices.data_mesh(jax.devices()[:count]))
            like = abstract(state, devices.replicated(devices.data_mesh(jax.devices()[:count])))
            kernel = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=target)
            like = like.replace(trained={**like.trained, "tower/kernel": kernel})
            found = checkpoints.restore(1, like)
            assert_same_bits(found, state)
            assert found.trained["tower/kernel"].sharding.device_set == set(jax.devices()[:count])


ONE_DEVICE = """
import sys, jax, jax.numpy as jnp, numpy as np
from jaxord.workdir.checkpoints import Checkpoints
assert len(jax.devices()) == 1
with Checkpoints(sys.argv[1]) as checkpoints:
    w = checkpoints.restore(1, {"w": jax.ShapeDtypeStruct((16,), jnp.float32)})["w"]
assert np.array_equal(w, np.arange(16)) and w.sharding.device_set == set(jax.devices())
"""


def test_a_machine_with_fewer_devices_reads_it(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        array = devices.put(np.arange(16, dtype=np.float32), devices.split(devices.data_mesh()))
        checkpoints.save(1, {"w": array}, {})
    subprocess.run(
        [sys.executable, "-c", ONE_DEVICE, tmp_path],
        check=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
    write_json(tmp_path / "a.json", dict(a=1))
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", dict(a=object()))
    assert json.loads((tmp_path / "a.json").read_text()) == dict(a=1) and os.listdir(tmp_path) == [
        "a.json"
    ]


def test_what_is_not_finite_is_null_in_json_and_nan_again_in_results(tmp_path):
    rows = {
        "value": {"mae": 1.5, "srcc": float("nan")},
        "constant": {"mae": float("inf"), "srcc": np.float64("nan")},
    }
    write_json(tmp_path / "results.json", {"test": rows})

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=refuse)["test"]["constant"] == {
        "mae": None,
        "srcc": None,
    }
    found = files.read_numbers(tmp_path / "results.json")["test"]
    assert (
        found["value"]["mae"] == 1.5
        and np.isnan([found["value"]["srcc"], *found["constant"].values()]).all()
    )


def test_a_file_that_was_half_written_leaves_the_old_one(tmp_path):
    (tmp_path / "a.csv").write_text("whole")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.csv") as file:
        file.write("ha")
        file.flush()
        raise KeyboardInterrupt
    assert (tmp_path / "a.csv").read_text() == "whole" and os.listdir(tmp_path) == ["a.csv"]


HOLDER = """
import sys, time
from jaxord.workdir.layout import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_workdir_is_held_by_one_process(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"in use by process {holder.pid} on"), locked(tmp_path):
        pass
    holder.kill(), holder.wait()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock-owner").read_text()
    with locked(tmp_path):
        pass
