"""Every valid pair of data set and method builds, survives JSON, equals its golden text and traces.

tests/golden/base.json is the config with every default, data_sets.json what each data set changes,
<method>.json what the method changes on each. To accept a change of a default, run
PYTHONPATH=. python tests/test_configs.py, which rewrites them.
"""

import dataclasses
import functools
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import base
from configs.pairs import PAIRS
from jaxord import optim, step, trees
from jaxord.data.records import Records
from jaxord.models import ordinal, tokens, variants
from jaxord.targets import labels, ranks
from jaxord.weights import initial
from jaxord.workdir import run_config

TINY = variants.VARIANTS["tiny"]
SHALLOW = dataclasses.replace(
    TINY,
    **{side: dataclasses.replace(getattr(TINY, side), layers=1) for side in ("vision", "text")},
)
GOLDEN = pathlib.Path(__file__).parent / "golden"
EXTRA = {  # presets and ablations
    "hci": (
        "method=numclip,preset=code",
        "method=coop,preset=vanilla",
        "method=numclip,backbone=ViT-L/14-336,fold=3",
    ),
    "morph": (
        "method=numclip,preset=code",
        "method=numclip,concepts=off,regularizer=off",
        "method=numclip,backbone=tiny",
        "method=numclip,regression=off,distance=sqrt,form=class",
        "method=ordinalclip,interpolation=normal,base_ranks=5,template=8",
        "method=ordinalclip,backbone=VGG-16",
        "method=ordinalclip,base_names=young+middle_aged+old",
        "method=l2rclip,prompt=interpolation",
        "method=l2rclip,form=euclid,backbone=tiny",
        "method=l2rclip,prompt=off,cop=off",
        "method=conord,weights=X",
        "method=conord,reading=literal",
        "method=conord,loss=expected_error,center=off",
    ),
    "aesthetics": ("method=numclip,preset=code", "method=numclip,preset=regclip"),
    "folder": (
        "method=ce_l1,backbone=tiny",
        "method=rnc,backbone=tiny",
        "method=fds,lds=on,low=0,high=3,width=1",
    ),
    "agedb": (
        "method=rnc,backbone=ResNet-18",
        "method=rnc,protocol=knn",
        "method=supcon,backbone=ResNet-50,positives=view",
        "method=group_dir,backbone=ResNet-50",
        "method=group_dir,classifier=ce",
        "method=group_dir,classifier=la,lds=on",
        "method=group_dir,contrast=off,mapping=divide",
        "method=lds,backbone=ResNet-50",
    ),
    "koniq": (
        "method=conord,references=interpolate,rate=peak",
        "method=conord,initial=mean",
        "fold=official",
    ),
    "stsb": ("method=group_dir,size=small", "method=mse,size=small,vectors=glove.txt"),
}
NAMES = [
    f"{name}:{argument}"
    for name, methods in PAIRS.items()
    for argument in (*(f"method={method}" for method in methods), *EXTRA.get(name, ()))
    if (name, argument) != ("folder", "method=fds")  # needs the range of the labels
]
# Shapes are those of the method and of the kind of data: each method on ages, and every other kind
# by a few.
SHAPES = [name for name in NAMES if name.startswith(("morph:", "stsb:", "mpiifacegaze:"))] + [
    "quickstart:method=ce_l1",
    "koniq:method=conord",
    "koniq:method=conord,references=interpolate,rate=peak",
    "lsvq:method=conord",
    "lsvq:method=numclip",
    "agedb:method=group_dir,backbone=ResNet-50",
    "agedb:method=rnc,backbone=ResNet-18",
    "hci:method=numclip,preset=code",
    "hci:method=coop,preset=vanilla",
    "folder:method=fds,lds=on,low=0,high=3,width=1",
]


@functools.cache
def get(name):
    data_set, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{data_set}").get_config(argument)


def flat(value, path=""):
    """{'optim.name': value} of a plain config."""
    if isinstance(value, dict) and value:
        return {
            k: v
            for key, item in value.items()
            for k, v in flat(item, f"{path}.{key}" if path else key).items()
        }
    return {path: value}


def text(pairs):
    """One line a field."""
    blocks = []
    for argument, fields in pairs.items():
        lines = ",\n".join(
            f"  {json.dumps(field)}: {json.dumps(value, ensure_ascii=False)}"
            for field, value in fields.items()
        )
        blocks.append(f" {json.dumps(argument)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


# Fields that a data set's file decides, whatever the method.
OF_DATA_SET = ("name", "fold", "data.root", "data.reader.", "data.table", "data.folds", "ranks.")
DATA_SETS = "data_sets"


def changes(name, known):
    """{field: value} of a pair where it differs from the fields that are known."""
    fields = flat(run_config.plain(get(name)))
    values = {field: fields.get(field, "(absent)") for field in sorted({*fields, *known})}
    return {k: v for k, v in values.items() if v != known.get(k, "(absent)")}


def golden(title):
    """The content of one golden file: of the data sets, or of a method.

    A new method adds one file and leaves the others as they are: a data set's fields are those of
    its default method, and a method's file has, for each of its pairs, what differs from them;
    fields that all its pairs share come first, under "all".
    """
    if title == DATA_SETS:
        return {name: of_data_set(name) for name in PAIRS}
    pairs = {
        name: changes(name, DEFAULTS | of_data_set(name.partition(":")[0]))
        for name in NAMES
        if get(name).method == title
    }
    first, *others = pairs.values()
    shared = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    own = {
        name: {k: v for k, v in fields.items() if k not in shared} for name, fields in pairs.items()
    }
    return {"all": shared, **own}


@functools.cache
def of_data_set(name):
    return {k: v for k, v in changes(f"{name}:", DEFAULTS).items() if k.startswith(OF_DATA_SET)}


DEFAULTS = flat(run_config.plain(base()))
METHODS = sorted({method for methods in PAIRS.values() for method in methods})


@pytest.mark.parametrize("title", [DATA_SETS, *METHODS])
def test_configs_equal_their_golden_text(title):
    expected = json.loads((GOLDEN / f"{title}.json").read_text())
    current = json.loads(text(golden(title)))
    for name in {*expected, *current}:
        assert current.get(name) == expected.get(name), (
            f"{name} changed; if that is wanted: PYTHONPATH=. python tests/test_configs.py"
        )


def test_defaults_equal_their_golden_text_and_no_file_is_left_over():
    assert (GOLDEN / "base.json").read_text() == run_config.to_json(base())
    assert {file.stem for file in GOLDEN.glob("*.json")} == {"base", DATA_SETS, *METHODS}


def test_every_config_survives_json():
    for name in NAMES:
        config = get(name)
        json_text = run_config.to_json(config)
        restored = run_config.from_json(json_text)
        assert run_config.to_json(restored) == json_text
        assert isinstance(restored.rules, tuple) and restored.rules[0].name == config.rules[0].name
    with pytest.raises(AttributeError, match="Did you mean"):
        restored.optim.nmae = "adam"


def parts(value):
    """The ConfigDicts in a value."""
    if isinstance(value, ConfigDict):
        yield value
        value = tuple(value.values())
    if isinstance(value, tuple):
        for each in value:
            yield from parts(each)


def test_a_field_that_is_set_changes_no_other():
    for name in NAMES:
        found = [id(part) for part in parts(get(name))]
        assert len(found) == len(set(found)), name


def small(config):
    """The config with the smallest towers, without weights."""
    config = run_config.from_json(run_config.to_json(config))
    with config.unlocked():
        config.model.weights, config.model.vectors, config.data.image_size = (
            "",
            "",
            SHALLOW.image_size,
        )
        config.model.sentence.hidden, config.mixture = 4, min(config.mixture, 2)
        if not config.ranks.labels and not config.ranks.edges:
            config.ranks.labels = (0.0, 1.0, 2.0)
    return config


def records_of(config):
    """Four examples of the kind of data that the config reads."""
    targets = np.array([1.0, 2.0, 2.0, 4.5], np.float32)
    inputs, read, vocabulary = {}, lambda row: b"", ()
    if config.name == "mpiifacegaze":
        targets = np.stack([targets, targets], 1)
    if config.name == "stsb":
        inputs = {
            "sentences": np.zeros((4, 2, 8), np.int32),
            "sentence_mask": np.ones((4, 2, 8), bool),
        }
        read, vocabulary = None, "abc"
    if config.name in ("lsvq", "konvid", "live_vqc", "cvd2014", "youtube_ugc"):
        inputs = {"motion": np.zeros((4, 2, 4, 7, 7, 256), np.float16)}
    return Records(
        tuple("abcd"), targets, read, {}, "four", inputs=inputs, vocabulary=tuple(vocabulary)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_one_step_of_each_stage_has_shapes(name):
    """Builds the model one block deep and traces losses, gradients and the optimizer without
    computing anything."""
    whole = small(get(name))
    before = None
    for config in [run_config.staged(whole, stage) for stage in whole.stages] or [whole]:
        records = records_of(config)
        targets = records.targets
        built = ranks.build(config.ranks, targets) if targets.ndim == 1 else None
        made = labels.build(config, targets, built)
        prompt = {}
        if config.prompt.name:
            prompt = tokens.sentences(config.prompt, built.names, tokens.byte_tokenizer(), 120)
        sizes = dataclasses.replace(SHALLOW, max_positions=120)  # bytes take more room than words
        model = ordinal.build(
            config, sizes, jnp.dtype("float32"), prompt.get("prompt_slots"), (3, 4)
        )
        constants = {**made.constants, **prompt, "seed": jnp.uint32(0)}
        inputs = {key: jnp.zeros(x.shape, x.dtype) for key, x in records.inputs.items()}
        image = {} if "sentences" in inputs else {"image": jnp.zeros((4, 2, 32, 32, 3))}
        epoch = {"index": jnp.arange(4), "epoch": jnp.zeros(4, jnp.int32)}
        arrays = {**constants, **inputs, **image, **epoch, **made.columns(targets)}
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), arrays))  # noqa: B023
        shapes = {
            collection: trees.flatten(shapes.get(collection, {}))
            for collection in ("params", "stats")
        }
        if before is not None:
            initial.inherited(config, shapes, before)
        before = shapes
        trained, frozen, groups = optim.split(shapes["params"], config.optim)
        if config.train.duration == "0 steps":
            assert not trained
            outputs = jax.eval_shape(lambda p: model.apply(trees.nested(p), arrays), shapes)  # noqa: B023
            assert outputs["logits"].shape == (4, len(built.values))
            return
        length = functools.partial(optim.steps, batch=4, examples=40, total=1000)
        optimizer = optim.make(config.optim, groups, optim.rate_factor(config.optim, 1000, length))
        state = step.State(
            jnp.int32(0),
            trained,
            frozen,
            shapes["stats"],
            jax.eval_shape(optimizer.init, trained),
            jnp.zeros(2, jnp.int32),
        )
        update = step.make_train_step(
            model,
            step.objective(config),
            optimizer,
            lambda batch, columns, constants: {**batch, **columns},
            jax.sharding.SingleDeviceSharding(jax.devices()[0]),
            skips=config.train.skips,
            statistics=config.train.statistics,
        )
        batch = {**inputs, **image, **epoch}
        after, values = jax.eval_shape(update, state, batch, made.columns(targets), constants)
        assert values["loss"].shape == () and len(values) == len(config.losses) + 3
        assert {path: x.shape for path, x in after.trained.items()} == {
            path: x.shape for path, x in trained.items()
        }
        assert {path: x.shape for path, x in after.stats.items()} == {
            path: x.shape for path, x in state.stats.items()
        }


@pytest.mark.parametrize(
    "name, words",
    [
        ("hci:method=numclp", "Did you mean 'numclip'"),
        ("hci:method=numclip,presett=code", "Did you mean 'preset'"),
        ("hci:method=numclip,preset=cod", "Did you mean 'code'"),
        ("hci:numclip", "key=value"),
        ("hci:backbone=ViT-B/61", "Did you mean 'ViT-B/16'"),
        ("hci:method=coop,template=7", "a photo taken in the"),
        ("quickstart:method=zero_shot", "no method 'zero_shot'"),
    ],
)
def test_mistakes_are_named(name, words):
    with pytest.raises(ValueError, match=words):
        get(name)


def test_no_method_of_a_preset_selects_on_test():
    assert all(get(name).select in ("val", "last") for name in NAMES)


def test_prompt_parameters_start_from_words_or_drawn():
    config = get("digits:method=numclip")
    built = ranks.build(config.ranks, [])
    prompt = tokens.sentences(
        config.prompt, built.names, tokens.byte_tokenizer(), TINY.max_positions
    )
    model = ordinal.build(config, TINY, jnp.dtype("float32"), prompt["prompt_slots"])
    records = Records(("a",), np.zeros(1, np.float32), lambda row: b"", {}, "one")
    parameters = initial.variables(config, model, {"rank_values": built.values, **prompt}, records)[
        "params"
    ]
    words = parameters["text_model/embeddings/token_embedding/embedding"]
    context = prompt["prompt_tokens"][0][prompt["prompt_slots"][0] == 1]
    np.testing.assert_array_equal(parameters["prompt/context"], words[context])


if __name__ == "__main__":
    for file in GOLDEN.glob("*.json"):
        file.unlink()
    (GOLDEN / "base.json").write_text(run_config.to_json(base()))
    for title in (DATA_SETS, *METHODS):
        (GOLDEN / f"{title}.json").write_text(text(golden(title)))
