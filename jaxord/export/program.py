"""A finished run as one program, from the model's inputs to a prediction: StableHLO or ONNX.

    program.stablehlo    for jax.export.deserialize; its first argument is model.safetensors
    model.onnx           with its weights inside
    ordinal.json         inputs and outputs, how an example becomes an input, ranks

Both take any number of examples. Images are f32 pixels in 0..255, cropped but not normalised: the
program normalises them.

jax2onnx writes ONNX from the same function as StableHLO, so both have every head and rule without
torch (whose exporter stops at packed sequences). Measured differences are below 2e-6. jax2onnx is
young and has silently dropped the padding of pools, so `export` compares every file that it writes.

N examples, V views, K ranks, k neighbours, A angles of a label.
"""

import importlib.util
import logging

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxord import inference
from jaxord.data import augment
from jaxord.data.inputs import input_kind
from jaxord.export.description import contiguous
from jaxord.predict import predictor
from jaxord.shipped import install_hint

WEIGHTS, STABLEHLO, ONNX = "model.safetensors", "program.stablehlo", "model.onnx"
PLATFORMS = ("cpu", "cuda")
MEANINGS = {
    "image": "pixels in 0..255, RGB, cropped as `transform` says; of several views a row each",
    "sentences": "ids of words, places in vocabulary.json",
    "sentence_mask": "which ids are there, from the first on without gaps",
    "motion": "maps of SlowFast's Fast pathway, jaxord.data.video",
    "value": "the prediction, on the scale of the label",
    "rank": "of the value, from 0",
    "probabilities": "of the ranks",
    "neighbours": "labels of the nearest training examples, nearest first",
    "uncertainty": "standard deviation of the neighbours' labels, or of the distribution over the "
    "ranks",
}


def all_weights(run):
    """{kind/path: array} of the run's parameters, statistics and constants."""
    constants = {name: x for name, x in run.constants.items() if not name.startswith("prompt_")}
    kinds = {**run.variables, "constants": constants}
    return {f"{kind}/{path}": x for kind, part in kinds.items() for path, x in part.items()}


def inputs_of(run):
    """{name: ShapeDtypeStruct [...]} of one example, as the program takes it."""
    empty = input_kind(run.config.data, run.vocabulary).placeholder
    shapes = jax.eval_shape(run.inputs, {name: array[None] for name, array in empty.items()})
    one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in shapes.items()}
    # A single view needs no axis.
    if "image" in one and one["image"].shape[0] == 1:
        one["image"] = jax.ShapeDtypeStruct(one["image"].shape[1:], one["image"].dtype)
    return one


def batch_of(shapes, size):
    """The ShapeDtypeStructs of one example with a leading axis."""
    return {name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for name, x in shapes.items()}


def make_program(run):
    """Make the function ({path: array}, {input: array [N, ...]}) -> {output: array [N, ...]}.

    Outputs are value and rule_<name> of each further rule f32[N] (or [N, A]), and those of rank
    i32[N], probabilities f32[N, K], neighbours f32[N, k] and uncertainty f32[N] that the run has.
    """
    norm = augment.NORMALISATIONS[run.config.data.normalize]
    mean, std = (np.asarray(values, np.float32) for values in norm)

    def program(weights, inputs):
        kinds = {"params": {}, "stats": {}, "constants": {}}
        for path, array in weights.items():
            kind, _, name = path.partition("/")
            kinds[kind][name] = array
        constants, arrays = kinds.pop("constants"), dict(inputs)
        if "image" in arrays:
            image = (arrays["image"] / 255 - mean) / std
            # A single view comes without its axis.
            arrays["image"] = image if image.ndim == 5 else image[:, None]
        answers = predictor.answers(run, kinds, constants, arrays)
        outputs = named_outputs(run, answers)
        if run.ranks:
            outputs["rank"] = rank_of(run.ranks, outputs["value"])
        values = jnp.asarray(run.ranks.values, jnp.float32) if run.ranks else None
        near, probabilities = answers.get("neighbours"), answers.get("probabilities")
        spread = inference.uncertainty(near, probabilities, values)
        return outputs if spread is None else {**outputs, "uncertainty": spread}

    return program


def named_outputs(run, answers):
    """The answers of a run (`predictor.answers`) under the names of a program's outputs."""
    headline, *others = [rule.name for rule in run.config.rules if rule.name in answers]
    outputs = {"value": answers[headline], **{f"rule_{name}": answers[name] for name in others}}
    further = [name for name in ("probabilities", "neighbours") if name in answers]
    return outputs | {name: answers[name] for name in further}


def rank_of(ranks, value):
    """`Ranks.index` inside jit: i32[N] of f32[N]."""
    if len(ranks.edges):
        edges = jnp.asarray(ranks.edges[1:], jnp.float32)
        return (value[:, None] >= edges).sum(1).astype(jnp.int32)
    values = np.asarray(ranks.values, np.float64)
    middle = jnp.asarray((values[1:] + values[:-1]) / 2, jnp.float32)
    # A value in the middle of two ranks goes to the even one.
    to_higher = np.arange(len(middle)) % 2 == 1
    passed = (value[:, None] > middle) | ((value[:, None] == middle) & to_higher)
    return passed.sum(1).astype(jnp.int32)


def outputs_of(run):
    """{name: ShapeDtypeStruct [...]} of the program's outputs for one example."""
    shapes = jax.eval_shape(make_program(run), all_weights(run), batch_of(inputs_of(run), 2))
    return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in shapes.items()}


def describe(shapes):
    """Inputs or outputs as ordinal.json holds them."""
    content = {}
    for name, one in sorted(shapes.items()):
        meaning = MEANINGS.get(name, "value of that rule")
        content[name] = {"shape": ["N", *one.shape], "type": str(one.dtype), "meaning": meaning}
    return content


def needed_weights(run, weights, inputs):
    """The weights that the program reads: without a text tower whose features are constants."""
    batch = batch_of(inputs, 2)
    jaxpr = jax.make_jaxpr(make_program(run))(weights, batch).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    # Names in place of arrays have the order of the program's variables.
    names = jax.tree.leaves(({name: name for name in weights}, {name: name for name in batch}))
    variables = zip(names, jaxpr.invars, strict=True)
    needed = {name for name, variable in variables if id(variable) in read}
    return {name: array for name, array in weights.items() if name in needed}


def stablehlo(run, folder):
    """Write program.stablehlo and model.safetensors; returns {input: array} -> {output: array}."""
    inputs, every = inputs_of(run), all_weights(run)
    weights = needed_weights(run, every, inputs)

    def function(weights, inputs):
        rest = {name: array for name, array in every.items() if name not in weights}
        zeros = {name: jnp.zeros(array.shape, array.dtype) for name, array in rest.items()}
        return make_program(run)({**zeros, **weights}, inputs)

    scope = jax.export.SymbolicScope()
    batch = {}
    for name, one in inputs.items():
        dimensions = ",".join(map(str, ("N", *one.shape)))
        shape = jax.export.symbolic_shape(dimensions, scope=scope)
        batch[name] = jax.ShapeDtypeStruct(shape, one.dtype)
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(weights, batch)
    # The comparison runs what was written, so it is read back.
    (folder / STABLEHLO).write_bytes(exported.serialize())
    save_file(contiguous(weights), folder / WEIGHTS)
    program = jax.export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
    weights = load_file(folder / WEIGHTS)
    call = jax.jit(program.call)
    return lambda inputs: jax.device_get(call(weights, inputs))


def onnx(run, folder):
    """Write model.onnx; returns {input: array} -> {output: array}, None without onnxruntime."""
    if importlib.util.find_spec("jax2onnx") is None:
        raise ValueError(f"--format=onnx needs jax2onnx: {install_hint('onnx')}")
    import jax2onnx

    inputs, program = inputs_of(run), make_program(run)
    weights = jax.tree.map(jnp.asarray, all_weights(run))
    names, outputs = sorted(inputs), sorted(outputs_of(run))

    def positional(*arrays):
        results = program(weights, dict(zip(names, arrays, strict=True)))
        return tuple(results[name] for name in outputs)

    batch, name = batch_of(inputs, "N"), f"{run.config.name}-{run.config.method}"
    labels = {"model_name": name, "input_names": names, "output_names": outputs}
    # The converter warns of plugins and shapes that no user can act on.
    for logger in ("jax2onnx", "onnx_ir"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with jax.default_matmul_precision("highest"):
        model = jax2onnx.to_onnx(positional, [batch[name] for name in names], **labels)
    (folder / ONNX).write_bytes(model.SerializeToString())
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    # Errors only: it warns of constants that a loop does not use.
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(folder / ONNX, options, providers=providers)
    return lambda inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))
