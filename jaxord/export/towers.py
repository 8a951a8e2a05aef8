"""Towers by the names of other programs, with how they are loaded; and the README of a folder for
torch."""

import json
import shutil

import numpy as np
from safetensors.numpy import save_file

from jaxord.export.description import transform
from jaxord.export.snippet import lines
from jaxord.models.tokens import byte_tokenizer
from jaxord.weights import hf_clip, hub, open_clip, torchvision
from jaxord.workdir.files import write_json

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


def write_hf(run, folder):
    """CLIP's towers for transformers, with the tokenizer; returns how they are loaded."""
    params = clip_params(run)
    t = transform(run.config.data)
    whole = t["crop"]["name"] == "resize"
    form = (
        {"resize": "square", "stored_size": t["image_size"]}
        if whole
        else {n: t[n] for n in ("resize", "stored_size")}
    )
    hf_clip.save(folder, params, run.model.settings, mean=t["mean"], std=t["std"], **form)
    found = json.loads((folder / "config.json").read_text())["architectures"][0]
    text = "text_model" in {path.split("/")[0] for path in params}
    processor = "CLIPProcessor" if text else "CLIPImageProcessor"
    uses = [
        f"- transformers: `{found}.from_pretrained(folder)` and `{processor}.from_pretrained(folder)`"
    ]
    if text:
        write_tokenizer(run.config.model.weights, folder)
        uses.append(
            "- its text tower has no learned prompt: the texts of the ranks are `text_embeds` in ordinal.safetensors"
        )
    if not processor_is_exact(t):
        uses.append(
            "- `preprocessor_config.json` is the nearest that transformers can express: the evaluation takes "
            f"`{t['crop']['name']}` of an image that was resized before, as `predict.py` does exactly"
        )
    return "\n".join(uses)


def processor_is_exact(t):
    """Whether transformers' image processor makes of an image what the evaluation does; t: the
    transform of ordinal.json."""
    whole = (
        t["crop"]["name"] == "resize"
        and t["resize"] == "square"
        and t["stored_size"] == t["image_size"]
    )
    return t["crop"]["name"] == "center_crop" or whole


def clip_params(run):
    return {
        path: array
        for path, array in run.variables["params"].items()
        if path.split("/")[0] in hf_clip.PARTS
    }


def write_tokenizer(source, folder):
    """The files of the checkpoint that a run started from, or bytes as a tokenizer where it started
    from none."""
    if source:
        try:
            checkpoint = hub.resolve(source)
        except ValueError as error:
            print(f"WITHOUT TOKENIZER: {error}")
            return
        for name in TOKENIZER:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        return
    write_json(folder / "tokenizer.json", byte_vocabulary())
    ends = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **ends}
    )


def byte_vocabulary():
    """`jaxord.models.tokens.byte_tokenizer` in the format of the `tokenizers` library: lower case, a
    blank behind each word."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    printed = [
        b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174
    ]  # ByteLevel's alphabet shows the rest
    rest = [b for b in range(256) if b not in printed]  # as the characters from 256 on
    characters = {b: chr(b) for b in printed} | {b: chr(256 + i) for i, b in enumerate(rest)}
    own, words = byte_tokenizer(), {characters[b]: b for b in range(256)}
    made = Tokenizer(models.BPE(words | {"<|startoftext|>": own.sot, "<|endoftext|>": own.eot}, []))
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    # A full stop alone has no blank: prompts end with one token.
    ends = normalizers.Replace(Regex(r"(?<=\S)(?<!\A\.)\z"), " ")
    blanks = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), ends]
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), *blanks])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        "<|startoftext|> $A <|endoftext|>",
        None,
        [("<|startoftext|>", own.sot), ("<|endoftext|>", own.eot)],
    )
    return json.loads(made.to_str())


def write_open_clip(run, folder):
    """CLIP's towers once more by OpenCLIP's names; returns how they are loaded."""
    params, t = clip_params(run), transform(run.config.data)
    tensors = {
        hf_clip.source_name(path): hf_clip.to_source(path, np.asarray(array))
        for path, array in params.items()
    }
    found = {name: np.array(array, order="C") for name, array in open_clip.from_hf(tensors).items()}
    save_file(found, folder / open_clip.WEIGHTS, metadata={"format": "pt"})
    if "text_projection" not in found:
        return f"- OpenCLIP: `{open_clip.WEIGHTS}` has the image tower (`visual.`) alone, `load_state_dict(..., strict=False)`"
    write_json(folder / open_clip.CONFIG, open_clip.config(run.model.settings, t["mean"], t["std"]))
    return f"- OpenCLIP: `create_model_and_transforms('local-dir:' + folder)` reads `{open_clip.WEIGHTS}`"


def write_torch(run, folder):
    """Another image tower by the names of torch; returns how it is loaded."""
    (part,) = {path.split("/")[0] for path in run.variables["params"]} & {
        "resnet",
        "vgg",
        "sentence",
    }
    flat = {
        path.removeprefix(f"{part}/"): array
        for kind in run.variables.values()
        for path, array in kind.items()
        if path.startswith(f"{part}/")
    }
    torchvision.save(folder / "model.safetensors", flat)
    if part == "sentence":
        return "- `model.safetensors`: `embedding` [words, D]; behind `lstm.` the state dict of a bidirectional torch.nn.LSTM"
    name = run.config.model.image_tower.lower().replace("-", "")
    return (
        f"- torchvision: `{name}()`, without its last layer, takes `model.safetensors` by "
        "`load_state_dict(..., strict=False)`; only `num_batches_tracked` and the last layer are missing"
    )


def readme(run, facts, uses):
    """How the folder is used."""
    images = facts["input"] != "sentences"
    example, example_text = {
        "images": ('["photo.jpg"]', ""),
        "videos": (
            '[{"frames": ["0.png", "1.png"], "motion": "0.npy"}]',
            "# a video's frames, and its motion f16[M, F, h, w, C] as jaxord.data.video makes it\n",
        ),
        "sentences": (
            "[[[2, 15, 7], [2, 9]]]",
            "# pairs of lists of word ids, as the training data's vocabulary numbers them\n",
        ),
    }[facts["input"]]
    command = "photo.jpg" if facts["input"] == "images" else "examples.json"
    rules = ", ".join(f"`{rule['name']}`" for rule in facts["rules"])
    t = facts["transform"]
    seen = (
        f"Images: {t['resize']} resize to {t['stored_size']} pixels (Pillow, bicubic), `{t['crop']['name']}` to "
        f"{t['image_size']}; features of several views are averaged."
        if images
        else "Inputs: pairs of sentences as ids of words, row by row of the table `embedding`."
    )
    program = lines(facts, images and processor_is_exact(t))
    plain = f"""
The same of one upright photograph, as plain lines of torch:

```python
{program}
```
""" * bool(program)
    needed = "torch safetensors numpy pillow" + (" transformers" if facts["tower"] == "" else "")
    return f"""# {facts["data"]}, {facts["method"]}

A model of ordinal labels, exported by jaxord. It predicts without it: `pip install {
        needed
    }`, then in this folder (or with it
on `PYTHONPATH`):

```python
from predict import Model

model = Model()                                  # reads its folder; nothing is downloaded, nothing unpickled
{example_text}for found in model.predict({example}):
    print(found["prediction"])                   # of the first rule, on the scale of the label
    print(found["rules"])                        # of every rule: {rules.replace("`", "")}
    print(found.get("rank"), found.get("rank_name"))
```

or `python predict.py {command}`, which prints JSON. {seen} Rules: {rules}.
{plain}
{uses}
- jaxord: {
        "`--config.model.weights=<this folder>` starts another run from the towers"
        if facts["tower"] == ""
        else "`--config.model.image_weights=<this folder>/model.safetensors` starts another run from the tower"
        if images
        else "only this program reads the tower"
    }
"""
