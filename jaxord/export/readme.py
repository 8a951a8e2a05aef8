"""README.md of an export: how the folder is used. The model card follows it."""

from jaxord.export.snippet import short_program

MOTION = "# frames of a video, its motion f16[M, F, h, w, C] as jaxord.data.video makes it\n"
WORDS = "# pairs of lists of word ids, numbered by the training data's vocabulary\n"
EXAMPLES = {
    "images": ('["photo.jpg"]', ""),
    "videos": ('[{"frames": ["0.png", "1.png"], "motion": "0.npy"}]', MOTION),
    "sentences": ("[[[2, 15, 7], [2, 9]]]", WORDS),
}
TORCH = """# {data}, {method}

An ordinal regression model, exported by jaxord. To predict, jaxord is not needed:
`pip install {packages}`, then in this folder (or with it on `PYTHONPATH`):

```python
from predict import Model

model = Model()  # reads this folder; nothing is downloaded or unpickled
{comment}for result in model.predict({example}):
    print(result["prediction"])  # of the first rule, on the label's scale
    print(result["rules"])  # of every rule: {rules}
    print(result.get("rank"), result.get("rank_name"))
```

`python predict.py {command}` prints the same as JSON. {transform}
{program}
{loading}
"""
PROGRAM = """
The prediction for one upright photograph in a few lines of torch:

```python
{}
```
"""
CALLS = {
    "stablehlo": """import jax, jax.export
from safetensors.numpy import load_file

program = jax.export.deserialize(bytearray(open("program.stablehlo", "rb").read()))
weights = load_file("model.safetensors")
outputs = jax.jit(program.call)(weights, inputs)  # on a CPU or a CUDA device""",
    "onnx": """import onnxruntime

names = {names}
session = onnxruntime.InferenceSession("model.onnx")
outputs = dict(zip(names, session.run(names, inputs)))""",
}
WHOLE = """# {data}, {method}

An ordinal regression model, exported by jaxord as one program. It runs without jaxord:

```python
{call}
```

Inputs, for any number N of examples, `inputs = {{"name": array}}`:

{inputs}

Outputs:

{outputs}

{transform} `ordinal.json` holds the same in a form that programs read, with the ranks' values and
names.
"""


def for_torch(content, loading):
    """The README of a folder for torch.

    Args:
      content: of ordinal.json.
      loading: lines of Markdown on how other programs load the towers.
    """
    kind, tower = content["input"], content["tower"]
    # jaxord reads CLIP's towers as a folder and torchvision's as one file.
    if not tower:
        start = "`--config.model.weights=<this folder>` starts another run from the towers"
    elif kind == "sentences":
        start = "no other run can start from this tower; only predict.py reads it"
    else:
        file = "<this folder>/model.safetensors"
        start = f"`--config.model.image_weights={file}` starts another run from the tower"
    program = short_program(content)
    example, comment = EXAMPLES[kind]
    text = {
        "packages": "torch safetensors numpy pillow" + " transformers" * (not tower),
        "comment": comment,
        "example": example,
        "rules": ", ".join(rule["name"] for rule in content["rules"]),
        "command": "photo.jpg" if kind == "images" else "examples.json",
        "transform": transform(content["transform"], "features of several views are averaged.")
        or "Inputs are pairs of sentences; word ids are rows of the table `embedding`.",
        "program": PROGRAM.format(program) if program else "",
        "loading": f"{loading}\n- jaxord: {start}",
    }
    return TORCH.format(**content | text)


def for_program(content, format):
    """The README of a whole program; `content` is that of ordinal.json."""
    names = list(content["outputs"])
    text = {name: array_list(content[name]) for name in ("inputs", "outputs")}
    text["call"] = CALLS[format].replace("{names}", repr(names))
    text["transform"] = transform(content["transform"], "the program itself normalises.") or (
        "Sentences: words and punctuation as NLTK's word_tokenize splits them; the id of a word is "
        "its place in vocabulary.json, 1 for an unknown one."
    )
    return WHOLE.format(**content | text)


def transform(t, end):
    """A sentence on how an image becomes the tower's input; "" without images."""
    if not t:
        return ""
    resize = f"{t['resize']} resize to {t['stored_size']} pixels (Pillow, bicubic)"
    return f"Images: {resize}, `{t['crop']['name']}` to {t['image_size']}; {end}"


def array_list(arrays):
    """Inputs or outputs as a list in Markdown."""
    lines = []
    for name, array in arrays.items():
        shape = ", ".join(map(str, array["shape"]))
        lines.append(f"- `{name}` {array['type']} [{shape}]: {array['meaning']}")
    return "\n".join(lines)
