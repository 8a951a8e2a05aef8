"""An experiment: a file with a function sweep(add), which calls add(label, config, fields) for each
of its runs.

The label names the settings and is the row of the table (runs of one label differ in seed or fold),
the config is an argument of --config, fields are {field: value} set over it. A run's config is made
once, when a sweep first meets the run, and written into its folder; from then on config.json is
what is read.

A function evaluations(add), where there is one, calls add(data set, label, name, config, fields):
each finished run of that data set and label is evaluated on that config as well, without training,
into evaluated/<name> of its folder.
"""

import collections
import fnmatch
import hashlib
import importlib.util
import pathlib
import re

from jaxord.workdir import layout, run_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
# `of` is the name of the run that an evaluation is of.
Run = collections.namedtuple("Run", "name data_set label seed arguments of", defaults=("",))


def arguments_of(parser):
    """Adds what tells which experiment it is and where its runs are."""
    parser.add_argument("experiment", type=pathlib.Path, help="file of the experiment")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=ROOT / "runs",
        help="folder of the experiments' folders",
    )


def load(file):
    """The module of an experiment file."""
    spec = importlib.util.spec_from_file_location("experiment", file)
    if not spec or not pathlib.Path(file).is_file():
        raise ValueError(
            f"{file} is not there; an experiment is a Python file with a function sweep(add)"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{file} has no function sweep(add), as an experiment has")
    return module


def name_of(*parts):
    """A folder's name, of parts that are not empty."""
    return re.sub(r"[^\w.,=+-]+", "_", "-".join(filter(None, parts)))


def runs_of(experiment, options=(), fields=()):
    """The runs of an experiment, in its order.

    Args:
      experiment: its module.
      options: "key=value" texts added to every config's argument.
      fields: "field=value" texts set in every run, over the experiment's own.

    Returns:
      [Run]: name of the folder (data set, label, fold where one is chosen, seed), data set, label,
        seed, and the command's
      arguments that make the config.

    Raises:
      ValueError: two runs of one name.
    """
    found, given = {}, dict(field.partition("=")[::2] for field in fields)

    def add(label, config, own):
        path, argument = parted(config, options)
        data_set, own = pathlib.PurePath(path).stem, {**own, **given}
        seed, chosen = (
            int(own.get("seed", 0)),
            dict(option.partition("=")[::2] for option in argument.split(",")),
        )
        fold = own.get("fold", chosen.get("fold", ""))
        name = name_of(data_set, label, f"fold={fold}" if fold else "", f"seed={seed}")
        if name in found:
            raise ValueError(
                f"two runs are called {name}; runs of one label differ in the seed or the fold, others need another label"
            )
        found[name] = Run(name, data_set, label, seed, arguments_for(path, argument, own))

    experiment.sweep(add)
    return list(found.values())


def among(runs, patterns):
    """The runs whose names match one of the patterns, all of them without patterns; ValueError for
    a pattern without a run."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(run.name, pattern) for run in runs):
            raise ValueError(
                f"no run matches --only={pattern}; they are called like {', '.join(run.name for run in runs[:3])}"
            )
    return [
        run
        for run in runs
        if not patterns or any(fnmatch.fnmatchcase(run.name, pattern) for pattern in patterns)
    ]


def evaluations_of(experiment, runs, options=(), fields=()):
    """The evaluations of an experiment's runs on other configs, in its order.

    Args:
      experiment: its module.
      runs: [Run] of `runs_of`.
      options, fields: as there.

    Returns:
      [Run] with `of`; the name is that of the run and evaluated/<name>.
    """
    found, given = [], dict(field.partition("=")[::2] for field in fields)

    def add(data_set, label, name, config, own):
        arguments = arguments_for(*parted(config, options), {**own, **given})
        found.extend(
            Run(f"{run.name}/evaluated/{name}", data_set, label, run.seed, arguments, run.name)
            for run in runs
            if (run.data_set, run.label) == (data_set, label)
        )

    getattr(experiment, "evaluations", lambda add: None)(add)
    return found


def parted(config, options):
    """(file, argument with the options) of an argument of --config."""
    path, _, argument = config.partition(":")
    return path, ",".join(filter(None, [argument, *options]))


def arguments_for(path, argument, fields):
    """The command's arguments that make a config."""
    config = f"--config={path}:{argument}" if argument else f"--config={path}"
    return (config, *(f"--config.{field}={value}" for field, value in fields.items()))


def config_of(run):
    """The finished config of a run, from its arguments, read as the command reads them."""
    try:
        return run_config.from_arguments(run.arguments)
    except ValueError as error:
        raise ValueError(f"{run.name}: {error}") from None


def digest(run):
    """A text that changes with the config files: those of configs/ and the run's own."""
    own = pathlib.Path(run.arguments[0].removeprefix("--config=").partition(":")[0])
    files = [
        file for file in sorted((ROOT / "configs").rglob("*.*")) if file.suffix in (".py", ".json")
    ]
    return hashlib.sha256(
        b"".join(file.read_bytes() for file in [*files, own] if file.exists())
    ).hexdigest()[:16]


def settle(run, folder, journal):
    """The config of a run, as its folder's config.json has it.

    The journal knows from which arguments and config files that was made. While those are the same
    no config file is executed again; otherwise it is made, and a folder that has trained something
    under another config is refused.

    Raises:
      ValueError: a mistake in the arguments, or the folder holds another config.
    """
    file, recipe = (
        folder / "config.json",
        {"arguments": list(run.arguments), "configs": digest(run)},
    )
    made = journal.last(run.name, "made")
    if not file.exists() or {key: made.get(key) for key in recipe} != recipe:
        config = config_of(run)
        folder.mkdir(parents=True, exist_ok=True)
        layout.claim(folder, config)
        journal.write("made", run.name, **recipe)
    return run_config.from_json(file.read_text())


def is_done(run, folder, config):
    """Whether a run has nothing left to do: every stage of every fold has its DONE.json, or an
    evaluation its own."""
    if run.of:
        return (folder / "DONE.json").exists()
    stages = [
        stage
        for fold in layout.chosen_folds(config)
        for stage, _ in layout.stages_of(config, folder, fold)
    ]
    return all((stage / "DONE.json").exists() for stage in stages)
