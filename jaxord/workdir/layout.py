"""The folder of a run: which folds and stages lie where, and what each holds for those who come
later."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys

import jax
import numpy as np
from clu import parameter_overview

from jaxord.models.clip import ClipSettings, Tower
from jaxord.runtime import devices
from jaxord.targets.ranks import checked
from jaxord.workdir import checkpoints, files, run_config

# Fields that came after others, and what runs from before them did.
LATER = {"model.attention": "xla", "train.skips": 10, "data.broken_share": 0.0}


def chosen_folds(config):
    """Names of the folds to train; "" stands for a data set without folds."""
    folds = tuple(config.data.folds)
    if not folds and config.fold:
        raise ValueError(f"fold is {config.fold!r}, but {config.name} has no folds")
    if not folds or config.fold == "all":
        return folds or ("",)
    if config.fold not in folds:
        raise ValueError(f"fold is {config.fold!r}; {config.name} has {', '.join(folds)}, or 'all'")
    return (config.fold,)


def stages_of(config, workdir, fold):
    """[(folder, config)] of the stages of a fold, in order; without stages its one folder and the
    config itself."""
    folder = workdir / f"fold_{fold}" if fold else workdir
    if not config.stages:
        return [(folder, config)]
    names = [stage.name for stage in config.stages]
    if len(set(names)) < len(names):
        raise ValueError(f"the stages are called {names}; each needs a name of its own")
    return [(folder / stage.name, run_config.staged(config, stage)) for stage in config.stages]


@devices.first
def claim(workdir, config):
    """Writes config.json; a workdir that has trained something keeps the config it has."""
    file = workdir / "config.json"
    if file.exists() and any(workdir.glob("**/checkpoints")):
        lines = run_config.differences(run_config.from_json(file.read_text()), config)
        if lines:
            raise ValueError(
                f"{workdir} holds another config; give another --workdir, or remove it\n  "
                + "\n  ".join(lines)
            )
    else:
        files.write_json(file, run_config.plain(config))


def read_config(folder):
    """The config of a run, from its config.json; no config file is executed. Runs from before LATER
    have its values."""
    file = folder / "config.json"
    if not file.exists():
        raise ValueError(f"{folder} holds no run: it has no config.json")
    try:
        config = run_config.from_json(file.read_text())
        with config.unlocked():
            for field, value in LATER.items():
                group, name = field.split(".")
                config[group][name] = config[group].get(name, value)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{file} is no config as a run has written it: {type(error).__name__} {error}; it has to be restored"
        ) from None
    return config


def selected(folder):
    """Variables {"params": flat, "stats": flat} of the checkpoint that a finished stage has chosen,
    on the host."""
    with checkpoints.Checkpoints(folder / "checkpoints") as saved:
        found = saved.read(done(folder)["step"], ("trained", "frozen", "stats"))
    return {"params": {**found["trained"], **found["frozen"]}, "stats": found["stats"]}


@devices.first
def done(folder):
    """DONE.json of a finished stage."""
    if not (folder / "DONE.json").exists():
        raise ValueError(f"{folder} is not done; the command that began it goes on with it")
    return files.read_json(folder / "DONE.json")


@devices.first
def write_facts(folder, parameters, ranks, constants, targets, clip):
    """What a model's sizes follow from: ranks.json, constants.npz with the training labels,
    clip.json (null without CLIP).

    parameters.txt lists `parameters` for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes = parameter_overview.get_parameter_overview(parameters, include_stats=False)
    (folder / "parameters.txt").write_text(shapes + "\n")
    if ranks:
        facts = {
            "values": ranks.values.tolist(),
            "names": list(ranks.names),
            "edges": ranks.edges.tolist(),
        }
        files.write_json(folder / "ranks.json", facts)
    others = ("text_", "seed")
    derived = {
        name: np.asarray(array) for name, array in constants.items() if not name.startswith(others)
    }
    with files.replacing(folder / "constants.npz", "wb") as file:
        np.savez(file, train_targets=targets, **derived)
    files.write_json(folder / "clip.json", dataclasses.asdict(clip) if clip else None)


def read_facts(folder):
    """(Ranks or None, {name: array}, training labels f32[N] or [N, 2]) as `write_facts` has written
    them."""
    ranks, file = None, folder / "ranks.json"
    if file.exists():
        facts = files.read_json(file)
        with files.reading(file):
            ranks = checked(
                np.array(facts["values"], np.float64),
                tuple(facts["names"]),
                np.array(facts["edges"], np.float64),
            )
    constants = files.read_arrays(folder / "constants.npz")
    with files.reading(folder / "constants.npz"):
        return ranks, constants, constants.pop("train_targets")


@devices.first
def write_run(folder, seconds, sizes):
    """run.json: where, by what and how long the last process trained; for people, and no part of
    the result.

    Args:
      seconds: that it took.
      sizes: split -> number of examples.
    """
    files.write_json(
        folder / "run.json",
        {
            "command": shlex.join(sys.orig_argv),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "versions": versions(),
            "seconds": round(seconds, 1),
            **{f"{split} examples": size for split, size in sizes.items()},
        },
    )


@functools.cache
def versions():
    """Of Python and of the packages that decide what a training does."""
    packages = ("jaxord", "jax", "jaxlib", "flax", "optax", "numpy")
    installed = {
        part.name: part.version for part in importlib.metadata.distributions()
    }  # jaxord may be a mere checkout
    return ", ".join(
        [
            f"python {platform.python_version()}",
            *(f"{p} {installed[p]}" for p in packages if p in installed),
        ]
    )


def read_settings(folder):
    """Sizes of CLIP's towers as `write_facts` has written them; None where the model has
    neither."""
    found = files.read_json(folder / "clip.json")
    with files.reading(folder / "clip.json"):
        return (
            ClipSettings(**{k: Tower(**v) if isinstance(v, dict) else v for k, v in found.items()})
            if found
            else None
        )


@contextlib.contextmanager
def locked(folder):
    """Holds a workdir for this process; ValueError names the process that holds it already.

    A killed process releases it. With several processes the first one holds it for all.
    """
    with contextlib.ExitStack() as held:
        devices.first(lambda: held.enter_context(_locked(pathlib.Path(folder))))()
        yield


@contextlib.contextmanager
def _locked(folder):
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".lock-owner"
    name = owner.read_text() if owner.exists() else "another process"
    busy = f"{folder} is in use by {name}; wait for it, or give another workdir"
    with files.lock(folder / ".lock", busy):
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
