"""Command lines of the tools, from tables of defaults and help texts."""

import argparse


def parser(description, settings):
    """A parser with a flag for each entry {name: (default, help)}.

    A flag takes values of its default's type; False makes a switch.
    """
    layout = argparse.RawDescriptionHelpFormatter
    flags = argparse.ArgumentParser(description=description, formatter_class=layout)
    for name, (default, words) in settings.items():
        if default is False:
            flags.add_argument(f"--{name}", action="store_true", help=words)
            continue
        words += "" if default == "" else " (%(default)s)"
        flags.add_argument(f"--{name}", type=type(default), default=default, help=words)
    return flags


def benchmark(description, settings, rounds, config=None):
    """The `parser` of a benchmark: --rounds, --output, and --config and --set if it takes a config.

    `config` is the default of --config; "" requires the flag.
    """
    common = {"rounds": (rounds, "samples of each time, in turns"), "output": ("", "JSON file")}
    flags = parser(description, settings | common)
    if config is not None:
        words = "config file with its argument: configs/hci.py:method=coop"
        flags.add_argument("--config", default=config, required=not config, help=words)
        words = "field of the config: data.batch=4"
        flags.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=words)
    return flags
