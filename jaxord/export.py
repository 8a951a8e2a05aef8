"""A finished run as a folder that runs without jaxord: weights by other programs' names, heads, rules, a program in torch.

    model.safetensors      the towers: a CLIP by Hugging Face's names with config.json and preprocessor_config.json; a ResNet
                           or VGG by torchvision's; a BiLSTM by torch.nn.LSTM's behind `lstm.`, and its table `embedding`
    ordinal.json           ranks, rules, heads, and how an example becomes the model's input
    ordinal.safetensors    what they need: features of the rank sentences, the heads' parameters, the gallery of neighbours
    predict.py             all of it in torch; README.md: how to use it, and the model card

B examples, F frames of one, V views.
"""

import copy
import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from jaxord import assemble, card, finished, inference, settings, workdir
from jaxord.binding import lookup, needs
from jaxord.checkpoint import write_json
from jaxord.data import augment, decode, load
from jaxord.models import ordinal
from jaxord.tokenizer import byte_tokenizer
from jaxord.weights import export_torch, hf_clip, open_clip, torchvision

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
HEADS = {  # of evaluation: the arrays they take, and those they give
    "CosineLogits": ({"image_embeds", "text_embeds", "logit_scale"}, {"logits"}),
    "Classifier": ({"image_embeds", "rank_values"}, {"logits"}),
    "Regressor": ({"image_embeds", "rank_values"}, {"value"}),
    "BinRegressor": ({"logits", "rank_values"}, {"value"}),
    "Thresholds": ({"image_embeds", "rank_values"}, {"threshold_logits"}),
    "Adapter": ({"image_embeds"}, {"image_embeds"}),
    "Projection": ({"image_embeds"}, {"image_embeds"}),
    "Experts": ({"image_embeds", "rank_values"}, {"expert_values", "group_logits"}),
    "ReferencePoints": (set(), {"reference_points"}),
}
TRAINING = {"FDS", "Margins", "NoiseScale", "PairWeights"}  # heads without a part in evaluation
EXAMPLES = 8  # that an export is verified on


def export(folder, output, *, format="", naming="hf", fold=""):
    """Writes a finished run as such a folder, checks it against the run where torch is installed, and prints what it did.

    Args:
      folder: workdir of the run.
      output: new or empty folder.
      format: a key of FORMATS; "" is the one that the image tower has.
      naming: "open_clip" adds CLIP's towers by OpenCLIP's names, see `jaxord.weights.open_clip`.
      fold: which fold, where the run has several.

    Raises:
      ValueError: no finished run, a format or naming that does not fit it, a folder that is in use, a method that torch does
        not get; or the folder predicts something else than the run.
    """
    run, output = in_float32(finished.load(folder, fold)), pathlib.Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty; remove it, or give another --output")
    write(run, output, format, naming)
    _, _, targets = workdir.read_facts(run.folder)
    done = json.loads((run.folder / "DONE.json").read_text())
    model_card = card.card(run.config, run.ranks, run.folder, targets, done, fold)
    with open(output / "README.md", "a", encoding="utf-8") as file:
        file.write("\n" + model_card)
    print(f"{output}: {', '.join(sorted(file.name for file in output.iterdir()))}", flush=True)
    if importlib.util.find_spec("torch") is None:
        print("NOT VERIFIED: torch is not installed; pip install 'jaxord[torch]' and export again to compare")
        return
    with tempfile.TemporaryDirectory() as scratch:
        title, examples = chosen_examples(run, fold, pathlib.Path(scratch))
        rule, difference, spread = verify(run, output, examples)
    print(f"verified by torch {importlib.metadata.version('torch')} on {len(examples)} {title}: "
          f"the largest difference of {rule} is {difference.max():.2g} (predictions from {spread[0]:.4g} to {spread[1]:.4g})")


def in_float32(run):
    """The run with activations and rank sentences in float32, whatever it was trained in."""
    config = copy.deepcopy(run.config).unlock()
    config.model.dtype = "float32"
    table = run.variables["params"].get("sentence/embedding", np.zeros((0, 0)))
    model = ordinal.build(config, run.model.settings, jnp.float32, run.constants.get("prompt_slots"), table.shape)
    constants = dict(run.constants)
    if "text_embeds" in constants:
        with jax.default_matmul_precision("highest"):
            constants["text_embeds"] = np.asarray(assemble.text_embeds(model, run.variables["params"], constants))
    return dataclasses.replace(run, config=config.lock(), model=model, constants=constants)


def write(run, folder, format="", naming="hf"):
    """Writes everything but the model card.

    Args:
      run: jaxord.finished.Finished.
      folder: made if need be.
      format, naming: as `export`.
    """
    clip = not run.config.model.image_tower
    format = format or ("hf" if clip else "torch")
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; it takes one of {sorted(FORMATS)}")
    if clip != (format == "hf"):
        raise ValueError(f"the image tower is {run.config.model.image_tower or 'CLIP'}, which --format={format} does not take; "
                         f"expected --format={'hf' if clip else 'torch'}")
    if naming not in ("hf", "open_clip") or (naming == "open_clip" and not clip):
        raise ValueError(f"naming is {naming!r}; it takes 'hf', or with CLIP's image tower 'open_clip'")
    facts, tensors = described(run)
    folder.mkdir(parents=True, exist_ok=True)
    uses = FORMATS[format](run, folder)
    if naming == "open_clip":
        uses += "\n" + write_open_clip(run, folder)
    write_json(folder / "ordinal.json", facts)
    save_file(tensors, folder / "ordinal.safetensors", metadata={"format": "pt"})
    (folder / "predict.py").write_text(export_torch.program(facts), encoding="utf-8")
    (folder / "README.md").write_text(readme(run, facts, uses), encoding="utf-8")


def described(run):
    """What follows the towers: (content of ordinal.json, {name: array} of ordinal.safetensors).

    Only heads that a rule's arrays come from are in it, and only rules that need no label.

    Raises:
      ValueError: a head, rule or crop that the program in torch does not have, or a gallery that is not there.
    """
    config, params, constants = run.config, run.variables["params"], run.constants
    rules, wanted = [], set()
    for entry in settings.plain(config.rules):
        taken, renames = set(needs(lookup(inference, entry["name"]))[0]), entry.get("arrays") or {}
        if not taken & finished.LABELS:
            own = {key: value for key, value in entry.items() if key not in ("name", "arrays", "block")}
            rules.append({"name": entry["name"], "arrays": renames, "settings": own})
            wanted |= {renames.get(name, name) for name in taken}
    heads, tensors = [], {}
    for entry in reversed(settings.plain(config.heads)):
        name = entry["name"]
        if name not in HEADS and name not in TRAINING:
            raise ValueError(f"the head {name} has no counterpart in torch: {config.method} on {config.name} is not exported")
        takes, gives = HEADS.get(name, (set(), set()))
        if gives & wanted:
            wanted = wanted - gives | takes
            part = ordinal.snake(name)
            heads.insert(0, {"name": name, "parameters": part, "settings": ordinal.settings_of(entry)})
            tensors |= {path: array for path, array in params.items() if path.split("/")[0] == part}
    if config.model.image_tower and "visual_projection/kernel" in params:
        tensors["visual_projection/kernel"] = params["visual_projection/kernel"]
    given = {**constants, **({"logit_scale": params["logit_scale"]} if "logit_scale" in params else {})}
    missing = wanted - set(given) - {"image_features", "image_embeds"}
    if missing:
        raise ValueError(f"the rules {[rule['name'] for rule in rules]} need {sorted(missing)}, which the run does not hold")
    tensors = {hf_clip.source_name(path): hf_clip.to_source(path, np.asarray(array)) for path, array in tensors.items()}
    tensors |= {name: given[name] for name in wanted if name in given}
    sentences = config.model.image_tower == "BiLSTM"
    facts = {
        "data": config.name, "method": config.method, "tower": config.model.image_tower,
        "input": "sentences" if sentences else "images", "transform": {} if sentences else transform(config.data),
        "heads": heads, "rules": rules, "target_scale": config.data.target_scale, "ranks": {},
    }  # fmt: skip
    if run.ranks:
        ranks = {"values": run.ranks.values.tolist(), "names": list(run.ranks.names), "edges": run.ranks.edges.tolist()}
        facts["ranks"] = ranks
    # safetensors writes the memory as it lies, so transposed views are copied.
    return facts, {name: np.array(array, order="C") for name, array in tensors.items()}


def transform(data):
    """How an image becomes the tower's input in evaluation."""
    mean, std = augment.NORMALISATIONS[data.normalize]
    crop = settings.plain(data.eval_crop)
    known = sorted(export_torch.tables()["CROPS"])
    if crop["name"] not in known:
        raise ValueError(f"data.eval_crop is {crop['name']}, which is random; expected one of {known}")
    own = {"resize": data.resize, "stored_size": data.stored_size, "crop": crop, "image_size": data.image_size}
    return {**own, "mean": list(mean), "std": list(std)}


def write_hf(run, folder):
    """CLIP's towers for transformers, with the tokenizer; returns how they are loaded."""
    params = clip_params(run)
    t = transform(run.config.data)
    whole = t["crop"]["name"] == "resize"
    form = {"resize": "square", "stored_size": t["image_size"]} if whole else {n: t[n] for n in ("resize", "stored_size")}
    hf_clip.save(folder, params, run.model.settings, mean=t["mean"], std=t["std"], **form)
    found = json.loads((folder / "config.json").read_text())["architectures"][0]
    exact = t["crop"]["name"] == "center_crop" or (whole and t["resize"] == "square" and t["stored_size"] == t["image_size"])
    uses = [f"- transformers: `{found}.from_pretrained(folder)`"]
    if "text_model" in {path.split("/")[0] for path in params}:
        write_tokenizer(run.config.model.weights, folder)
        uses.append("- its text tower has no learned prompt: the texts of the ranks are `text_embeds` in ordinal.safetensors")
    if not exact:
        uses.append("- `preprocessor_config.json` is the nearest that transformers can express: the evaluation takes "
                    f"`{t['crop']['name']}` of an image that was resized before, as `predict.py` does exactly")
    return "\n".join(uses)


def clip_params(run):
    return {path: array for path, array in run.variables["params"].items() if path.split("/")[0] in hf_clip.PARTS}


def write_tokenizer(source, folder):
    """The files of the checkpoint that a run started from, or bytes as a tokenizer where it started from none."""
    if source:
        try:
            checkpoint = hf_clip.resolve(source)
        except ValueError as error:
            print(f"WITHOUT TOKENIZER: {error}")
            return
        for name in TOKENIZER:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        return
    write_json(folder / "tokenizer.json", byte_vocabulary())
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **ends})


def byte_vocabulary():
    """`jaxord.tokenizer.byte_tokenizer` in the format of the `tokenizers` library: lower case, a blank behind each word."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    printed = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]  # ByteLevel's alphabet shows the rest
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
        "<|startoftext|> $A <|endoftext|>", None, [("<|startoftext|>", own.sot), ("<|endoftext|>", own.eot)]
    )
    return json.loads(made.to_str())


def write_open_clip(run, folder):
    """CLIP's towers once more by OpenCLIP's names; returns how they are loaded."""
    params, t = clip_params(run), transform(run.config.data)
    tensors = {hf_clip.source_name(path): hf_clip.to_source(path, np.asarray(array)) for path, array in params.items()}
    found = {name: np.array(array, order="C") for name, array in open_clip.from_hf(tensors).items()}
    save_file(found, folder / open_clip.WEIGHTS, metadata={"format": "pt"})
    if "text_projection" not in found:
        return f"- OpenCLIP: `{open_clip.WEIGHTS}` has the image tower (`visual.`) alone, `load_state_dict(..., strict=False)`"
    write_json(folder / open_clip.CONFIG, open_clip.config(run.model.settings, t["mean"], t["std"]))
    return f"- OpenCLIP: `create_model_and_transforms('local-dir:' + folder)` reads `{open_clip.WEIGHTS}`"


def write_torch(run, folder):
    """Another image tower by the names of torch; returns how it is loaded."""
    (part,) = {path.split("/")[0] for path in run.variables["params"]} & {"resnet", "vgg", "sentence"}
    flat = {path.removeprefix(f"{part}/"): array for kind in run.variables.values() for path, array in kind.items()
            if path.startswith(f"{part}/")}  # fmt: skip
    torchvision.save(folder / "model.safetensors", flat)
    if part == "sentence":
        return "- `model.safetensors`: `embedding` [words, D]; behind `lstm.` the state dict of a bidirectional torch.nn.LSTM"
    name = run.config.model.image_tower.lower().replace("-", "")
    return (f"- torchvision: `{name}()`, without its last layer, takes `model.safetensors` by "
            "`load_state_dict(..., strict=False)`; only `num_batches_tracked` and the last layer are missing")


FORMATS = {"hf": write_hf, "torch": write_torch}


def readme(run, facts, uses):
    """How the folder is used."""
    images = facts["input"] == "images"
    example = '["photo.jpg"]' if images else "[[[2, 15, 7], [2, 9]]]"
    example_text = "" if images else "# pairs of lists of word ids, as the training data's vocabulary numbers them\n"
    rules = ", ".join(f"`{rule['name']}`" for rule in facts["rules"])
    t = facts["transform"]
    seen = (f"Images: {t['resize']} resize to {t['stored_size']} pixels (Pillow, bicubic), `{t['crop']['name']}` to "
            f"{t['image_size']}; features of several views are averaged." if images else
            "Inputs: pairs of sentences as ids of words, row by row of the table `embedding`.")  # fmt: skip
    needed = "torch safetensors numpy pillow" + (" transformers" if facts["tower"] == "" else "")
    return f"""# {facts['data']}, {facts['method']}

A model of ordinal labels, exported by jaxord. It predicts without it: `pip install {needed}`, then

```python
import sys
sys.path.insert(0, "path/of/this/folder")
from predict import Model

model = Model()                                  # reads this folder; nothing is downloaded, nothing unpickled
{example_text}for found in model.predict({example}):
    print(found["prediction"])                   # of the first rule, on the scale of the label
    print(found["rules"])                        # of every rule: {rules.replace('`', '')}
    print(found.get("rank"), found.get("rank_name"))
```

or `python predict.py photo.jpg`, which prints JSON. {seen} Rules: {rules}.

{uses}
- jaxord: {"`--config.model.weights=<this folder>` starts another run from the towers" if facts["tower"] == "" else
           "`--config.model.image_weights=<this folder>/model.safetensors` starts another run from the tower"
           if images else "only this program reads the tower"}
"""


def chosen_examples(run, fold, scratch):
    """(what they are, examples as `predict.py` takes them): of the test split where the data is there, else generated ones."""
    try:
        records = load.load(run.config.data, fold, run.config.seed)["test"]
    except ValueError:
        return "generated examples, for the run's data is not here", generated(run, scratch)
    rows = range(min(EXAMPLES, len(records)))
    if "sentences" in records.inputs:
        return "test examples", [
            [ids[mask].tolist() for ids, mask in zip(records.inputs["sentences"][row], records.inputs["sentence_mask"][row],
                                                     strict=True)] for row in rows
        ]  # fmt: skip
    examples = []
    for row in rows:
        frames = [scratch / f"{row}-0.image"]
        if records.read is not None:
            frames[0].write_bytes(records.read(row))
        else:
            frames = [scratch / f"{row}-{i}.png" for i in range(len(records.inputs["frames"][row]))]
            height, width = records.inputs["size"][row]
            for file, frame in zip(frames, records.inputs["frames"][row], strict=True):
                Image.fromarray(frame[:height, :width]).save(file)
        examples.append([str(file) for file in frames])
    return "test examples", examples


def generated(run, scratch):
    """Examples of noise, the same ones every time."""
    generator = np.random.default_rng(0)
    if run.config.model.image_tower == "BiLSTM":
        words = len(run.variables["params"]["sentence/embedding"])
        return [[generator.integers(words, size=n).tolist() for n in (3 + row, 5)] for row in range(EXAMPLES)]
    files = [str(scratch / f"{row}.png") for row in range(EXAMPLES)]
    for row, file in enumerate(files):
        rough = generator.integers(256, size=(5 + row, 6, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((300, 260 + 10 * row), Image.Resampling.BICUBIC).save(file)
    return [[file] for file in files]


def verify(run, folder, examples):
    """Compares the run and the program of an exported folder, which runs in a process of its own.

    Returns:
      (the first rule's name, differences of its values, (lowest, highest) of them).

    Raises:
      ValueError: the program fails, or half of its predictions differ by more than a thousandth of their scale. Rules that
        choose (argmax, neighbours) may differ in single examples that lie between two ranks.
    """
    ours = predicted(run, examples)
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "examples.json"
        write_json(file, examples)
        done = subprocess.run([sys.executable, str(folder / "predict.py"), str(file)], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{folder / 'predict.py'} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    rule = json.loads((folder / "ordinal.json").read_text())["rules"][0]["name"]
    theirs = np.array([found["rules"][rule] for found in json.loads(done.stdout)])
    difference = np.abs(ours[rule] - theirs)
    scale = max(1e-6, float(np.ptp(run.ranks.values)) if run.ranks else float(np.abs(theirs).max()))
    if not np.median(difference) <= 1e-3 * scale:
        raise ValueError(f"{folder} predicts {rule} {theirs.tolist()} and not, as the run does, {ours[rule].tolist()}")
    return rule, difference, (theirs.min(), theirs.max())


def predicted(run, examples):
    """Each rule's values of the run itself, {rule: f32[B] or f32[B, 2]}."""
    if run.config.model.image_tower == "BiLSTM":
        longest = max(len(ids) for pair in examples for ids in pair)
        padded = [[ids + [-1] * (longest - len(ids)) for ids in pair] for pair in examples]
        sentences = np.array(padded, np.int32)  # [B, 2, T]
        arrays = {"sentences": np.maximum(sentences, 0), "sentence_mask": sentences >= 0}
    else:
        data = run.config.data
        form = {"resize": data.resize, "stored_size": data.stored_size}
        decoded = [[decode.decode(pathlib.Path(file).read_bytes(), **form) for file in frames] for frames in examples]
        stored = np.array([[image for image, _ in frames] for frames in decoded])  # [B, F, C, C, 3]
        arrays = {"stored": stored, "size": np.array([frames[0][1] for frames in decoded], np.int32)}
    rules = [entry["name"] for entry in run.config.rules]

    @jax.jit
    def forward(variables, constants, arrays):
        inputs = {"image": run.images(**arrays)} if "stored" in arrays else arrays
        outputs = run.outputs(variables, constants, inputs)
        return {rule: outputs[rule] for rule in rules if rule in outputs}

    with jax.default_matmul_precision("highest"):
        return jax.device_get(forward(run.variables, run.constants, arrays))
