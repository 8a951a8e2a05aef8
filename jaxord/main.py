"""The command: python -m jaxord.main --config=configs/hci.py [--workdir=runs/hci] [--config.seed=1
...]."""

import errno
import logging as stdlib_logging
import os
import pathlib
import platform
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxord.runtime import REPEATABLE, signals
from jaxord.workdir import run_config

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its argument: configs/hci.py:method=coop."
)
_CONFIG_JSON = flags.DEFINE_string(
    "config_json", "", "train, evaluate: a finished config as JSON, in place of --config."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; '' is runs/<data set>-<method>.")
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "report", "predict", "export"], "What to do."
)
_FOLD = flags.DEFINE_string(
    "fold", "", "predict, export: which fold of the run, where it has several."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "evaluate: folder of what another config gives; predict: .csv or .jsonl file; export: folder.",
)
_IMAGES = flags.DEFINE_string(
    "images",
    "",
    "predict: folder, pattern, .csv with a column path, .txt list, or one image; "
    "likewise videos; pairs of sentences: a table with sentence1, sentence2.",
)
_ROOT = flags.DEFINE_string(
    "root", "", "predict: what the paths of a list are relative to; '' is its own folder."
)
_BATCH = flags.DEFINE_integer(
    "batch", 0, "predict: examples read at once; 0 is the run's data.eval_batch."
)
_FORMAT = flags.DEFINE_string(
    "format",
    "",
    "export: 'hf' (CLIP for transformers), 'torch'; 'stablehlo', 'onnx'; "
    "'' is what fits the tower in torch.",
)
_NAMING = flags.DEFINE_string(
    "naming", "hf", "export: names of CLIP's parameters, 'hf' or 'open_clip'."
)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "On a GPU too the same command gives the same bytes; slower. On a CPU it does so anyway.",
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the program an error came from.")

TAKES = {  # mode -> the flags that mean something there, those that it needs first
    "train": (_CONFIG, _WORKDIR, _CONFIG_JSON),
    "evaluate": (_WORKDIR, _CONFIG, _OUTPUT, _CONFIG_JSON),
    "report": (_WORKDIR,),
    "predict": (_WORKDIR, _IMAGES, _OUTPUT, _FOLD, _ROOT, _BATCH),
    "export": (_WORKDIR, _OUTPUT, _FOLD, _FORMAT, _NAMING),
}
NEEDS = {"train": 1, "evaluate": 1, "report": 1, "predict": 3, "export": 2}  # how many of them


def check(mode):
    """Raises ValueError for a flag that is missing, or that would be ignored."""
    for flag in TAKES[mode][: NEEDS[mode]]:
        if not flag.value and not (flag is _CONFIG and _CONFIG_JSON.value):
            first = (
                "; for the first run: python -m jaxord.main --config=configs/quickstart.py"
                if mode == "train"
                else ""
            )
            raise ValueError(f"--mode={mode} needs --{flag.name}{first}")
    taken = [flag.name for flag in TAKES[mode]]
    for flag in (flag for flags_of in TAKES.values() for flag in flags_of):
        if flag.name not in taken and flag.present:
            raise ValueError(
                f"--{flag.name} means nothing to --mode={mode}, which takes --{', --'.join(taken)}"
            )
    if _CONFIG.value and _CONFIG_JSON.value:
        raise ValueError("--config and --config_json each give the whole config; give one of them")


def keep_programs(environment):
    """Compiled programs outlive the process, so that the next one begins at once;
    JAX_COMPILATION_CACHE_DIR says where else.

    A folder for each machine: a program for one CPU may have instructions that another lacks.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        caches = pathlib.Path(environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        environment["JAX_COMPILATION_CACHE_DIR"] = str(
            caches / "jaxord" / f"programs-{platform.node()}"
        )
        environment.setdefault(
            "JAX_COMPILATION_CACHE_MAX_SIZE", str(2**32)
        )  # bytes; the least used go first


def read_config():
    """The config of --config or --config_json."""
    if not _CONFIG_JSON.value:
        return _CONFIG.value
    try:
        return run_config.from_json(pathlib.Path(_CONFIG_JSON.value).read_text())
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"--config_json={_CONFIG_JSON.value} is no config as a run's config.json holds it: {error}"
        ) from None


def main(_):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(
            logging.WARNING
        )  # orbax tells every file it writes; --verbosity=0 shows it
    mode, workdir, output = _MODE.value, _WORKDIR.value, _OUTPUT.value
    keep_programs(os.environ)
    if _DETERMINISTIC.value:
        # Read when jax makes its first device. It picks kernels without trying them out, and none
        # that adds in any order.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {REPEATABLE}"
    try:
        check(mode)
        config = read_config()
        if config is not None:
            run_config.check_entries(config)
        with signals.Stop():  # it takes seconds
            # Imported late: --help and a mistyped flag need no jax.
            from jaxord import evaluate, export, predict, report, train
            from jaxord.runtime import devices

        if mode in ("train", "evaluate"):
            devices.start()
        if mode == "train":
            train.run(config, workdir or f"runs/{config.name}-{config.method}")
            return
        with signals.Stop():  # nothing is ever unsaved
            if mode == "evaluate":
                evaluate.evaluate_run(workdir, config, output)
            elif mode == "report":
                print(report.write(workdir))
            elif mode == "predict":
                predict.predict_run(
                    workdir, _IMAGES.value, output, _FOLD.value, _BATCH.value, _ROOT.value
                )
            else:
                export.export(
                    workdir, output, format=_FORMAT.value, naming=_NAMING.value, fold=_FOLD.value
                )
    except ValueError as error:
        if _TRACEBACK.value:
            raise
        end(str(error))
    except OSError as error:
        if _TRACEBACK.value or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        end(f"{error}; make room, and the same command goes on")


def end(message):
    """Exits with 1 and a message, which stays the last: what fails beside it tells nothing more."""
    stdlib_logging.getLogger("asyncio").setLevel(
        stdlib_logging.CRITICAL
    )  # it tells of each task when that is collected
    sys.exit(f"error: {message}")


def parse(arguments):
    """The flags; what is wrong with them, or with the config's argument, ends in one message and no
    traceback."""
    try:
        rest = flags.FLAGS(arguments)
        if len(rest) > 1:
            raise flags.Error(f"found {rest[1]!r}; options begin with --")
        getattr(
            _CONFIG.value, "name", ""
        )  # a config file that could not be loaded says so only now
        return rest
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        text = run_config.wrong_field(arguments) or str(error)
        # An exception in the config file comes as a traceback in the text; its last part is the
        # message.
        sys.exit("error: " + (text.rpartition("Error: ")[2] if "Traceback" in text else text))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
