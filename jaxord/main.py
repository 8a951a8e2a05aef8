"""The command: python -m jaxord.main --config=configs/hci.py [--workdir=runs/hci] [--config.seed=1 ...]."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument: configs/hci.py:method=coop.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; '' is runs/<data set>-<method>.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f"found the argument {arguments[1]!r}; options begin with --")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes; --verbosity=0 shows it
    from jaxord import train  # after the flags: --help and a mistyped flag need no jax

    try:
        if _MODE.value == "train":
            if _CONFIG.value is None:
                raise ValueError("no config; for the first run: python -m jaxord.main --config=configs/quickstart.py")
            config = _CONFIG.value
            train.run(config, _WORKDIR.value or f"runs/{config.name}-{config.method}")
        else:
            if not _WORKDIR.value:
                raise ValueError(f"--mode={_MODE.value} reads a run's folder; give it by --workdir=runs/...")
            train.evaluate_run(_WORKDIR.value)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
