"""From config.data to the checked splits of one fold.

A reader is a public function `reader(root, *, fold, seed, settings)` of a module here. It returns
{"train": Records, "val": Records, "test": Records}; "val" is absent if a protocol has none. A
config names it: config.data.reader = dict(name="sources.folder").

Lists and images lie under `root`. `seed`, with `fold`, fixes the draw of splits that no list gives.
Settings that several readers share: `table`, another list than the data set's; `images`, the folder
of the images; `val_fraction`, the share of the training split to select on, if the protocol has no
validation split.
"""

import importlib
import inspect
import itertools
import pkgutil

from jaxord import binding
from jaxord.data.splits import select_shift, select_shots


def load(data, fold, seed, ranks=None):
    """Calls the reader of config.data, then applies few-shot and shift to the training split.

    `fold` is "" if the set has none. `ranks` are the config's or those of a finished run, for
    readers whose labels may be names of ranks (a parameter `ranks`). ValueError for an unknown
    reader, setting or fold, missing files, an empty split, or an image in two splits.
    """
    if data.folds and fold not in data.folds:
        raise ValueError(f"config.fold is {fold!r}; the folds are {list(data.folds)}")
    entry = {**data.reader, "table": data.table} if data.table else data.reader
    read = reader(entry)
    named = {"ranks": ranks} if "ranks" in inspect.signature(read).parameters else {}
    splits = read(data.root, fold=fold, seed=seed, **named)
    _check(data.reader["name"], splits)
    train = splits["train"]
    if data.shots:
        train = select_shots(train, data.shots, seed)
    if data.shift.labels:
        train = select_shift(train, data.shift.labels, data.shift.keep, data.shift.choice, seed)
    return {**splits, "train": train}


def reader(entry):
    """The reader that config.data.reader names, with its settings; ValueError if unknown."""
    module, _, function = entry["name"].partition(".")
    if module not in _modules() or function not in _readers(module):
        names = [f"{m}.{f}" for m in _modules() for f in _readers(m)]
        hint = binding.did_you_mean(entry["name"], names, f"There are {names}.")
        unknown = f"config.data.reader.name is {entry['name']!r}"
        raise ValueError(f"{unknown}, which jaxord.data.readers does not have. {hint}")
    reserved = sorted({"fold", "seed", "ranks"} & set(entry))
    if reserved:
        places = "they are config.fold and config.seed, ranks are config.ranks"
        raise ValueError(f"config.data.reader has {reserved}; {places}")
    return binding.with_settings(_readers(module)[function], entry)


def _modules():
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _readers(module):
    """{name: function} of the module's public functions that take a root, a fold and a seed."""
    members = vars(importlib.import_module(f"{__name__}.{module}")).items()
    public = {name: f for name, f in members if inspect.isfunction(f) and name[0] != "_"}
    needed = {"root", "fold", "seed"}
    return {name: f for name, f in public.items() if needed <= set(inspect.signature(f).parameters)}


def _check(name, splits):
    """Refuses missing, unknown, empty and overlapping splits."""
    if not {"train", "test"} <= set(splits) <= {"train", "val", "test"}:
        problem = f"{name} gives the splits {sorted(splits)}"
        raise ValueError(f"{problem}; train and test are needed, val is optional")
    for split, records in splits.items():
        if not records:
            raise ValueError(f"{name}: the {split} split is empty")
    for pair in itertools.combinations(splits, 2):
        one, other = (set(splits[split].paths) for split in pair)
        if one & other:
            both = " and ".join(f"{split} ({len(splits[split])})" for split in pair)
            common = (
                f"{len(one & other)} images are in both {both}, such as {sorted(one & other)[:3]}"
            )
            hint = "to select on the test split leave val out and set config.select='test'"
            raise ValueError(f"{name}: {common}; {hint}")
