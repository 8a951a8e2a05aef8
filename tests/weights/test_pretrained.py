"""Pretrained weights and folds: configs/hci.py on generated photographs and a small random
checkpoint from disk."""

import copy
import hashlib
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from configs import hci
from jaxord import train, trees
from jaxord.export import towers
from jaxord.models.clip import ClipSettings, Tower
from jaxord.task import make_task, overview
from jaxord.weights import hf_clip
from jaxord.workdir import layout
from tests.conftest import write_vocabulary

TOWER = Tower(width=32, layers=1, heads=2, mlp=64)
SETTINGS = ClipSettings(
    vision=TOWER,
    text=TOWER,
    image_size=16,
    patch_size=8,
    vocab_size=527,
    max_positions=77,
    projection_dim=16,
    eos_token_id=526,
)


pytestmark = pytest.mark.usefixtures("lightly_compiled")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint for 16 pixels, so that 32-pixel images need other position embeddings."""
    folder = write_vocabulary(tmp_path_factory.mktemp("weights"))
    generator = np.random.default_rng(0)
    shapes = hf_clip.parameters(SETTINGS)
    params = {
        path: generator.normal(0, 0.1, x.shape).astype(np.float32) for path, x in shapes.items()
    }
    params["logit_scale"] = np.float32(np.log(100.0))
    hf_clip.save(folder, params, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """265 images of each decade, as public lists name them."""
    root, generator = tmp_path_factory.mktemp("hci"), np.random.default_rng(0)
    (root / "images").mkdir()
    for i in range(5):
        decade = f"{1930 + 10 * i}s"
        names = [f"./images/{decade} {n}.jpg" for n in range(265)]
        for name in names:
            pixels = np.clip(30 + 40 * i + generator.normal(0, 15, (24, 24, 3)), 0, 255).astype(
                np.uint8
            )
            Image.fromarray(pixels).save(root / name)
        (root / f"{decade}.txt").write_text(
            "".join(f"{name.replace(' ', '_')} {decade}\n" for name in names)
        )
        for name in names:
            (root / name).rename(root / name.replace(" ", "_"))
    return root


def config(photographs, weights, argument=""):
    c = hci.get_config(argument)
    c.data.root, c.model.weights, c.model.variant = str(photographs), str(weights), ""
    c.data.image_size, c.data.stored_size, c.data.batch = 32, 36, 16
    c.train.duration = "4 steps"
    c.train.evaluate_every = c.train.checkpoint_every = "4 steps"
    return c


def test_all_folds_are_trained_and_summarised(photographs, weights, tmp_path, capsys):
    c = config(photographs, weights)
    c.data.folds = ("0", "1")  # the ten take the same path
    train.run(c, tmp_path)
    out = capsys.readouterr().out
    assert "2 folds, mean +- sd" in out and "69.61 +- 2.02" in out
    results = [
        json.loads((tmp_path / f"fold_{k}" / "results.json").read_text())["test"]["argmax"]["mae"]
        for k in range(2)
    ]
    assert f"{np.mean(results):.3f} +- {np.std(results, ddof=1):.3f}" in out
    paths = [
        (tmp_path / f"fold_{k}" / "predictions.csv").read_text().splitlines() for k in range(2)
    ]
    assert all(len(lines) == 251 for lines in paths)
    assert len({lines[1].split(",")[0] for lines in paths}) > 1  # other folds, other test images


@pytest.mark.parametrize(
    "argument, trained, frozen_text",
    [
        ("method=zero_shot", set(), True),
        ("method=coop,preset=vanilla", {"prompt"}, False),
        ("method=coop", {"prompt", "vision_model", "visual_projection"}, False),
        ("method=numclip", {"prompt", "vision_model", "visual_projection", "bin_regressor"}, False),
        (
            "method=numclip,preset=code",
            {"prompt", "vision_model", "visual_projection", "bin_regressor", "adapter"},
            False,
        ),
        ("method=ce", {"vision_model", "visual_projection", "classifier"}, None),
    ],
)
def test_what_is_trained_and_what_comes_from_the_checkpoint(
    photographs, weights, argument, trained, frozen_text
):
    task = make_task(config(photographs, weights, argument), "3")
    assert {path.split("/")[0] for path in task.trained} == trained
    assert ("text_embeds" in task.constants) == bool(frozen_text)
    source = hf_clip.load(weights, hf_clip.parameters(SETTINGS))
    parameters = {**task.trained, **task.frozen}
    for path, value in source.items():
        if path in parameters and "position_embedding" not in path:
            np.testing.assert_array_equal(parameters[path], value)
    positions = "vision_model/embeddings/position_embedding/embedding"
    assert parameters[positions].shape == (17, 32) and source[positions].shape == (5, 32)
    np.testing.assert_array_equal(parameters[positions][0], source[positions][0])
    if "prompt/context" in parameters and "vanilla" not in argument:
        words = source["text_model/embeddings/token_embedding/embedding"]
        slots, tokens = (
            np.asarray(task.constants[name])[0] for name in ("prompt_slots", "prompt_tokens")
        )
        np.testing.assert_array_equal(parameters["prompt/context"], words[tokens[slots == 1]])


def test_text_computed_once_is_the_text_of_the_tower(photographs, weights):
    task = make_task(config(photographs, weights, "method=zero_shot"), "3")
    arrays = {**task.constants, "image": np.zeros((1, 1, 32, 32, 3), np.float32)}
    without = {name: value for name, value in arrays.items() if name != "text_embeds"}
    apply = jax.jit(
        lambda arrays: task.model.apply({"params": trees.unflatten(task.frozen)}, arrays)
    )
    np.testing.assert_allclose(
        apply(arrays)["logits"], apply(without)["logits"], rtol=1e-5, atol=1e-5
    )


def test_zero_shot_evaluates_without_training(photographs, weights, tmp_path, capsys):
    c = config(photographs, weights, "method=zero_shot,fold=3")
    c.train.duration = "0 steps"
    train.run(c, tmp_path)
    assert json.loads((tmp_path / "fold_3" / "DONE.json").read_text())["steps"] == 0
    assert "26.08 +- 0.56" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda c: setattr(c.model, "variant", "ViT-B/16"),
            "weights of another architecture(.|\n)*vision.width",
        ),
        (
            lambda c: setattr(c.model, "weights", "no/such-weights"),
            "no weights at 'no/such-weights'",
        ),
        (
            lambda c: setattr(c.model, "weights", ""),
            "needs pretrained CLIP weights|model.weights is empty",
        ),
        (
            lambda c: c.prompt.update({"template": "word " * 90 + "{}"}),
            "positions; shorten the template",
        ),
    ],
)
def test_mistakes_with_weights(photographs, weights, monkeypatch, change, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    c = config(photographs, weights)
    change(c)
    with pytest.raises(ValueError, match=words):
        make_task(c, "3")


def test_a_run_keeps_its_tokenizer_and_the_source_of_its_weights(photographs, weights, tmp_path):
    task = make_task(config(photographs, weights, "method=coop"), "3")
    assert f"weights {weights}: model.safetensors" in overview(task)
    content = (weights / "model.safetensors").read_bytes()
    assert task.weights["id"] == str(weights)
    assert task.weights["files"]["model.safetensors"] == hashlib.sha256(content).hexdigest()
    run, out = tmp_path / "run", tmp_path / "out"
    task.write_facts(run)
    layout.write_run(run, 1.0, {}, task.weights)
    assert json.loads((run / "run.json").read_text())["weights"] == task.weights

    # Exporting needs the source no more.
    gone = copy.deepcopy(task.config)
    gone.model.weights = str(tmp_path / "gone")
    params = {"params": {**task.trained, **task.frozen}}
    trained = types.SimpleNamespace(folder=run, config=gone, model=task.model, variables=params)
    towers.write_hf(trained, out)
    for name in ("vocab.json", "merges.txt"):
        assert (out / name).read_bytes() == (weights / name).read_bytes()


def test_from_scratch_nothing_may_stay_frozen(photographs, weights):
    c = config(photographs, weights)
    c.model.weights, c.model.variant = "", "tiny"
    with pytest.raises(ValueError, match="keeps .*text_model.* frozen.*backbone=tiny"):
        make_task(c, "3")
