"""Losses that are not finite: never applied, counted, and fatal for a run if they go on."""

import itertools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxord import step, train
from jaxord.data.batches import train_batches, train_calls, train_rows
from jaxord.runtime import REPEATABLE, devices
from jaxord.schedule import ADVICE
from jaxord.task import make_task
from jaxord.workdir import checkpoints
from tests.kinds import MESHES, config, small_towers

FIELDS = {
    "data.tier": "resident",
    "train.evaluate_every": "20 steps",
    "train.skips": 3,
    "optim.schedule": "cosine",
    "optim.name": "adamw",
}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """On one device, which compiles faster."""
    with small_towers(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "data_mesh", lambda: MESHES[1])
        yield


@pytest.fixture
def spoil(monkeypatch):
    """spoil(split, {step: factor}) multiplies the loss of these steps, counted from 0."""

    def by(split, factors):
        at, real = train_rows(split, batch=16, seed=0), step.objective
        firsts = jnp.array([[part[0] for part in at(n)] for n in factors])

        def objective(c, weights=None):
            total = real(c, weights)

            def spoiled(arrays):
                loss, terms = total(arrays)
                here = (firsts == jnp.stack([arrays["index"][0], arrays["epoch"][0]])).all(1)
                return loss * jnp.where(here, jnp.array(list(factors.values())), 1.0).prod(), terms

            return spoiled

        monkeypatch.setattr(train, "objective", objective)

    return by


def equal(one, other):
    return all((one[path] == other[path]).all() for path in one)


def counts(opt_state):
    """(steps of the schedules, updates of the moments)."""
    kinds = optax.ScaleByScheduleState, optax.ScaleByAdamState
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kinds))
    return [{int(part.count) for part in parts if isinstance(part, kind)} for kind in kinds]


def test_what_is_not_finite_changes_nothing_but_the_step(photos, spoil):
    """One and five steps a call; a nan loss, and a gradient that overflows alone."""
    task = make_task(config("folder", "method=ce_l1,backbone=tiny", photos, **FIELDS), "")
    split, log = task.splits["train"], []
    spoil(split, {1: jnp.nan, 2: 1e30, 4: jnp.inf})
    state, update = train.begin(task, lambda step: 1.0 - 0.1 * step)
    batches, parameters = train_batches(split, batch=16, seed=0), [jax.device_get(state.trained)]
    for _ in range(5):
        state, values = update(state, next(batches), task.labels["train"], task.constants)
        finite = bool(np.isfinite(values["loss"]))
        log.append((int(state.step), values["skipped"].tolist(), finite))
        parameters.append(jax.device_get(state.trained))
    skipped = [[0, 0], [1, 1], [2, 2], [0, 2], [1, 3]]
    assert log == list(zip(range(1, 6), skipped, [True, False, True, True, False], strict=True))
    unchanged = [equal(a, b) for a, b in itertools.pairwise(parameters)]
    assert unchanged == [False, True, True, False, True]
    assert counts(jax.device_get(state.opt_state)) == [{5}, {2}]
    state, update = train.begin(task, lambda step: 1.0 - 0.1 * step, several=True)
    batches = train_calls(split, batch=16, seed=0, calls=[(0, 5)], most=5)
    labels = {**task.labels["train"], **split.stored()}
    state, values = update(state, next(batches), labels, task.constants)
    assert values["skipped"].tolist() == [1, 3]
    assert counts(jax.device_get(state.opt_state)) == [{5}, {2}]
    together = jax.device_get(state.trained)
    assert max(np.abs(together[path] - x).max() for path, x in parameters[-1].items()) < 1e-6


def test_so_many_in_a_row_end_the_run_and_the_same_command_goes_on(
    photos, tmp_path, spoil, monkeypatch, capsys
):
    """Steps 5 to 7 of nine are spoiled; the log, every fifth, sees them later."""
    fields = FIELDS | {"train.log_every": "5 steps", "train.checkpoint_every": "4 steps"}
    fields["train.steps_per_call"] = 1
    c = config("folder", "method=ce_l1,backbone=tiny", photos, **fields)
    splits = make_task(c, "").splits["train"]
    spoil(splits, dict.fromkeys((4, 5, 6), jnp.nan))
    message = "4 steps in a row gave a loss or a gradient that is not finite"
    with pytest.raises(ValueError, match=message) as error:
        train.run(c, tmp_path)
    title, rows, place, good, advice = str(error.value).split("\n")
    assert "(step 8)" in title and advice == f"  {ADVICE}"
    assert place == f"  config: {tmp_path / 'config.json'}"
    assert good == f"  last good checkpoint: {tmp_path / 'checkpoints/4'}"
    expected = np.unique(train_rows(splits, batch=16, seed=0)(4)[0])
    paths = ", ".join(f"{row} {splits.records.paths[row]}" for row in expected)
    assert rows == f"  rows of step 5: {paths}"
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["skipped"]) for line in logged] == [(5, 1)]
    assert logged[0]["loss"] is None
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as saved:
        assert saved.steps() == [4]

    spoil(splits, dict.fromkeys((5, 6), jnp.nan))
    train.run(c, tmp_path)
    output = capsys.readouterr().out
    assert "goes on from step 4 of 9" in output and "2 of 9 steps changed nothing" in output
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as saved:
        state = saved.read(9, ("trained", "stats", "opt_state"))
    assert all(np.isfinite(array).all() for part in state.values() for array in part.values())


def test_what_an_update_has_made_infinite_is_not_saved(photos, tmp_path):
    fields = {"train.duration": "1 steps", "optim.clip": 0.0}
    c = config("folder", "method=l1,backbone=tiny", photos, rate=3e38, **fields)
    message = "(?s)an update has made the parameters.*infinite.*step 1: .*checkpoint: none yet"
    with pytest.raises(ValueError, match=message):
        train.run(c, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_xla_knows_the_flag_of_deterministic():
    """It ends a process whose flags it does not know."""
    assert REPEATABLE.startswith("--xla_gpu_")
    code = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    settings = {"env": {**os.environ, "XLA_FLAGS": REPEATABLE}, "text": True}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, **settings)
    assert done.returncode == 0 and done.stdout == "2\n", done.stderr
