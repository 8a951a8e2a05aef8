"""The command: python -m jaxord.main --config=configs/hci.py [--workdir=runs/hci] [--config.seed=1 ...]."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument: configs/hci.py:method=coop.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; '' is runs/<data set>-<method>.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of what --mode=evaluate finds on another config.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the program an error came from.")


def main(_):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes; --verbosity=0 shows it
    from jaxord import evaluate, train  # after the flags: --help and a mistyped flag need no jax

    config, workdir = _CONFIG.value, _WORKDIR.value
    try:
        if _MODE.value == "evaluate":
            if not workdir:
                raise ValueError("--mode=evaluate reads the folder of a run; give it by --workdir=runs/...")
            evaluate.evaluate_run(workdir, config, _OUTPUT.value)
        elif config is None:
            raise ValueError("no config; for the first run: python -m jaxord.main --config=configs/quickstart.py")
        else:
            train.run(config, workdir or f"runs/{config.name}-{config.method}")
    except ValueError as error:
        if _TRACEBACK.value:
            raise
        sys.exit(f"error: {error}")


def parse(arguments):
    """The flags; what is wrong with them, or with the config's argument, ends in one message and no traceback."""
    try:
        rest = flags.FLAGS(arguments)
        if len(rest) > 1:
            raise flags.Error(f"found {rest[1]!r}; options begin with --")
        getattr(_CONFIG.value, "name", "")  # a config file that could not be loaded says so only now
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        text = str(error).replace("\\n", "\n").replace("\\'", "'")
        if text[:1] == text[-1:] == "'":  # a KeyError's message comes quoted
            text = text[1:-1]
        # An exception in the config file comes as a traceback in the text; its last part is the message.
        sys.exit("error: " + (text.rpartition("Error: ")[2] if "Traceback" in text else text))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
