"""An experiment: a file with a function sweep(add) that calls add(label, config, fields) per run.

The label names the settings and is the row of the table; runs of one label differ in seed or fold.
`config` is an argument of --config, `fields` are {field: value} set over it. A sweep makes the
config once, when it first meets the run, and writes config.json, which everything later reads.

An optional function evaluations(add) calls add(data set, label, name, config, fields): each
finished run of that data set and label is evaluated on that config as well, without training, into
evaluated/<name> of its folder.
"""

import collections
import fnmatch
import hashlib
import importlib.util
import pathlib
import re

from jaxord import shipped
from jaxord.binding import did_you_mean
from jaxord.workdir import layout, run_config

# `of` names the run that an evaluation belongs to.
Run = collections.namedtuple("Run", "name data_set label seed arguments of", defaults=("",))


def arguments_of(parser):
    """Adds the arguments that say which experiment and where its runs are."""
    which = "file of an experiment, or the name of one of the package's"
    parser.add_argument("experiment", type=pathlib.Path, help=which)
    where = {"type": pathlib.Path, "default": pathlib.Path("runs")}
    parser.add_argument("--output", **where, help="folder of the experiments' folders: runs")


def find(path):
    """The existing file of an experiment: a path, or a name or path of the package's own."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    known = {file.stem: file for file in (shipped.ROOT / "experiments").glob("[a-z]*.py")}
    name = path.as_posix().removeprefix("experiments/").removesuffix(".py")
    if name in known:
        return known[name]
    expected = "An experiment is a Python file with a function sweep(add)."
    raise ValueError(f"{path} is not there. {did_you_mean(path.stem, known, expected)}")


def load(path):
    """The module of an experiment, found by `find`."""
    file = find(path)
    spec = importlib.util.spec_from_file_location("experiment", file)
    if not spec:
        raise ValueError(f"{file} is no Python file; an experiment is one, with sweep(add)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{file} has no function sweep(add), as an experiment has")
    return module


def name_of(*parts):
    """The name of a folder from its parts, without the empty ones."""
    return re.sub(r"[^\w.,=+-]+", "_", "-".join(filter(None, parts)))


def runs_of(experiment, options=(), fields=()):
    """[Run] of an experiment's module, called <data set>-<label>[-fold=<fold>]-seed=<seed>.

    `options` are "key=value" texts added to every config's argument, `fields` "field=value" texts
    set in every run, over the experiment's own. ValueError for two runs of one name.
    """
    runs = {}
    overrides = _pairs(fields)

    def add(label, config, settings):
        config = _with_options(config, options)
        path, _, argument = config.partition(":")
        settings = {**settings, **overrides}
        data_set = pathlib.PurePath(path).stem
        seed = int(settings.get("seed", 0))
        # A field overrides the option of the config's argument.
        fold = settings.get("fold", _pairs(argument.split(",")).get("fold", ""))
        name = name_of(data_set, label, f"fold={fold}" if fold else "", f"seed={seed}")
        if name in runs:
            rule = "runs of one label differ in the seed or the fold, others need another label"
            raise ValueError(f"two runs are called {name}; {rule}")
        runs[name] = Run(name, data_set, label, seed, _arguments(config, settings))

    experiment.sweep(add)
    return list(runs.values())


def among(runs, patterns):
    """The runs whose names match a pattern, or all; ValueError for a pattern without a run."""

    def matching(pattern):
        names = [run.name for run in runs if fnmatch.fnmatchcase(run.name, pattern)]
        if not names:
            examples = ", ".join(run.name for run in runs[:3])
            raise ValueError(f"no run matches --only={pattern}; they are called like {examples}")
        return names

    chosen = {name for pattern in patterns for name in matching(pattern)}
    return [run for run in runs if not patterns or run.name in chosen]


def evaluations_of(experiment, runs, options=(), fields=()):
    """The evaluations of `runs` on other configs, as [Run] with `of`, in the experiment's order.

    `options` and `fields` are as in `runs_of`. An evaluation is called <run>/evaluated/<name>.
    """
    evaluations = []
    overrides = _pairs(fields)

    def add(data_set, label, name, config, settings):
        arguments = _arguments(_with_options(config, options), {**settings, **overrides})
        evaluations.extend(
            Run(f"{run.name}/evaluated/{name}", data_set, label, run.seed, arguments, run.name)
            for run in runs
            if (run.data_set, run.label) == (data_set, label)
        )

    if hasattr(experiment, "evaluations"):
        experiment.evaluations(add)
    return evaluations


def _pairs(texts):
    """{key: value} of "key=value" texts."""
    return dict(text.partition("=")[::2] for text in texts)


def _with_options(config, options):
    """An argument of --config, such as "hci:method=ce", with more options."""
    path, _, argument = config.partition(":")
    argument = ",".join(filter(None, [argument, *options]))
    return f"{path}:{argument}" if argument else path


def _arguments(config, fields):
    """The command's arguments that make a config."""
    return (f"--config={config}", *(f"--config.{key}={value}" for key, value in fields.items()))


def config_of(run):
    """The finished config of a run, made from its arguments as the command makes it."""
    try:
        return run_config.from_arguments(shipped.with_configs_found(run.arguments))
    except ValueError as error:
        raise ValueError(f"{run.name}: {error}") from None


def digest(run):
    """A text that changes with the config files: the package's own and the run's."""
    (argument,) = shipped.with_configs_found(run.arguments[:1])
    run_file = pathlib.Path(argument.removeprefix("--config=").partition(":")[0])
    config_files = sorted((shipped.ROOT / "configs").rglob("*.*"))
    files = [file for file in config_files if file.suffix in (".py", ".json")]
    content = b"".join(file.read_bytes() for file in [*files, run_file])
    return hashlib.sha256(content).hexdigest()[:16]


def settle(run, folder, journal):
    """The config of a run, as its folder's config.json has it.

    The journal knows from which arguments and config files config.json was made. While they are the
    same, no config file is executed again. ValueError for a mistake in the arguments, or a folder
    that has trained under another config.
    """
    file = folder / "config.json"
    recipe = {"arguments": list(run.arguments), "configs": digest(run)}
    made = journal.last(run.name, "made")
    if not file.exists() or not recipe.items() <= made.items():
        config = config_of(run)
        folder.mkdir(parents=True, exist_ok=True)
        layout.claim(folder, config)
        journal.write("made", run.name, **recipe)
    return run_config.from_json(file.read_text())


def is_done(run, folder, config):
    """Whether every stage of every fold, or the evaluation, has its DONE.json."""
    if run.of:
        return (folder / "DONE.json").exists()
    stages = (layout.stages_of(config, folder, fold) for fold in layout.chosen_folds(config))
    return all((stage / "DONE.json").exists() for fold in stages for stage, _ in fold)
