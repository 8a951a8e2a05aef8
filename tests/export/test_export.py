"""Exports in torch: every method's heads and rules, every tower and crop, on photographs; and one
finished run.

Without jit of the whole: the operations of one case are compiled already when the next one comes.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import load_file

from configs import folder
from configs.base import entries
from configs.pairs import ALL
from jaxord import export, inference, train
from jaxord.binding import lookup, needs
from jaxord.data import inputs, video
from jaxord.export import description, model_card, towers, verify
from jaxord.models import heads, resnet, tokens, variants, vgg
from jaxord.predict import trained_model
from jaxord.runtime import signals
from jaxord.targets import ranks
from jaxord.task import make_task
from jaxord.weights import hf_clip, open_clip
from jaxord.workdir import run_config
from tests.conftest import write_vocabulary
from tests.made import TARGETS, TINY, last_stage, made, of_folder

torch = pytest.importorskip("torch")


def signature(config):
    """What follows the towers: the heads and rules."""
    return run_config.to_json(ConfigDict({"heads": config.heads, "rules": config.rules}))


def families():
    """Methods of the same heads and rules share a case; all methods are in one."""
    found = {}
    for method in ALL:
        found.setdefault(signature(of_folder(method)), []).append(method)
    return list(found.values())


def written(folder):
    """The program of an exported folder, as a module."""
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def plain_lines(folder):
    """The program of plain lines in the README, "" where it has none."""
    blocks = [
        text.removeprefix("python\n")
        for text in (folder / "README.md").read_text().split("```")[1::2]
    ]
    return next((text for text in blocks if "CLIPVisionModelWithProjection" in text), "")


def printed_by(program, folder, photograph):
    """The list that it prints for a photograph, in the folder."""
    shutil.copy(
        photograph[0] if isinstance(photograph, (list, tuple)) else photograph, folder / "photo.jpg"
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, "predict", raising=False)
        exec(program, {})
        sys.modules.pop("predict", None)
    return ast.literal_eval(said.getvalue())


def compare(run, folder, examples, tolerance=1e-4):
    """Writes the run, loads what was written in torch, and compares every rule on every example;
    the plain lines on one."""
    export.write(run, folder)
    theirs = written(folder).Model().predict(examples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", lambda function: function)
        answers, _ = verify.answers(run, verify.arrays_of(run, examples))
    rules = {rule.name for rule in run.config.rules}
    ours = {name: values for name, values in answers.items() if name in rules}
    assert ours and set(ours) == set(theirs[0]["rules"])
    for rule, values in ours.items():
        found = np.array([one["rules"][rule] for one in theirs])
        np.testing.assert_allclose(found, values, rtol=0, atol=tolerance, err_msg=rule)
        assert np.isfinite(values).all()
    program, known = plain_lines(folder), json.loads((folder / "ordinal.json").read_text())
    assert bool(program) == (known["tower"] == "" and known["input"] == "images")
    if program:
        assert len([line for line in program.split("\n") if line]) <= 15
        (found,) = printed_by(program, folder, examples[0])
        np.testing.assert_allclose(found, theirs[0]["prediction"], rtol=0, atol=tolerance)
    first = ours[run.config.rules[0].name]
    if run.ranks:
        assert [one["rank"] for one in theirs] == run.ranks.index(first).tolist()
        assert theirs[0]["rank_name"] == run.ranks.names[theirs[0]["rank"]]
    return ours


@pytest.mark.parametrize("methods", families(), ids="-".join)
def test_every_method_predicts_the_same_in_torch(methods, photographs, tmp_path, lightly_compiled):
    """Measured: at most 3e-6."""
    run = made(of_folder(methods[0]))
    found = compare(run, tmp_path, photographs)
    rules = {
        entry.name
        for entry in run.config.rules
        if not set(needs(lookup(inference, entry.name))[0]) & trained_model.LABELS
    }
    assert set(found) == rules


SPREAD = ConfigDict({"name": "spread_crops", "views": 3, "step": 2})
HEADS = {
    "adapter, spread": of_folder("numclip,preset=code", **{"data.eval_crop": SPREAD}),
    "projection, resize": of_folder(
        "supcon",
        heads=entries({"name": "Projection", "layers": 3, "hidden": 20, "features": 9}),
        rules=entries({"name": "knn", "k": 3}),
        **{"data.resize": "shorter", "data.eval_crop": ConfigDict({"name": "resize"})},
    ),
    "nearest, diagonal": of_folder(
        "conord",
        rules=entries({"name": "nearest_reference"}),
        **{"data.resize": "shorter", "data.eval_crop": ConfigDict({"name": "diagonal_crops"})},
    ),
    "ResNet-50": of_folder("ce,backbone=ResNet-50"),
    "VGG-16 with texts": of_folder(
        "ordinalclip,backbone=VGG-16", **{"model.variant": "tiny", "model.weights": ""}
    ),
    "ResNet-18 of angles": importlib.import_module("configs.mpiifacegaze")
    .get_config("fold=0")
    .unlock(),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_crop_and_tower_does(name, photographs, tmp_path, monkeypatch, lightly_compiled):
    """Towers as deep as the real ones, but thin or with few blocks a stage; frames of a video are
    views. Measured: 3e-6."""
    monkeypatch.setitem(resnet.DEPTHS, 18, ((1, 2), (3, 3)))
    monkeypatch.setitem(resnet.DEPTHS, 50, ((1, 1), (1, 3, 1)))
    thin = ((4, 6), (8, 6), (6, 8, 10), (8, 12, 10), (12, 10, 8))
    monkeypatch.setattr(vgg, "VGG", functools.partial(vgg.VGG, stages=thin, hidden=24))
    config = HEADS[name].copy_and_resolve_references().unlock()
    config.data.image_size, config.data.stored_size = (
        (40, 44) if config.model.image_tower else (32, 40)
    )
    for rule in config.rules:
        if rule.name == "knn":
            rule.k = 3
    run = made(config)
    if name.endswith("diagonal"):  # two frames a video
        (a,), (b,), (c,) = photographs
        photographs = [[a, c], [b, b], [c, a]]
    compare(run, tmp_path, photographs)
    content = json.loads((tmp_path / "ordinal.json").read_text())
    assert content["tower"] == config.model.image_tower
    assert (tmp_path / "predict.py").read_bytes() == export.PREDICT.read_bytes()


def test_pairs_of_sentences(tmp_path):
    c = last_stage(
        importlib.import_module("configs.stsb").get_config("method=group_dir,size=small")
    ).unlock()
    c.model.sentence.hidden, c.ranks.edges, c.ranks.last = 5, tuple(range(5)), 5.0
    run = made(c)
    found = compare(run, tmp_path, [[[3, 4, 5, 6], [7]], [[8], [9, 10]], [[2, 2, 11], [49]]])[
        "experts"
    ]
    assert len(set(found.tolist())) == 3
    tensors = load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        tensors["lstm.weight_ih_l0"], run.variables["params"]["sentence/lstm/weight_ih_l0"]
    )


def test_frames_and_motion_of_videos(photographs, tmp_path, monkeypatch, lightly_compiled):
    """Attention over places and frames by turns; three frames a video. Measured: 2e-6."""
    monkeypatch.setattr(video, "fast_motion", lambda weights: None)
    c = importlib.import_module("configs.konvid").get_config("fold=0,backbone=tiny").unlock()
    c.data.reader.extract.update(
        {"frames": 3, "clips": 2, "clip_frames": 4, "clip_size": 64, "motion_weights": "random"}
    )
    c.data.image_size = c.data.stored_size = 32
    c.heads, c.rules = entries(c.heads[0], {"name": "Regressor"}), entries({"name": "value"})
    run, draw = made(c), np.random.default_rng(0)
    (a,), (b,), (d,) = photographs  # of one size in a video
    examples = verify.with_motion(
        [[a, d, a], [b, b, b], [b, b, b]], draw.normal(size=(3, 2, 4, 2, 2, 256)), tmp_path
    )
    found = compare(run, tmp_path / "out", examples)["value"]
    assert abs(found[1] - found[2]) > 1e-2  # by their motion
    assert json.loads((tmp_path / "out/ordinal.json").read_text())["input"] == "videos"
    assert '"motion": "0.npy"' in (tmp_path / "out/README.md").read_text()
    noise = verify.generate(run, tmp_path, inputs.input_kind(run.config.data).placeholder)
    assert len(noise) == 8 and np.isfinite(
        written(tmp_path / "out").Model().predict(noise[:1])[0]["prediction"]
    )


def test_every_head_has_its_torch():
    spec = importlib.util.spec_from_file_location("predict_torch", export.PREDICT)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    known = {name: getattr(heads, name) for name in heads.__all__}
    evaluated = {name for name, head in known.items() if hasattr(head, "writes")}
    training = {name for name, head in known.items() if hasattr(head, "training_only")}
    assert evaluated | training == set(known) and not evaluated & training
    assert set(program.HEADS) == evaluated
    # MotionFusion's input is no photograph, so the README has no line for it.
    lines = {name for name, head in known.items() if hasattr(head, "torch_line")}
    assert lines == evaluated - {"MotionFusion"}
    assert {name.split()[0] for name in inference.TORCH_LINES} == set(program.RULES)
    assert set(program.CROPS) == set(description.CROPS)


def test_what_cannot_be_exported_is_said(tmp_path):
    run = made(of_folder("l1"))
    for arguments, words in [
        ({"format": "torch"}, "the image tower is CLIP.*expected --format=hf"),
        ({"format": "gguf"}, "it takes one of"),
        ({"naming": "timm"}, "it takes 'hf', or with CLIP"),
    ]:
        with pytest.raises(ValueError, match=words):
            export.write(run, tmp_path / "out", **arguments)
    random = dataclasses.replace(
        run, config=of_folder("l1", **{"data.eval_crop": ConfigDict({"name": "random_crop"})})
    )
    with pytest.raises(ValueError, match="random_crop, which is random; expected one of"):
        export.write(random, tmp_path / "out")
    further = dataclasses.replace(
        run, config=of_folder("l1", heads=entries({"name": "Mixture"}, {"name": "Regressor"}))
    )
    with pytest.raises(ValueError, match="Mixture has no counterpart in torch"):
        export.write(further, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory, lightly_compiled):
    """A finished run with a text side, in float32; the folder it was exported to by its workdir;
    what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.VARIANTS, "tiny", TINY)
        patch.setattr(model_card, "RESAMPLES", 20)
        root = tmp_path_factory.mktemp("finished")
        c = folder.get_config("method=numclip,backbone=tiny").unlock()
        c.data.root, c.data.batch, c.train.duration = str(photos), 16, "0 steps"
        c.optim.warmup, c.metrics, c.select = "0 steps", ("mae",), "last"
        train.run(c.lock(), root / "run")
        printed = []
        patch.setattr(
            "builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words)))
        )
        export.export(root / "run", root / "out", naming="open_clip")
        yield export.in_float32(trained_model.load(root / "run")), root / "out", "\n".join(printed)


def test_an_export_verifies_itself(done):
    _, out, printed = done
    assert "NOT VERIFIED" not in printed
    difference = float(
        printed.rpartition("of argmax is ")[2].split()[0]
        if "of argmax" in printed
        else printed.rpartition("is ")[2].split()[0]
    )
    assert "on 8 test examples" in printed and difference < 1e-4
    readme = (out / "README.md").read_text()
    for words in (
        "CLIPModel.from_pretrained",
        "# Model card",
        "Where it is weakest",
        "surveillance",
        "| rule ",
    ):
        assert words in readme


def test_export_import_export_is_the_same_bytes(done, tmp_path):
    selected, out, _ = done
    found = hf_clip.read_settings(out)
    params = hf_clip.load(out, hf_clip.parameters(found))
    for path, array in params.items():
        np.testing.assert_array_equal(array, selected.variables["params"][path], err_msg=path)
    again = dataclasses.replace(
        selected, variables={"params": selected.variables["params"] | params, "stats": {}}
    )
    export.write(again, tmp_path, naming="open_clip")
    for name in (
        "model.safetensors",
        "ordinal.safetensors",
        "ordinal.json",
        "config.json",
        open_clip.WEIGHTS,
    ):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_another_run_starts_from_the_folder(done, photos):
    """Its tokenizer gives the ids of the bytes; the towers are those of the folder, by either
    naming."""
    _, out, _ = done
    words, plain = tokens.clip_tokenizer(out), tokens.byte_tokenizer()
    for text in ("A photo of a 4 year old", "  two\n words ", "caf\u00e9.", ""):
        assert words.encode(text) == plain.encode(text), text
    assert (words.sot, words.eot, words.full_stop, words.vocab_size) == (256, 257, ord("."), 258)
    c = folder.get_config("method=numclip").unlock()
    c.model.variant, c.model.weights, c.data.root, c.data.image_size, c.data.stored_size = (
        "",
        str(out),
        str(photos),
        32,
        40,
    )
    task = make_task(c, "")
    stored = hf_clip.load(out, hf_clip.parameters(hf_clip.read_settings(out)))
    for path, array in {**task.trained, **task.frozen}.items():
        if path in stored:
            np.testing.assert_array_equal(array, stored[path], err_msg=path)
    theirs, ours = (
        open_clip.to_hf(load_file(out / open_clip.WEIGHTS)),
        load_file(out / "model.safetensors"),
    )
    assert theirs.keys() == ours.keys() and all(
        np.array_equal(theirs[name], ours[name]) for name in ours
    )


def test_transformers_loads_the_folder(done, photographs):
    """CLIPModel and CLIPProcessor, without torchvision too."""
    from transformers import CLIPModel, CLIPProcessor

    _, out, _ = done
    model, report = CLIPModel.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    inputs = CLIPProcessor.from_pretrained(out)(
        text=["Ab c"], images=Image.open(photographs[1][0]), return_tensors="pt"
    )
    assert inputs["input_ids"].tolist() == [[256, *b"ab c ", 257]]
    with torch.no_grad():
        found = model(**inputs)
    program = written(out)
    own = program.Model(out)
    expected = own.outputs(program.images(own.description, photographs[1]))["image_embeds"]
    np.testing.assert_allclose(found.image_embeds, expected / expected.norm(), atol=1e-5)
    assert found.logits_per_image.shape == (1, 1)


def test_the_readme_runs_as_printed(done, photographs, tmp_path):
    folder = shutil.copytree(done[1], tmp_path / "out")
    Image.open(photographs[0][0]).save(folder / "photo.jpg")
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    said = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    (expected,) = written(folder).Model().predict([folder / "photo.jpg"])
    assert said.returncode == 0, said.stderr
    value, rules, rank = said.stdout.splitlines()
    assert float(value) == pytest.approx(expected["prediction"], abs=1e-5) and rules.startswith(
        "{'"
    )
    assert rank == f"{expected['rank']} {expected['rank_name']}"


def test_the_tokenizer_of_the_weights_comes_along(done, tmp_path):
    from transformers import CLIPProcessor

    shutil.copytree(done[1], tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "weights").mkdir()
    towers.write_tokenizer(write_vocabulary(tmp_path / "weights"), tmp_path / "out")
    processor, own = (
        CLIPProcessor.from_pretrained(tmp_path / "out"),
        tokens.clip_tokenizer(tmp_path / "weights"),
    )
    texts = ["A photo of a person's 4 ...", "caf\u00e9"]
    assert processor(text=texts)["input_ids"] == [
        [own.sot, *own.encode(text), own.eot] for text in texts
    ]


def test_an_export_that_was_ended_is_not_there_and_begins_again(done, tmp_path, monkeypatch):
    """Ended in the comparison, when all is written."""
    loaded, out, real = done[0], tmp_path / "out", export.write

    def ending(*given):
        real(*given)
        return lambda fold: signal.raise_signal(signal.SIGTERM)

    out.mkdir()
    with monkeypatch.context() as patch, pytest.raises(signals.Stopped), signals.Stop():
        patch.setattr(export, "write", ending)
        export.export(loaded.folder, out, naming="open_clip")
    assert not list(out.iterdir()) and (tmp_path / ".out.unfinished/predict.py").exists()
    (tmp_path / ".out.unfinished/left").touch()
    monkeypatch.setattr(
        export, "write", lambda *given: (real(*given), lambda fold: "as the run")[1]
    )
    export.export(loaded.folder, out, naming="open_clip")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in out.iterdir()} == {path.name for path in done[1].iterdir()}


def test_a_folder_in_use_and_a_wrong_program_are_refused(done, tmp_path):
    loaded, out, _ = done
    with pytest.raises(ValueError, match="is not empty; remove it"):
        export.export(loaded.folder, out)
    (tmp_path / "ordinal.json").write_text((out / "ordinal.json").read_text())
    wrong = json.dumps([{"rules": {loaded.config.rules[0].name: 99.0}}])
    (tmp_path / "predict.py").write_text(f"print({wrong!r})")
    noise = verify.generate(loaded, tmp_path, {})[:1]
    with pytest.raises(ValueError, match="predicts .*, but the run predicts"):
        verify.compare(loaded, tmp_path, noise)
    (tmp_path / "predict.py").write_text("raise OSError('no such thing')")
    with pytest.raises(ValueError, match="predict.py failed: OSError: no such thing"):
        verify.compare(loaded, tmp_path, noise)


def test_the_card_finds_the_weak_ranks_and_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "RESAMPLES", 20)
    lines = ["path,target,value,rank,rank_name,gender"]
    for i in range(80):
        value = i % 4 + (2 if i % 4 == 3 else 0.1) + (i % 8 > 3)
        lines.append(f"{i}.png,{i % 4},{value},0,zero,{'f' if i % 8 > 3 else 'm'}")
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "run.json").write_text('{"val examples": 1234}')
    config = of_folder("l1", select="test")
    config.data.reader.fractions = (0.6, 0.2, 0.2)
    text = model_card.card(
        config,
        ranks.build(config.ranks, TARGETS),
        tmp_path,
        TARGETS,
        {"selected": "last step", "step": 5, "steps": 9},
    )
    assert (
        "by rank, worst first: 3 2.5 (n = 20)" in text
        and "by gender, worst first: f 1.57 (n = 40)" in text
    )
    assert "selected on the test split**" in text and "step 5 of 9" in text
    assert '"fractions": [0.6, 0.2, 0.2]' in text and "- validation: 1,234 examples" in text
    monkeypatch.setattr(model_card, "RESAMPLES", 1000)
    facts = {"prediction": np.arange(50.0) % 7, "target": np.arange(50.0) % 5}
    low, high = model_card.interval(lookup(model_card.metrics, "mae"), facts)
    error = np.abs(facts["prediction"] - facts["target"])
    expected = 1.96 * error.std() / 50**0.5
    np.testing.assert_allclose(
        [low, high], [error.mean() - expected, error.mean() + expected], rtol=0.1
    )


def test_the_card_names_the_weights_that_the_run_started_from(tmp_path):
    assert model_card.front_matter(tmp_path) == ""
    weights = {"id": "openai/clip", "commit": "2222", "files": {"pytorch_model.bin": "ab"}}
    (tmp_path / "run.json").write_text(json.dumps({"weights": weights}))
    assert model_card.front_matter(tmp_path) == "---\nbase_model: openai/clip\n---\n\n"
    (tmp_path / "run.json").write_text(json.dumps({"weights": weights | {"commit": ""}}))
    assert model_card.front_matter(tmp_path) == ""  # a folder of one's own
