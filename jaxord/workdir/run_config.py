"""The config of a run: from a file, arguments or JSON, and back to JSON.

Must not import jax: the command reads its config before it chooses jax's settings.
"""

import copy
import functools
import importlib.util
import json
import operator
import pathlib
import re

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxord import shipped
from jaxord.binding import did_you_mean

# Fields of config.data that decide how an example becomes the model's input.
TRANSFORM = ("image_size", "stored_size", "resize", "eval_crop", "normalize", "target_scale")
# Fields that an evaluation may take from another config.
EVALUATION = ("name", "data", "rules", "metrics", "shots", "summary", "paper", "fold", "select")


def plain(config):
    """The config as dicts, lists, numbers and strings, keys sorted."""
    if isinstance(config, ConfigDict):
        return {key: plain(config[key]) for key in sorted(config)}
    return [plain(item) for item in config] if isinstance(config, (tuple, list)) else config


def to_json(config):
    """The config as JSON text; equal configs give equal text."""
    return json.dumps(plain(config), indent=2, ensure_ascii=False) + "\n"


def from_json(text):
    """The config from JSON text: objects become ConfigDicts, lists become tuples."""

    def restore(value):
        if isinstance(value, dict):
            fields = {key: restore(item) for key, item in value.items()}
            return ConfigDict(fields, convert_dict=False)
        return tuple(restore(item) for item in value) if isinstance(value, list) else value

    return restore(json.loads(text)).lock()


def missing(config, field):
    """Says what a config lacks of a field such as "losses[0].weight"; "" if it has the field."""
    place, before = config, ""
    for index, name in re.findall(r"\[(-?\d+)\]|([^.\[\]]+)", field):
        names = list(place) if isinstance(place, ConfigDict) else []
        entries = len(place) if isinstance(place, (tuple, list)) else 0
        if index and not -entries <= int(index) < entries or name and name not in names:
            fields = ", ".join(names) or (f"[0] to [{entries - 1}]" if entries else "none")
            hint = did_you_mean(name, names, f"It has {fields}.")
            return f"{before or 'the config'} has no field {name or f'[{index}]'!r}. {hint}"
        place = place[int(index) if index else name]
        before += f"[{index}]" if index else f".{name}" if before else name
    return ""


def check_entries(config):
    """Raises ValueError if heads, losses, rules or stages are no tuples of entries with names."""
    for field in ("heads", "losses", "rules", "stages"):
        entries = config.get(field, ())
        if not isinstance(entries, tuple) or not all(
            isinstance(entry, ConfigDict) and "name" in entry for entry in entries
        ):
            raise ValueError(
                f"config.{field} is {plain(entries)}; expected entries with a name each, whose "
                f"fields are set one by one: --config.{field}[0].<field>=<value>"
            )


def load_config(text):
    """The config that a command's --config names: "hci:method=coop", a path, or a config.json.

    Raises:
      ValueError: no such config, or what the config's file raises for its argument.
    """
    path = pathlib.Path(text)
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"no config {str(text)!r}")
        return from_json(path.read_text())
    shipped.make_importable()
    path, _, argument = shipped.find_config(str(text)).partition(":")
    spec = importlib.util.spec_from_file_location("_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def from_arguments(arguments):
    """The config of --config=<file> and --config.<field>=<value>; ValueError for any error."""
    values = flags.FlagValues()
    shipped.make_importable()
    arguments = shipped.with_configs_found(arguments)
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["", *arguments])
    try:
        values(["", *arguments])
        config = values["config"].value.lock()
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise ValueError(wrong_field(arguments) or str(error).rpartition("Error: ")[2]) from None
    check_entries(config)
    return config


def wrong_field(arguments):
    """Names the first --config.<field>=<value> whose field the config lacks, "" without one."""
    fields = [argument for argument in arguments if argument.startswith("--config.")]
    if not fields:
        return ""
    try:
        config = from_arguments([a for a in arguments if a.startswith("--config=")])
    except ValueError:  # the file's own error, which the caller reports
        return ""
    for argument in fields:
        if lack := missing(config, argument.removeprefix("--config.").partition("=")[0]):
            return f"{argument}: {lack}"
    return ""


def staged(config, stage):
    """The config of one stage: a copy without stages, with each (field, value) of `stage.set`."""
    c = copy.deepcopy(config).unlock()
    for entry in stage.set:
        if lack := missing(c, entry.field):
            raise ValueError(f"stage {stage.name!r} sets {entry.field!r}: {lack}")
        *parents, last = entry.field.split(".")
        functools.reduce(operator.getitem, parents, c)[last] = copy.deepcopy(entry.value)
    c.stages = ()
    return c.lock()


def evaluated(trained, other=None):
    """The config that evaluates a stage: its own, or with the data, rules and metrics of another.

    Parameters and the way from an example to the model's input stay the run's.
    """
    c = copy.deepcopy(trained).unlock()
    c.fresh = ""
    if other is not None:
        for field in EVALUATION:
            c[field] = copy.deepcopy(other[field])
        for field in TRANSFORM:
            c.data[field] = copy.deepcopy(trained.data[field])
    return c.lock()


def differences(stored, config):
    """Lines "a.b: 1 there, 2 here" for the fields in which a stored config differs from another."""

    def flat(value, path=""):
        if not isinstance(value, dict):
            return {path: value}
        parts = (flat(item, f"{path}.{key}" if path else key) for key, item in value.items())
        return functools.reduce(operator.or_, parts, {})

    there, here = flat(plain(stored)), flat(plain(config))
    return [
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]
