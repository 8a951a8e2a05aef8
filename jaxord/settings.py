"""Configs as JSON and back: a workdir's config.json is all that evaluating, resuming and exporting read."""

import json

from ml_collections import ConfigDict


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
            return ConfigDict({key: restore(item) for key, item in value.items()}, convert_dict=False)
        if isinstance(value, list):
            return tuple(restore(item) for item in value)
        return value

    return restore(json.loads(text)).lock()


def differences(found, expected):
    """Lines 'a.b: found value, expected value' for two configs, for an error message."""

    def flat(value, path=""):
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}" if path else key).items()}
        return {path: value}

    a, b = (flat(plain(config)) for config in (found, expected))
    return [f"{key}: {a.get(key)!r} there, {b.get(key)!r} here" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
