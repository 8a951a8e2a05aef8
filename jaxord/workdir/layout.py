"""The folder of a run, complete: evaluating, predicting, resuming and exporting need nothing else.

<workdir>/
  config.json          the finished config
  .lock, .lock-owner   held by the process that trains
  report.html          from --mode=report
  evaluated/<name>/    from --mode=evaluate with another config
  fold_<fold>/         one a fold; absent if the data set has no folds
    <stage>/           one a stage; absent if the method has no stages
      checkpoints/     see jaxord.workdir.checkpoints
      metrics.jsonl, tensorboard/     curves
      parameters.txt   paths and shapes, for people
      ranks.json, clip.json           values and names of ranks; sizes of CLIP's towers
      constants.npz    the model's constants and the training labels
      predictions.csv  a row for each test example
      results.json     metrics of each split, null where undefined
      groups.json, gallery.npz, vocabulary.json    where the method has them
      tokenizer/       of pretrained weights, if the method has prompts
      run.json         command, device, versions, seconds and source of the weights, for people
      DONE.json        the selected step; written last
"""

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
from jaxord.runtime import hosts
from jaxord.targets.ranks import make_ranks
from jaxord.workdir import checkpoints, files, run_config


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
    """[(folder, config)] of a fold's stages, in order; without stages one folder and `config`."""
    folder = workdir / f"fold_{fold}" if fold else workdir
    if not config.stages:
        return [(folder, config)]
    names = [stage.name for stage in config.stages]
    if len(set(names)) < len(names):
        raise ValueError(f"the stages are called {names}; each needs a name of its own")
    return [(folder / stage.name, run_config.staged(config, stage)) for stage in config.stages]


@hosts.first
def claim(workdir, config):
    """Writes config.json; ValueError if the workdir was trained under another config."""
    file = workdir / "config.json"
    if not file.exists() or not any(workdir.glob("**/checkpoints")):
        files.write_json(file, run_config.plain(config))
        return
    lines = run_config.differences(run_config.from_json(file.read_text()), config)
    if lines:
        title = f"{workdir} holds another config; give another --workdir, or remove it"
        raise ValueError("\n  ".join([title, *lines]))


def read_config(folder):
    """The config of a run, from its config.json; executes no config file."""
    file = folder / "config.json"
    if not file.exists():
        raise ValueError(f"{folder} holds no run: it has no config.json")
    with files.reading(file):
        config = run_config.from_json(file.read_text())
        if not {"data", "model", "train"} <= set(config):
            raise ValueError("no config that a run has written")
        return config


def selected(folder):
    """Variables {"params": flat, "stats": flat} that a finished stage has selected, on the host."""
    with checkpoints.Checkpoints(folder / "checkpoints") as saved:
        parts = saved.read(read_done(folder)["step"], ("trained", "frozen", "stats"))
    return {"params": {**parts["trained"], **parts["frozen"]}, "stats": parts["stats"]}


@hosts.first
def read_done(folder):
    """DONE.json of a finished stage."""
    if not (folder / "DONE.json").exists():
        raise ValueError(f"{folder} is not done; the command that began it goes on with it")
    return files.read_json(folder / "DONE.json")


@hosts.first
def write_facts(folder, parameters, ranks, constants, targets, clip):
    """Writes ranks.json, constants.npz, clip.json (null without CLIP) and parameters.txt.

    The first three determine the model's sizes; constants.npz also holds the training labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes = parameter_overview.get_parameter_overview(parameters, include_stats=False)
    (folder / "parameters.txt").write_text(shapes + "\n")
    if ranks:
        values, edges = ranks.values.tolist(), ranks.edges.tolist()
        facts = {"values": values, "names": list(ranks.names), "edges": edges}
        files.write_json(folder / "ranks.json", facts)
    # Texts and seeds follow from the config; the rest follows from the training labels.
    derived = {
        k: np.asarray(v) for k, v in constants.items() if not k.startswith(("text_", "seed"))
    }
    with files.replacing(folder / "constants.npz", "wb") as file:
        np.savez(file, train_targets=targets, **derived)
    files.write_json(folder / "clip.json", dataclasses.asdict(clip) if clip else None)


def read_facts(folder):
    """(Ranks or None, {name: array}, training labels f32[N] or [N, 2]) from `write_facts`."""
    ranks, file = None, folder / "ranks.json"
    if file.exists():
        facts = files.read_json(file)
        with files.reading(file):
            values, edges = (np.array(facts[name], np.float64) for name in ("values", "edges"))
            ranks = make_ranks(values, tuple(facts["names"]), edges)
    constants = files.read_arrays(folder / "constants.npz")
    with files.reading(folder / "constants.npz"):
        return ranks, constants, constants.pop("train_targets")


def read_settings(folder):
    """Sizes of CLIP's towers from `write_facts`; None if the model has neither."""
    settings = files.read_json(folder / "clip.json")
    if not settings:
        return None
    with files.reading(folder / "clip.json"):
        towers = {k: Tower(**v) for k, v in settings.items() if isinstance(v, dict)}
        return ClipSettings(**{**settings, **towers})


@hosts.first
def write_run(folder, seconds, sizes, weights=None):
    """Writes run.json: how the last process trained.

    `sizes` are split -> number of examples, `weights` the source of pretrained ones (hub.facts).
    """
    facts = {
        "command": shlex.join(sys.orig_argv),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions(),
        "seconds": round(seconds, 1),
        **{f"{split} examples": size for split, size in sizes.items()},
    }
    if weights:
        facts["weights"] = weights
    files.write_json(folder / "run.json", facts)


@functools.cache
def versions():
    """Versions of Python and of the packages that decide the result of a training."""
    packages = ("jaxord", "jax", "jaxlib", "flax", "optax", "numpy")
    # jaxord is not among them when it runs from a checkout.
    installed = {part.name: part.version for part in importlib.metadata.distributions()}
    known = [f"{name} {installed[name]}" for name in packages if name in installed]
    return ", ".join([f"python {platform.python_version()}", *known])


@contextlib.contextmanager
def locked(folder):
    """Holds a workdir for this process; ValueError names the process that holds it already.

    A killed process releases it. Of several processes, process 0 holds it for all.
    """

    def acquire():
        owner = pathlib.Path(folder) / ".lock-owner"
        owner.parent.mkdir(parents=True, exist_ok=True)
        name = owner.read_text() if owner.exists() else "another process"
        busy = f"{folder} is in use by {name}; wait for it, or give another workdir"
        stack.enter_context(files.lock(owner.with_name(".lock"), busy))
        owner.write_text(f"process {os.getpid()} on {platform.node()}")

    with contextlib.ExitStack() as stack:
        hosts.first(acquire)()
        yield
