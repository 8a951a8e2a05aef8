"""Settings that take one of a few names."""

from collections.abc import Mapping
from typing import Any


def choose(setting: str, name: str, choices: Mapping[str, Any]) -> Any:
    """choices[name], or a ValueError that lists the choices."""
    if name not in choices:
        raise ValueError(f"{setting} is {name!r}; expected one of {sorted(choices)}")
    return choices[name]
