"""Configs as JSON and back: a workdir's config.json is all that evaluating, resuming and exporting
read."""

import copy
import functools
import json
import operator
import re

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxord.binding import did_you_mean


def plain(config):
    """The config as dicts, lists, numbers and strings, keys sorted."""
    if isinstance(config, ConfigDict):
        return {key: plain(config[key]) for key in sorted(config)}
    return [plain(item) for item in config] if isinstance(config, (tuple, list)) else config


def to_json(config):
    """The config as JSON text: the same config gives the same text."""
    return json.dumps(plain(config), indent=2, ensure_ascii=False) + "\n"


def from_json(text):
    """The config that was written as JSON: JSON objects become ConfigDicts, lists become tuples."""

    def restore(value):
        if isinstance(value, dict):
            return ConfigDict(
                {key: restore(item) for key, item in value.items()}, convert_dict=False
            )
        if isinstance(value, list):
            return tuple(restore(item) for item in value)
        return value

    return restore(json.loads(text)).lock()


def missing(config, field):
    """What a config lacks for a field, such as "losses[0].weight", as text; "" where it has it."""
    place, before = config, ""
    for index, name in re.findall(r"\[(-?\d+)\]|([^.\[\]]+)", field):
        names = list(place) if isinstance(place, ConfigDict) else []
        entries = len(place) if isinstance(place, (tuple, list)) else 0
        if index and not -entries <= int(index) < entries or name and name not in names:
            there = ", ".join(names) or (f"[0] to [{entries - 1}]" if entries else "none")
            hint = did_you_mean(name, names, f"It has {there}.")
            return f"{before or 'the config'} has no field {name or f'[{index}]'!r}. {hint}"
        place = place[int(index) if index else name]
        before += f"[{index}]" if index else f".{name}" if before else name
    return ""


def check_entries(config):
    """Raises ValueError where heads, losses, rules or stages are something else than entries with
    names."""
    for field in ("heads", "losses", "rules", "stages"):
        entries = config.get(field, ())
        if not isinstance(entries, tuple) or not all(
            isinstance(entry, ConfigDict) and "name" in entry for entry in entries
        ):
            raise ValueError(
                f"config.{field} is {plain(entries)}; expected entries with a name each, whose fields are "
                f"set one by one: --config.{field}[0].<field>=<value>"
            )


def from_arguments(arguments):
    """The config that --config=<file> and --config.<field>=<value> among a command's arguments
    make, as the command reads them.

    Raises:
      ValueError: of the file, a field that the config lacks, or a value of another type.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["", *arguments])
    try:
        values(["", *arguments])
        config = values["config"].value.lock()
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise ValueError(wrong_field(arguments) or str(error).rpartition("Error: ")[2]) from None
    check_entries(config)
    return config


def wrong_field(arguments):
    """The first --config.<field>=<value> of a command whose field the config lacks, and what it
    lacks; "" where none is."""
    given = [argument for argument in arguments if argument.startswith("--config.")]
    try:
        config = (
            from_arguments([argument for argument in arguments if argument.startswith("--config=")])
            if given
            else None
        )
    except ValueError:  # the file's fault, which is the caller's error already
        return ""
    for argument in given:
        if lacks := missing(config, argument.removeprefix("--config.").partition("=")[0]):
            return f"{argument}: {lacks}"
    return ""


def staged(config, stage):
    """The config of one stage: `stage.set`, entries of dict(field, value), set in a copy that has
    no stages of its own.

    Raises:
      ValueError: a field that the config does not have.
    """
    c = copy.deepcopy(config).unlock()
    for entry in stage.set:
        if lacks := missing(c, entry.field):
            raise ValueError(f"stage {stage.name!r} sets {entry.field!r}: {lacks}")
        *parents, last = entry.field.split(".")
        functools.reduce(operator.getitem, parents, c)[last] = copy.deepcopy(entry.value)
    c.stages = ()
    return c.lock()


TRANSFORM = (
    "image_size",
    "stored_size",
    "resize",
    "eval_crop",
    "normalize",
    "target_scale",
)  # of config.data


def evaluated(trained, other=None):
    """The config under which a stage of a run is evaluated: its own, or with the data, rules and
    metrics of another.

    How an image becomes the model's input stays the run's, and all parameters come from the run.
    """
    c = copy.deepcopy(trained).unlock()
    c.fresh = ""
    if other is not None:
        for field in (
            "name",
            "data",
            "rules",
            "metrics",
            "shots",
            "summary",
            "paper",
            "fold",
            "select",
        ):
            c[field] = copy.deepcopy(other[field])
        for field in TRANSFORM:
            c.data[field] = copy.deepcopy(trained.data[field])
    return c.lock()


def differences(found, expected):
    """Lines 'a.b: found value, expected value' for two configs, for an error message."""

    def flat(value, path=""):
        if isinstance(value, dict):
            return {
                k: v
                for key, item in value.items()
                for k, v in flat(item, f"{path}.{key}" if path else key).items()
            }
        return {path: value}

    a, b = (flat(plain(config)) for config in (found, expected))
    return [
        f"{key}: {a.get(key)!r} there, {b.get(key)!r} here"
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    ]
