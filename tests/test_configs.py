"""Every valid pair of data set and method: builds, survives JSON, equals its golden text, and one step of it has shapes.

After a wanted change of a default: python tests/test_configs.py rewrites the golden files.
"""

import dataclasses
import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pairs import PAIRS
from jaxord import optim, ranks, settings, tokenizer, trees
from jaxord.assemble import initial_parameters
from jaxord.models import ordinal
from jaxord.step import objective
from jaxord.weights import variants

TINY = variants.VARIANTS["tiny"]
SHALLOW = dataclasses.replace(
    TINY, **{side: dataclasses.replace(getattr(TINY, side), layers=1) for side in ("vision", "text")}
)
GOLDEN = pathlib.Path(__file__).parent / "golden"
EXTRA = [  # presets and ablations
    "hci:method=numclip,preset=code", "hci:method=coop,preset=vanilla", "morph:method=numclip,preset=code",
    "aesthetics:method=numclip,preset=code", "aesthetics:method=numclip,preset=regclip",
    "morph:method=numclip,concepts=off,regularizer=off", "morph:method=numclip,regression=off,distance=sqrt,form=class",
    "morph:method=ordinalclip,interpolation=normal,base_ranks=5,template=8", "hci:method=numclip,backbone=ViT-L/14-336,fold=3",
    "morph:method=numclip,backbone=tiny", "folder:method=ce_l1,backbone=tiny",
]
NAMES = [f"{name}:method={method}" for name, methods in PAIRS.items() for method in methods] + EXTRA


def get(name):
    data_set, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{data_set}").get_config(argument)


def golden_file(name):
    return GOLDEN / (name.replace(":method=", "-").replace("/", "").replace(",", "-").replace("=", "_") + ".json")


@pytest.mark.parametrize("name", NAMES)
def test_config_equals_its_golden_text_and_survives_json(name):
    config = get(name)
    text = settings.to_json(config)
    assert golden_file(name).read_text() == text, "a default changed; if that is wanted: python tests/test_configs.py"
    restored = settings.from_json(text)
    assert settings.to_json(restored) == text
    assert isinstance(restored.rules, tuple) and restored.rules[0].name == config.rules[0].name
    with pytest.raises(AttributeError, match="Did you mean"):
        restored.optim.nmae = "adam"


def test_golden_files_are_those_of_the_pairs():
    assert {file.name for file in GOLDEN.glob("*.json")} == {golden_file(name).name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_one_step_has_shapes(name):
    """Builds the model one block deep and traces losses, gradients and the optimizer without computing anything."""
    config = get(name)
    with config.unlocked():
        config.model.weights = ""
    if not config.ranks.labels and not config.ranks.edges:
        config.ranks.labels = (0.0, 1.0, 2.0)
    sizes = SHALLOW
    config.data.image_size = sizes.image_size
    built = ranks.build(config.ranks, [])
    prompt = {}
    if config.prompt.name:
        prompt = ranks.sentences(config.prompt, built.names, tokenizer.byte_tokenizer(), sizes.max_positions)
    model = ordinal.build(config, sizes, jnp.dtype("float32"), prompt.get("prompt_slots"))
    constants = {"rank_values": built.values, **prompt}
    arrays = {**constants, "image": jnp.zeros((4, 2, 32, 32, 3)), "target": jnp.zeros(4), "rank": jnp.zeros(4, jnp.int32)}
    shapes = trees.flatten(jax.eval_shape(lambda: model.init(jax.random.key(0), arrays))["params"])
    trained, frozen, groups = optim.split(shapes, config.optim)
    if config.train.duration == "0 steps":
        assert not trained
        outputs = jax.eval_shape(lambda p: model.apply({"params": trees.unflatten(p)}, arrays), shapes)
        assert outputs["logits"].shape == (4, len(built.values))
        return
    length = functools.partial(optim.steps, batch=4, examples=40, total=1000)
    optimizer = optim.make(config.optim, groups, optim.schedule(config.optim, 1000, length))
    total_loss = objective(config)

    def step(trained, frozen):
        def loss(trained):
            outputs = model.apply({"params": trees.unflatten({**trained, **frozen})}, arrays)
            return total_loss({**arrays, **outputs})

        (value, terms), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        return value, terms, optimizer.update(gradients, optimizer.init(trained), trained)

    value, terms, (updates, _) = jax.eval_shape(step, trained, frozen)
    assert value.shape == () and len(terms) == len(config.losses)
    assert {path: x.shape for path, x in updates.items()} == {path: x.shape for path, x in trained.items()}


@pytest.mark.parametrize("name, words", [
    ("hci:method=numclp", "Did you mean 'numclip'"),
    ("hci:method=numclip,presett=code", "Did you mean 'preset'"),
    ("hci:method=numclip,preset=cod", "Did you mean 'code'"),
    ("hci:numclip", "key=value"),
    ("hci:backbone=ViT-B/61", "Did you mean 'ViT-B/16'"),
    ("hci:method=coop,template=7", "a photo taken in the"),
    ("quickstart:method=zero_shot", "no method 'zero_shot'"),
])
def test_mistakes_are_named(name, words):
    with pytest.raises(ValueError, match=words):
        get(name)


def test_no_method_of_a_preset_selects_on_test():
    assert all(get(name).select == "val" for name in NAMES)


def test_prompt_parameters_start_from_words_or_drawn():
    config = get("digits:method=numclip")
    built = ranks.build(config.ranks, [])
    sizes = variants.VARIANTS["tiny"]
    prompt = ranks.sentences(config.prompt, built.names, tokenizer.byte_tokenizer(), sizes.max_positions)
    model = ordinal.build(config, sizes, jnp.dtype("float32"), prompt["prompt_slots"])
    parameters = initial_parameters(config, model, {"rank_values": built.values, **prompt})
    words = parameters["text_model/embeddings/token_embedding/embedding"]
    context = prompt["prompt_tokens"][0][prompt["prompt_slots"][0] == 1]
    np.testing.assert_array_equal(parameters["prompt/context"], words[context])


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for file in GOLDEN.glob("*.json"):
        file.unlink()
    for name in NAMES:
        golden_file(name).write_text(settings.to_json(get(name)))
