"""A finished run as one program, from the inputs of the model to what `predict` writes: StableHLO,
or ONNX.

    program.stablehlo with model.safetensors    jax.export.deserialize reads the one, the other is its first argument
    model.onnx                                  with its weights inside
    ordinal.json                                inputs and outputs, how an example becomes an input, ranks

The number of examples N is open in both. Images are f32 pixels in 0..255, cropped but not
normalised: that is in the program.

ONNX is written by jax2onnx from the same function as StableHLO, so that every method, head and rule
is in it and the package needs no torch. torch's own exporter would need the model once more in
torch, where packed sequences stop it. On a ViT, ResNets, a VGG, a BiLSTM and a gallery of
neighbours the differences are below 2e-6. It is young: it has left out the padding of pools without
a word, therefore `export` compares every file that it writes.

N examples, V views, K ranks, k neighbours, A angles of a label.
"""

import contextlib
import importlib.util
import logging

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxord.data import augment
from jaxord.data.inputs import input_kind
from jaxord.predict import predictor

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
    "uncertainty": "standard deviation of the neighbours' labels, or of the distribution over the ranks",
}


def weights_of(run):
    """{path: array} of all that the program computes with: parameters, statistics and constants of
    the run."""
    constants = {
        name: array for name, array in run.constants.items() if not name.startswith("prompt_")
    }
    return {
        f"{kind}/{path}": array
        for kind, part in {**run.variables, "constants": constants}.items()
        for path, array in part.items()
    }


def inputs_of(run):
    """{name: ShapeDtypeStruct [...]} of one example, as the program takes it."""
    nothing = input_kind(run.config.data, run.vocabulary).placeholder
    shapes = jax.eval_shape(run.inputs, {name: array[None] for name, array in nothing.items()})
    return {
        name: jax.ShapeDtypeStruct(
            shape.shape[1 + (name == "image" and shape.shape[1] == 1) :], shape.dtype
        )
        for name, shape in shapes.items()
    }


def program(run):
    """The function ({path: array}, {input: array [N, ...]}) -> {output: array [N, ...]}; for jit.

    Outputs: value f32[N] (or [N, A]), rank i32[N], probabilities f32[N, K], neighbours f32[N, k],
      uncertainty f32[N], and
    rule_<name> of each further rule; those that the run has, as of `jaxord.predict.predictor.Prediction`.
    """
    mean, std = (
        np.asarray(values, np.float32)
        for values in augment.NORMALISATIONS[run.config.data.normalize]
    )

    def outputs(weights, inputs):
        kinds = {"params": {}, "stats": {}, "constants": {}}
        for path, array in weights.items():
            kind, _, name = path.partition("/")
            kinds[kind][name] = array
        constants, arrays = kinds.pop("constants"), dict(inputs)
        if "image" in arrays:
            image = (arrays["image"] / 255 - mean) / std
            arrays["image"] = image if image.ndim == 5 else image[:, None]
        found = predictor.answers(run, kinds, constants, arrays)
        rule, *others = [rule.name for rule in run.config.rules if rule.name in found]
        written = {"value": found[rule], **{f"rule_{other}": found[other] for other in others}}
        if run.ranks:
            written["rank"] = rank(run.ranks, found[rule])
        written |= {name: found[name] for name in ("probabilities", "neighbours") if name in found}
        if "neighbours" in found:
            near = found["neighbours"]
            spread = jnp.square(near - near.mean(1, keepdims=True)).mean(1)
            written["uncertainty"] = jnp.sqrt(spread if spread.ndim == 1 else spread.sum(1))
        elif "probabilities" in found and run.ranks:
            p, values = found["probabilities"], jnp.asarray(run.ranks.values, jnp.float32)
            centre = (p * values).sum(1, keepdims=True)
            written["uncertainty"] = jnp.sqrt((p * jnp.square(values - centre)).sum(1))
        return written

    return outputs


def outputs_of(run):
    """{name: ShapeDtypeStruct [...]} of what the program says of one example."""
    inputs = {
        name: jax.ShapeDtypeStruct((2, *one.shape), one.dtype)
        for name, one in inputs_of(run).items()
    }
    shapes = jax.eval_shape(program(run), weights_of(run), inputs)
    return {
        name: jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype) for name, shape in shapes.items()
    }


def described(shapes):
    """Inputs or outputs as ordinal.json has them."""
    return {
        name: {
            "shape": ["N", *one.shape],
            "type": str(one.dtype),
            "meaning": MEANINGS.get(name, "value of that rule"),
        }
        for name, one in sorted(shapes.items())
    }


def rank(ranks, value):
    """`Ranks.index` inside of jit: i32[N] of f32[N]."""
    if len(ranks.edges):
        return (
            (value[:, None] >= jnp.asarray(ranks.edges[1:], jnp.float32)).sum(1).astype(jnp.int32)
        )
    values = np.asarray(ranks.values, np.float64)
    middle = jnp.asarray((values[1:] + values[:-1]) / 2, jnp.float32)
    to_higher = np.arange(len(middle)) % 2 == 1  # a value in the middle goes to the even rank
    passed = (value[:, None] > middle) | ((value[:, None] == middle) & to_higher)
    return passed.sum(1).astype(jnp.int32)


def used(run, weights, inputs):
    """The weights that the program computes with: not those of a text tower whose features are
    among the constants."""
    two = {name: jax.ShapeDtypeStruct((2, *one.shape), one.dtype) for name, one in inputs.items()}
    jaxpr = jax.make_jaxpr(program(run))(weights, two).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    leaves = jax.tree.leaves(
        (dict(zip(weights, weights, strict=True)), dict(zip(two, two, strict=True)))
    )
    names = {
        name for name, variable in zip(leaves, jaxpr.invars, strict=True) if id(variable) in read
    }
    return {name: array for name, array in weights.items() if name in names}


def stablehlo(run, folder):
    """Writes program.stablehlo and model.safetensors; returns the function {input: array} ->
    {output: array} read from them."""
    inputs, every = inputs_of(run), weights_of(run)
    weights = used(run, every, inputs)

    def function(weights, inputs):
        unused = {
            name: jnp.zeros(array.shape, array.dtype)
            for name, array in every.items()
            if name not in weights
        }
        return program(run)({**unused, **weights}, inputs)

    scope = jax.export.SymbolicScope()
    open_shapes = {
        name: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(",".join(map(str, ("N", *one.shape))), scope=scope), one.dtype
        )
        for name, one in inputs.items()
    }
    with jax.default_matmul_precision("highest"):
        made = jax.export.export(jax.jit(function), platforms=PLATFORMS)(weights, open_shapes)
    (folder / STABLEHLO).write_bytes(made.serialize())
    save_file(
        {name: np.array(array, order="C") for name, array in weights.items()}, folder / WEIGHTS
    )
    read = jax.export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
    weights = load_file(folder / WEIGHTS)

    @jax.jit
    def call(weights, inputs):
        return read.call(weights, inputs)

    return lambda inputs: jax.device_get(call(weights, inputs))


def onnx(run, folder):
    """Writes model.onnx; returns the function {input: array} -> {output: array} read from it, None
    without onnxruntime.

    Raises:
      ValueError: jax2onnx is not installed.
    """
    if importlib.util.find_spec("jax2onnx") is None:
        raise ValueError(
            '--format=onnx is written by jax2onnx, which is not installed: pip install "jaxord[onnx]"'
        )
    import jax2onnx

    inputs, weights, function = (
        inputs_of(run),
        jax.tree.map(jnp.asarray, weights_of(run)),
        program(run),
    )
    names, outputs = sorted(inputs), sorted(outputs_of(run))

    def positional(*arrays):
        found = function(weights, dict(zip(names, arrays, strict=True)))
        return tuple(found[name] for name in outputs)

    with jax.default_matmul_precision("highest"), quiet("jax2onnx", "onnx_ir"):
        model = jax2onnx.to_onnx(
            positional,
            [
                jax.ShapeDtypeStruct(("N", *inputs[name].shape), inputs[name].dtype)
                for name in names
            ],
            model_name=f"{run.config.name}-{run.config.method}",
            input_names=names,
            output_names=outputs,
        )
    (folder / ONNX).write_bytes(model.SerializeToString())
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of constants that a loop does not use
    session = onnxruntime.InferenceSession(
        folder / ONNX, options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))


CALLS = {
    "stablehlo": """import jax, jax.export
from safetensors.numpy import load_file

program = jax.export.deserialize(bytearray(open("program.stablehlo", "rb").read()))
outputs = jax.jit(program.call)(load_file("model.safetensors"), inputs)    # on a CPU or a CUDA device""",
    "onnx": """import onnxruntime

names = {names}
found = onnxruntime.InferenceSession("model.onnx").run(names, inputs)
outputs = dict(zip(names, found))""",
}


def readme(facts, format):
    """How the folder is used."""
    inputs, outputs = (
        "\n".join(
            f"- `{name}` {one['type']} [{', '.join(map(str, one['shape']))}]: {one['meaning']}"
            for name, one in part.items()
        )
        for part in (facts["inputs"], facts["outputs"])
    )
    call = CALLS[format].replace("{names}", repr(list(facts["outputs"])))
    t = facts["transform"]
    seen = (
        f"Images: {t['resize']} resize to {t['stored_size']} pixels (Pillow, bicubic), `{t['crop']['name']}` to "
        f"{t['image_size']}; mean and standard deviation are the program's matter."
        if t
        else "Sentences: words and punctuation in the manner of NLTK's word_tokenize; one that is not in vocabulary.json is 1."
    )
    return f"""# {facts["data"]}, {facts["method"]}

A model of ordinal labels, exported by jaxord, that runs without it:

```python
{call}
```

Inputs, of any number N of examples, `inputs = {{"name": array}}`:

{inputs}

Outputs:

{outputs}

{seen} `ordinal.json` holds this for programs, with the ranks' values and names.
"""


@contextlib.contextmanager
def quiet(*names):
    """Without the warnings of these loggers, which tell of plugins and shapes that concern nobody
    here."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
