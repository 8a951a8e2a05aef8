"""Exports as one program: every kind of input and output in StableHLO and ONNX against what predict
says."""

import importlib
import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from jaxord import export
from jaxord.data import video
from jaxord.export import program, verify
from jaxord.models import resnet
from jaxord.predict.predictor import Predictor
from jaxord.runtime import devices
from jaxord.targets import ranks
from tests.kinds import MESHES
from tests.made import last_stage, made, of_folder

TOLERANCE = {"stablehlo": 1e-5, "onnx": 1e-4}  # measured: 2e-6 both, of values up to 2.6


def angles():
    c = importlib.import_module("configs.mpiifacegaze").get_config("fold=0").unlock()
    c.data.image_size, c.data.stored_size = 40, 44
    return c


def sentences():
    c = last_stage(
        importlib.import_module("configs.stsb").get_config("method=group_dir,size=small")
    ).unlock()
    c.model.sentence.hidden, c.ranks.edges, c.ranks.last, c.data.reader.tokens = (
        5,
        tuple(range(5)),
        5.0,
        8,
    )
    return c


CASES = {  # (config, outputs beside value)
    "neighbours": (lambda: of_folder("conord"), {"rank", "neighbours", "uncertainty"}),
    "distribution of three views": (
        lambda: of_folder(
            "ce_l1",
            **{"data.resize": "shorter", "data.eval_crop": ConfigDict({"name": "diagonal_crops"})},
        ),
        {"rank", "probabilities", "uncertainty", "rule_value", "rule_argmax"},
    ),
    "angles": (angles, {"neighbours", "uncertainty"}),
    "sentences": (sentences, {"rank"}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, photographs, lightly_compiled):
    """(name, run, three examples, inputs of a program for them, what predict says of them)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.DEPTHS, 18, ((1,), (3, 3)))
        config = CASES[request.param][0]()
        for rule in config.rules:
            if rule.name == "knn":
                rule.k = 3
        run = made(config)
        given = [file for (file,) in photographs]
        if request.param == "sentences":
            given = [("3 4 5 6", "7"), ("8", "9 10"), ("2 2 11", "49 strange")]
        predictor = Predictor(run, 8)
        parts = [predictor.given.read(one) for one in given]
        _, inputs = verify.answers(
            run, {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        )
        yield request.param, run, given, inputs, predictor(given)


def test_another_batch_on_one_device_predicts_the_same_bits(case, monkeypatch):
    """The case was predicted on eight devices; here the examples come one by one, each at the first
    place of a piece."""
    _, run, given, _, prediction = case
    monkeypatch.setattr(devices, "data_mesh", lambda devices: MESHES[1])
    found = Predictor(run, 1)(given)
    for field in ("value", "rank", "probabilities", "neighbours"):
        np.testing.assert_array_equal(
            getattr(found, field), getattr(prediction, field), err_msg=field
        )


def compare(found, prediction, tolerance):
    expected = {
        "value": prediction.value,
        **{f"rule_{name}": values for name, values in prediction.others.items()},
    }
    names = ("rank", "probabilities", "neighbours", "uncertainty")
    expected |= {
        name: getattr(prediction, name) for name in names if getattr(prediction, name) is not None
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)
    assert len({str(value) for value in prediction.value}) > 1


@pytest.fixture(params=TOLERANCE)
def format(request):
    """Each kind of program; ONNX where its extra is installed."""
    if request.param == "onnx":
        pytest.importorskip(
            "jax2onnx",
            reason="the extra onnx is not installed: it holds orbax-checkpoint below 0.11.37",
        )
        pytest.importorskip("onnxruntime")
    return request.param


def test_a_program_says_what_predict_says(case, tmp_path, format):
    name, run, _, inputs, prediction = case
    said = export.write(run, tmp_path, format)
    if format == "onnx":
        assert (
            "verified by onnxruntime" in (words := said("")) and "on 8 generated examples" in words
        )
        found = run_onnx(tmp_path, inputs)
    elif name == "neighbours":
        assert "verified by jax" in (words := said("")) and "on 8 generated examples" in words
        found = run_alone(tmp_path, inputs)
    else:
        read = jax.export.deserialize(bytearray((tmp_path / program.STABLEHLO).read_bytes()))
        found = jax.device_get(jax.jit(read.call)(load_file(tmp_path / program.WEIGHTS), inputs))
    compare(found, prediction, TOLERANCE[format])
    facts = json.loads((tmp_path / "ordinal.json").read_text())
    assert set(facts["outputs"]) == {"value"} | CASES[name][1]
    assert {key: one["shape"][1:] for key, one in facts["inputs"].items()} == {
        k: list(x.shape[1:]) for k, x in inputs.items()
    }
    assert (tmp_path / "vocabulary.json").exists() == (name == "sentences")
    readme = (tmp_path / "README.md").read_text()
    assert all(f"`{key}`" in readme for key in (*facts["inputs"], *facts["outputs"]))


def run_onnx(folder, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    assert [one.shape[0] for one in session.get_inputs()] == ["N"] * len(inputs)
    names = [one.name for one in session.get_outputs()]
    parts = [
        session.run(names, {key: x[rows] for key, x in inputs.items()})
        for rows in (slice(1), slice(1, 3))
    ]
    return {key: np.concatenate([part[i] for part in parts]) for i, key in enumerate(names)}


def run_alone(folder, inputs):
    """In a process that has no jaxord; one example, then two."""
    np.savez(folder / "inputs.npz", **inputs)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            """
import sys
import jax, jax.export
import numpy as np
from safetensors.numpy import load_file

program = jax.export.deserialize(bytearray(open("program.stablehlo", "rb").read()))
assert program.platforms == ("cpu", "cuda"), program.platforms
weights, inputs = load_file("model.safetensors"), np.load("inputs.npz")
jax.config.update("jax_disable_most_optimizations", True)
parts = [{name: inputs[name][rows] for name in inputs} for rows in (slice(1), slice(1, 3))]
parts = [jax.device_get(program.call(weights, part)) for part in parts]
assert not [name for name in sys.modules if name.partition(".")[0] in ("jaxord", "flax", "configs")]
outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
np.savez("outputs.npz", **outputs)
""",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "outputs.npz"))


def test_a_program_holds_no_more_than_it_computes_with(tmp_path, lightly_compiled):
    run = made(of_folder("coop"))
    program.stablehlo(run, tmp_path)
    kept = load_file(tmp_path / program.WEIGHTS)
    assert "constants/text_embeds" in kept and not [
        path for path in kept if "text_model" in path or "prompt" in path
    ]
    assert {path for path in run.variables["params"] if path.startswith("vision_model")} <= {
        path.removeprefix("params/") for path in kept
    }


def test_the_motion_of_videos_is_an_input(tmp_path, monkeypatch, lightly_compiled, format):
    monkeypatch.setattr(video, "fast_motion", lambda weights: None)
    c = importlib.import_module("configs.konvid").get_config("fold=0,backbone=tiny").unlock()
    c.data.reader.extract.update(
        {"frames": 2, "clips": 2, "clip_frames": 4, "clip_size": 32, "motion_weights": "random"}
    )
    c.data.image_size = c.data.stored_size = 32
    c.rules[0].k = 3
    said = export.write(made(c), tmp_path, format)("")
    assert float(said.partition("of all outputs ")[2].split()[0]) < TOLERANCE[format]
    shapes = {
        name: one["shape"]
        for name, one in json.loads((tmp_path / "ordinal.json").read_text())["inputs"].items()
    }
    assert shapes == {"image": ["N", 2, 32, 32, 3], "motion": ["N", 2, 4, 1, 1, 256]}


@pytest.mark.parametrize("edges", [(), (0.0, 2.0, 5.0)])
def test_ranks_are_those_of_the_run(edges):
    made_of = ranks.Ranks(
        np.float32([0, 1, 3, 4] if not edges else [1, 3, 6]), ("",) * 4, np.float32(edges)
    )
    values = np.float32([-1, 0, 0.5, 0.51, 1, 2, 1.99, 2.5, 3.5, 4, 5, 9])
    np.testing.assert_array_equal(
        jax.jit(lambda x: program.rank_of(made_of, x))(values), made_of.index(values)
    )


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch, lightly_compiled):
    run = made(of_folder("l1"))
    with pytest.raises(ValueError, match="--format=hf 'open_clip'"):
        export.write(run, tmp_path, "onnx", "open_clip")
    with pytest.raises(ValueError, match="program predicts .*, but the run predicts"):
        verify.check_program(run, lambda inputs: {"value": np.full(8, 99.0)}, "onnx", "")
    assert "NOT VERIFIED: onnxruntime is not installed" in verify.check_program(
        run, None, "onnx", ""
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install -e ".*\[onnx\]"'):
        program.onnx(run, tmp_path)
