"""From config.data to the checked splits of one fold."""

import importlib
import inspect
import itertools
import pkgutil

from jaxord import binding
from jaxord.data.splits import select_shift, select_shots

SPLITS = ("train", "val", "test")


def load(data, fold, seed):
    """Calls the config's reader, then applies few-shot and shift to the training split.

    Args:
        data: config.data.
        fold: one of data.folds; "" where the set has none.
        seed: of the run: of generated splits and selections.

    Returns:
        {"train": Records, "val": Records (where there is one), "test": Records}.

    Raises:
        ValueError: an unknown reader, setting or fold; missing files; an empty split; an image in
          two splits.
    """
    if data.folds and fold not in data.folds:
        raise ValueError(f"config.fold is {fold!r}; the folds are {list(data.folds)}")
    entry = {**data.reader, "table": data.table} if data.table else data.reader
    splits = reader(entry)(data.root, fold=fold, seed=seed)
    name = data.reader["name"]
    if not {"train", "test"} <= set(splits) <= set(SPLITS):
        raise ValueError(
            f"{name} gives the splits {sorted(splits)}; train and test are needed, val is optional"
        )
    for split, records in splits.items():
        if not records:
            raise ValueError(f"{name}: the {split} split is empty")
    for one, other in itertools.combinations(splits, 2):
        _check_disjoint(name, one, splits[one], other, splits[other])
    train = splits["train"]
    if data.shots:
        train = select_shots(train, data.shots, seed)
    if data.shift.labels:
        train = select_shift(train, data.shift.labels, data.shift.keep, data.shift.choice, seed)
    return {**splits, "train": train}


def reader(entry):
    """The reader that config.data.reader names, with its settings.

    Raises:
        ValueError: no such reader (with the nearest name), or no such setting.
    """
    module, _, function = entry["name"].partition(".")
    if module not in _modules() or function not in _readers(module):
        names = [f"{m}.{f}" for m in _modules() for f in _readers(m)]
        hint = binding.did_you_mean(entry["name"], names, f"There are {names}.")
        raise ValueError(
            f"config.data.reader.name is {entry['name']!r}, which jaxord.data.readers does not have. {hint}"
        )
    reserved = sorted({"fold", "seed"} & set(entry))
    if reserved:
        raise ValueError(f"config.data.reader has {reserved}; they are config.fold and config.seed")
    found = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return binding.with_settings(found, entry)


def _modules():
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _readers(module):
    """Functions of the module that take a root and, by name, a fold and a seed."""
    members = vars(importlib.import_module(f"{__name__}.{module}"))
    found = {
        name: f for name, f in members.items() if inspect.isfunction(f) and not name.startswith("_")
    }
    return [
        name
        for name, f in found.items()
        if {"root", "fold", "seed"} <= set(inspect.signature(f).parameters)
    ]


def _check_disjoint(name, one, a, other, b):
    common = sorted(set(a.paths) & set(b.paths))
    if common:
        raise ValueError(
            f"{name}: {len(common)} images are in both {one} ({len(a)}) and {other} ({len(b)}), such as {common[:3]}; "
            "to select on the test split leave val out and set config.select='test'"
        )
