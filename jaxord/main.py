"""The command: python -m jaxord.main --config=hci [--workdir=runs/hci] [--config.seed=1 ...].

Parses the flags and calls one function: train.run, evaluate.evaluate_run, report.write,
predict.predict_run or export.export. A mistake of the user ends in one line and exit code 1.
"""

import errno
import logging as stdlib_logging
import os
import pathlib
import platform
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxord import __version__, catalogue, shipped
from jaxord.runtime import REPEATABLE, signals
from jaxord.workdir import run_config

MODES = ["train", "evaluate", "report", "predict", "export"]


def _text(name, help, default=""):
    return flags.DEFINE_string(name, default, help)


_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Data set and method: hci, hci:method=coop, or the path of a config file."
)
_CONFIG_JSON = _text("config_json", "train, evaluate: a finished config as JSON, for --config.")
_WORKDIR = _text("workdir", "Folder of the run; '' is runs/<data set>-<method>.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_FOLD = _text("fold", "predict, export: the fold to take from a run with several.")
_OUTPUT = _text("output", "evaluate, export: a folder; predict: a .csv or .jsonl file.")
_IMAGES = _text(
    "images",
    "predict: a folder, a pattern, a .csv with a column path, a .txt list or one image; the same "
    "for videos; for pairs of sentences a table with the columns sentence1 and sentence2.",
)
_ROOT = _text("root", "predict: the folder that a list's paths start from; '' is the list's own.")
_BATCH = flags.DEFINE_integer("batch", 0, "predict: examples read at once; 0: data.eval_batch.")
_FORMAT = _text("format", "export: 'hf', 'torch', 'stablehlo' or 'onnx'; '' fits the tower.")
_NAMING = _text("naming", "export: names of CLIP's parameters, 'hf' or 'open_clip'.", "hf")
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Give the same bytes again on a GPU too, as on a CPU; slower."
)
_DRY = flags.DEFINE_bool(
    "dry", False, "train: stop after the summary and one traced step; make no workdir."
)
_LIST = flags.DEFINE_bool("list", False, "List data sets, methods and their options.")
_VERSION = flags.DEFINE_bool("version", False, "Print the version.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the program an error came from.")

# The flags that mean something to a mode, and how many of them, from the first, it needs.
TAKES = {
    "train": (_CONFIG, _WORKDIR, _CONFIG_JSON, _DRY),
    "evaluate": (_WORKDIR, _CONFIG, _OUTPUT, _CONFIG_JSON),
    "report": (_WORKDIR,),
    "predict": (_WORKDIR, _IMAGES, _OUTPUT, _FOLD, _ROOT, _BATCH),
    "export": (_WORKDIR, _OUTPUT, _FOLD, _FORMAT, _NAMING),
}
NEEDS = {"train": 1, "evaluate": 1, "report": 1, "predict": 3, "export": 2}


def check(mode):
    """Raises ValueError for a flag that is missing or that the mode would ignore."""
    for flag in TAKES[mode][: NEEDS[mode]]:
        if not flag.value and not (flag is _CONFIG and _CONFIG_JSON.value):
            first = "; for the first run: --config=quickstart; --list shows what there is"
            raise ValueError(f"--mode={mode} needs --{flag.name}{first if mode == 'train' else ''}")
    known = [flag.name for flag in TAKES[mode]]
    for flag in (flag for flags_of_mode in TAKES.values() for flag in flags_of_mode):
        if flag.name not in known and flag.present:
            names = ", --".join(known)
            raise ValueError(f"--{flag.name} means nothing to --mode={mode}, which takes --{names}")
    if _CONFIG.value and _CONFIG_JSON.value:
        raise ValueError("--config and --config_json each give the whole config; give one of them")


def keep_programs(environment):
    """Sets jax's cache of compiled programs, so that a later process starts sooner.

    JAX_COMPILATION_CACHE_DIR overrides the folder. Each machine has its own: a program compiled for
    one CPU may contain instructions that another lacks. The least used programs go beyond 4 GiB.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        caches = pathlib.Path(environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        folder = caches / "jaxord" / f"programs-{platform.node()}"
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**32))


def read_config():
    """Returns the config of --config or --config_json."""
    path = _CONFIG_JSON.value
    if not path:
        return _CONFIG.value
    try:
        return run_config.from_json(pathlib.Path(path).read_text())
    except (OSError, ValueError, AttributeError) as error:
        fault = f"--config_json={path} is no config as a run's config.json holds it: {error}"
        raise ValueError(fault) from None


def main(_):
    if _VERSION.value or _LIST.value:
        print(f"jaxord {__version__}" if _VERSION.value else catalogue.listing())
        return
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax reports every file; --verbosity=0 shows it
    keep_programs(os.environ)
    if _DETERMINISTIC.value:
        # Set before jax makes its first device: fixed kernels, and none that adds in any order.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {REPEATABLE}"
    try:
        check(_MODE.value)
        config = read_config()
        if config is not None:
            run_config.check_entries(config)
        run_mode(_MODE.value, config)
    except ValueError as error:
        if _TRACEBACK.value:
            raise
        end(str(error))
    except OSError as error:
        if _TRACEBACK.value or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        end(f"{error}; make room, and the same command goes on")


def run_mode(mode, config):
    """Calls the function of the mode. Training obeys signals itself, for it has state to save."""
    workdir = _WORKDIR.value
    output = _OUTPUT.value
    with signals.Stop():
        # Importing jax takes seconds; --help and a mistyped flag do not need it.
        from jaxord import evaluate, export, predict, report, train
        from jaxord.runtime import hosts

    if mode in ("train", "evaluate"):
        hosts.start()
    if mode == "train" and not _DRY.value:
        train.run(config, workdir or f"runs/{config.name}-{config.method}")
        return
    with signals.Stop():
        if mode == "train":
            print(train.preview(config))
        elif mode == "evaluate":
            evaluate.evaluate_run(workdir, config, output)
        elif mode == "report":
            print(report.write(workdir))
        elif mode == "predict":
            inputs = _IMAGES.value, output, _FOLD.value, _BATCH.value, _ROOT.value
            predict.predict_run(workdir, *inputs)
        else:
            form = {"format": _FORMAT.value, "naming": _NAMING.value, "fold": _FOLD.value}
            export.export(workdir, output, **form)


def end(message):
    """Exits with code 1; silences asyncio, so that the message stays the last line."""
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    sys.exit(f"error: {message}")


def parse(arguments):
    """Parses the flags; a mistake in them or in the config's argument ends in one line."""
    shipped.make_importable()
    try:
        arguments = shipped.with_configs_found(arguments)
        rest = flags.FLAGS(arguments)
        if len(rest) > 1:
            raise flags.Error(f"found {rest[1]!r}; options begin with --")
        getattr(_CONFIG.value, "name", "")  # raises the error of a config file that did not load
        return rest
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        text = run_config.wrong_field(arguments) or str(error)
        # A config file's exception arrives as a traceback, whose last part is the message.
        sys.exit("error: " + (text.rpartition("Error: ")[2] if "Traceback" in text else text))


def start():
    """Runs the command."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    start()
