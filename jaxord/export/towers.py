"""Towers by the names of other programs. Each function returns Markdown on how they are loaded."""

import json

from safetensors.numpy import save_file

from jaxord.export.description import contiguous, processor_is_exact, to_hf, transform
from jaxord.models.tokens import byte_tokenizer
from jaxord.weights import hf_clip, hub, open_clip, torchvision
from jaxord.workdir.files import write_json

START, END = "<|startoftext|>", "<|endoftext|>"


def write_hf(run, folder):
    """Write CLIP's towers for transformers, with the tokenizer."""
    params, t = clip_params(run), transform(run.config.data)
    form = {"resize": t["resize"], "stored_size": t["stored_size"]}
    if t["crop"]["name"] == "resize":
        # transformers has one resize, so only the second one is left.
        form = {"resize": "square", "stored_size": t["image_size"]}
    hf_clip.save(folder, params, run.model.settings, mean=t["mean"], std=t["std"], **form)
    model = json.loads((folder / "config.json").read_text())["architectures"][0]
    has_text = any(path.startswith("text_model/") for path in params)
    processor = "CLIPProcessor" if has_text else "CLIPImageProcessor"
    calls = f"`{model}.from_pretrained(folder)` and `{processor}.from_pretrained(folder)`"
    lines = [f"- transformers: {calls}"]
    if has_text:
        stored = run.folder / "tokenizer"
        write_tokenizer(stored if stored.is_dir() else run.config.model.weights, folder)
        lines.append(
            "- the text tower has no learned prompt: `text_embeds` in ordinal.safetensors are the "
            "features of the ranks' texts"
        )
    if not processor_is_exact(t):
        lines.append(
            "- `preprocessor_config.json` is the nearest that transformers can express: evaluation "
            f"resizes an image first and then applies `{t['crop']['name']}`, as `predict.py` does"
        )
    return "\n".join(lines)


def clip_params(run):
    params = run.variables["params"]
    return {path: x for path, x in params.items() if path.split("/")[0] in hf_clip.PARTS}


def write_tokenizer(source, folder):
    """Copy the tokenizer of a run or checkpoint; "" writes bytes as a tokenizer."""
    if not source:
        write_json(folder / "tokenizer.json", byte_vocabulary())
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {"bos_token": START, "eos_token": END, "pad_token": END}
        write_json(folder / "tokenizer_config.json", config)
        return
    try:
        hub.copy_tokenizer(source, folder)
    except ValueError as error:
        print(f"WITHOUT TOKENIZER: {error}")


def byte_vocabulary():
    """`jaxord.models.tokens.byte_tokenizer` in the format of the `tokenizers` library.

    It lowers the case and puts a blank behind each word.
    """
    import tokenizers
    from tokenizers import normalizers, pre_tokenizers, processors

    # ByteLevel shows these bytes as they are, and the others as the characters from 256 on.
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    hidden = [b for b in range(256) if b not in shown]
    characters = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    ours = byte_tokenizer()
    words = {characters[b]: b for b in range(256)} | {START: ours.sot, END: ours.eot}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    tokenizer.add_special_tokens([START, END])
    # A full stop alone has no blank: prompts end with one token.
    blank = normalizers.Replace(tokenizers.Regex(r"(?<=\S)(?<!\A\.)\z"), " ")
    spaces = [normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Strip(), blank]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    ends = [(START, ours.sot), (END, ours.eot)]
    sentence = f"{START} $A {END}"
    tokenizer.post_processor = processors.TemplateProcessing(sentence, None, ends)
    return json.loads(tokenizer.to_str())


def write_open_clip(run, folder):
    """Write CLIP's towers once more by OpenCLIP's names."""
    t, weights = transform(run.config.data), open_clip.WEIGHTS
    tensors = contiguous(open_clip.from_hf(to_hf(clip_params(run))))
    save_file(tensors, folder / weights, metadata={"format": "pt"})
    if "text_projection" not in tensors:
        how = "`load_state_dict(..., strict=False)`"
        return f"- OpenCLIP: {how} takes `{weights}`, which has the image tower (`visual.`) alone"
    write_json(folder / open_clip.CONFIG, open_clip.config(run.model.settings, t["mean"], t["std"]))
    call = "create_model_and_transforms('local-dir:' + folder)"
    return f"- OpenCLIP: `{call}` reads `{weights}`"


def write_torch(run, folder):
    """Write another image tower by torch's names."""
    parts = {path.split("/")[0] for path in run.variables["params"]}
    (part,) = parts & {"resnet", "vgg", "sentence"}
    # A ResNet's statistics are variables of another kind than its parameters.
    weights = {}
    for arrays in run.variables.values():
        weights |= {
            p.removeprefix(f"{part}/"): x for p, x in arrays.items() if p.startswith(f"{part}/")
        }
    torchvision.save(folder / "model.safetensors", weights)
    if part == "sentence":
        return (
            "- `model.safetensors`: `embedding` [words, D]; behind `lstm.` the state dict of a "
            "bidirectional torch.nn.LSTM"
        )
    name = run.config.model.image_tower.lower().replace("-", "")
    return (
        f"- torchvision: `{name}().load_state_dict(..., strict=False)` takes `model.safetensors`; "
        "only `num_batches_tracked` and the last layer are missing"
    )
