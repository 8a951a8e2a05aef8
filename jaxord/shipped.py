"""Finds the files that come with the package: configs, experiments and tools.

In a checkout they lie beside the package; a wheel carries them inside it, as jaxord/configs,
jaxord/experiments and jaxord/tools.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import sys

from jaxord.binding import did_you_mean

PACKAGE = pathlib.Path(__file__).resolve().parent
IN_CHECKOUT = (PACKAGE.parent / "configs" / "base.py").is_file()
ROOT = PACKAGE.parent if IN_CHECKOUT else PACKAGE


def make_importable():
    """Makes `configs`, `experiments` and `tools` import from ROOT, whatever the current folder.

    Config files say `from configs.base import ...`, and a user's own folder may have these names.
    """
    for name in ("configs", "experiments", "tools"):
        if name not in sys.modules:
            folder = ROOT / name
            spec = importlib.util.spec_from_file_location(
                name, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            sys.modules[name] = importlib.util.module_from_spec(spec)


def find_config(text):
    """Turns `<config>[:argument]` into an existing path with that argument.

    Args:
      text: the config is a path in the current folder, or one of the package's own configs by its
        name or path: "hci", "configs/hci.py".

    Raises:
      ValueError: no such config; the message names the nearest one.
    """
    path, colon, argument = text.partition(":")
    if os.path.isfile(path):
        return text
    name = pathlib.Path(path).stem
    known = {file.stem: file for file in (ROOT / "configs").glob("[a-z]*.py")}
    if name in config_names() and path in (name, f"{name}.py", f"configs/{name}.py"):
        return f"{known[name]}{colon}{argument}"
    hint = did_you_mean(name, config_names(), f"The package has {', '.join(config_names())}.")
    raise ValueError(f"no config {path!r}, neither here nor in the package. {hint}")


def config_names():
    """Names of the data sets that the package has configs for."""
    files = (ROOT / "configs").glob("[a-z]*.py")
    return sorted(file.stem for file in files if "def get_config(" in file.read_text("utf-8"))


def with_configs_found(arguments):
    """A command's arguments with each --config replaced by `find_config` of it."""
    arguments = list(arguments)
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals and value:
            arguments[index] = f"--config={find_config(value)}"
        elif not equals and index + 1 < len(arguments):
            arguments[index + 1] = find_config(arguments[index + 1])
    return arguments


def install_hint(extra):
    """The command that installs an extra, as this copy of the package was installed."""
    if IN_CHECKOUT:
        here = ROOT == pathlib.Path.cwd()
        return f'pip install -e "{"." if here else ROOT}[{extra}]"'
    marker = re.compile(rf"""; *extra == ["']{extra}["']""")
    requirements = importlib.metadata.requires("jaxord") or []
    packages = [marker.split(line)[0].strip() for line in requirements if marker.search(line)]
    return "pip install " + " ".join(f'"{package}"' for package in packages)
