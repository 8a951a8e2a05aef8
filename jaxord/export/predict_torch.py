"""Predict with the exported model of this folder in torch.

    python predict.py photo.jpg other.png      # prints JSON, one entry per example
    python predict.py examples.json            # the same for a JSON list, see Model.predict

Needs torch, safetensors, numpy, Pillow and, for CLIP, transformers. ordinal.json says how an
example becomes the model's input and which heads and rules follow; ordinal.safetensors holds their
arrays. Nothing is downloaded or unpickled.

B examples, V views of one, K ranks, G groups, R reference points, D embedding, N gallery, T words,
H W image, M clips, F frames of a clip, h w its map, C width.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence


class Model:
    """The towers, heads and rules of one folder."""

    def __init__(self, folder=pathlib.Path(__file__).parent):
        folder = pathlib.Path(folder)
        self.description = json.loads((folder / "ordinal.json").read_text(encoding="utf-8"))
        self.arrays = load_file(folder / "ordinal.safetensors")
        self.tower, projection = TOWERS[self.description["tower"]](folder)
        self.projection = self.arrays.get("visual_projection.weight", projection)

    def predict(self, examples, batch=32):
        """Predict the label of each example.

        Args:
          examples: files of images; lists of the files of videos' frames, or, for a model that
            reads motion, {"frames": such a list, "motion": .npy file of f16[M, F, h, w, C] made by
            jaxord.data.video}; or pairs of lists of word ids.
          batch: examples per call of the model.

        Returns:
          A list of dicts: `prediction` of the first rule and all `rules`, on the label's scale,
          and, if the labels are ranks, `rank` and `rank_name` of the prediction.
        """
        read, rules = INPUTS[self.description["input"]], self.description["rules"]
        results = []
        for start in range(0, len(examples), batch):
            arrays = self.outputs(read(self.description, examples[start : start + batch]))
            columns = [self.value(rule, arrays).tolist() for rule in rules]
            results += map(self.result, zip(*columns, strict=True))
        return results

    @torch.no_grad()
    def outputs(self, inputs):
        """All arrays by name: the stored ones, the tower's, then each head's in order."""
        if "image" in inputs:
            views = inputs["image"]
            features = self.tower(views.flatten(0, 1)).float().unflatten(0, views.shape[:2]).mean(1)
        else:
            features = self.tower(inputs)
        embeds = features if self.projection is None else F.linear(features, self.projection)
        arrays = {**self.arrays, **inputs, "image_features": features, "image_embeds": embeds}
        for head in self.description["heads"]:
            weights = below(self.arrays, head["parameters"])
            arrays |= HEADS[head["name"]](weights, arrays, **head["settings"])
        return arrays

    def value(self, rule, arrays):
        """A rule's prediction f32[B] (f32[B, 2] for two angles) on the label's scale."""
        renamed = {parameter: arrays[name] for parameter, name in rule["arrays"].items()}
        prediction = RULES[rule["name"]]({**arrays, **renamed}, **rule["settings"])
        return self.description["target_scale"] * prediction

    def result(self, predictions):
        """One entry of `predict`, of the rules' predictions for one example."""
        prediction, ranks = predictions[0], self.description["ranks"]
        names = [rule["name"] for rule in self.description["rules"]]
        entry = {"prediction": prediction, "rules": dict(zip(names, predictions, strict=True))}
        if not ranks:
            return entry
        values, edges = np.float32(ranks["values"]), np.float32(ranks["edges"])
        if len(edges):
            rank = int(np.searchsorted(edges, prediction, side="right")) - 1
        else:
            rank = int(np.rint(np.interp(prediction, values, np.arange(len(values)))))
        rank = min(max(rank, 0), len(values) - 1)
        return {**entry, "rank": rank, "rank_name": ranks["names"][rank]}


def below(arrays, prefix):
    """The arrays whose names start with `prefix.`, by the rest of their names."""
    start = prefix + "."
    return {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)}


def images(description, examples):
    """Files -> image f32[B, V, 3, H, W], cropped and normalised."""
    transform = description["transform"]
    mean, std = (torch.tensor(transform[name])[:, None, None] for name in ("mean", "std"))
    settings = dict(transform["crop"])
    crop = CROPS[settings.pop("name")]
    batch = []
    for example in examples:
        files = example if isinstance(example, (list, tuple)) else [example]
        frames = [np.array(load_image(file, transform)) for file in files]
        pixels = [torch.from_numpy(frame).permute(2, 0, 1).float() for frame in frames]
        views = [crop(image, transform["image_size"], **settings) for image in pixels]
        batch.append((torch.cat(views) / 255 - mean) / std)  # [V, 3, H, W]
    return {"image": torch.stack(batch)}


def videos(description, examples):
    """Files of frames and motion -> `images` of the frames, motion f32[B, M, F, h, w, C]."""
    maps = [np.load(example["motion"], allow_pickle=False) for example in examples]
    motion = torch.stack([torch.from_numpy(array).float() for array in maps])
    return {**images(description, [example["frames"] for example in examples]), "motion": motion}


def load_image(file, transform):
    """RGB pixels, both sides or the shorter one `stored_size`; beyond 2:1 only the middle."""
    with Image.open(file, formats=("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")) as image:
        image = rgb(ImageOps.exif_transpose(image))
    size, bicubic = transform["stored_size"], Image.Resampling.BICUBIC
    if transform["resize"] == "square":
        return image.resize((size, size), bicubic)
    short = min(image.size)
    w, h = (int(size * side / short) for side in image.size)
    left = image.width * max(w - 2 * size, 0) / 2 / w
    top = image.height * max(h - 2 * size, 0) / 2 / h
    box = (left, top, image.width - left, image.height - top)
    return image.resize((min(w, 2 * size), min(h, 2 * size)), bicubic, box=box)


def rgb(image):
    """RGB of an image of any mode; 16 bits become 8, transparency is dropped."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def center_crop(image, size):
    """The middle square; an odd remainder goes to the bottom and right."""
    return cut(image, [[room // 2 for room in slack(image, size)]], size)


def diagonal_crops(image, size, views=3):
    """Squares evenly spaced from the top left to the bottom right corner."""
    places = [0.5] if views == 1 else [v / (views - 1) for v in range(views)]
    rooms = slack(image, size)
    return cut(image, [[int(room * place + 0.5) for room in rooms] for place in places], size)


def spread_crops(image, size, views=4, step=1):
    """Squares spread evenly over the image, at multiples of `step` pixels."""
    cells = np.float32([room // step + 1 for room in slack(image, size)])
    steps = np.outer(np.arange(views), (0.7548776662466927, 0.5698402909980532))
    places = np.float32((0.5 + steps) % 1)
    return cut(image, step * (places * cells).astype(int), size)


def resize(image, size):
    """The whole image at any aspect ratio; values are not rounded to integers."""
    if image.shape[1:] == (size, size):
        return image[None]
    return F.interpolate(image[None], (size, size), mode="bicubic", antialias=True).clamp(0, 255)


def slack(image, size):
    return [max(side - size, 0) for side in image.shape[1:]]


def cut(image, starts, size):
    return torch.stack([image[:, y : y + size, x : x + size] for y, x in starts])


def sentences(description, examples):
    """Pairs of lists of word ids -> ids i64[2 B, T], lengths i64[2 B] in words."""
    rows = [torch.tensor(ids, dtype=torch.long) for pair in examples for ids in pair]
    lengths = torch.tensor([len(ids) for ids in rows])
    one_word = torch.zeros(1, dtype=torch.long)  # T is at least 1
    padded = pad_sequence([*rows, one_word], batch_first=True)[:-1]
    return {"ids": padded, "lengths": lengths}


def clip(folder):
    """CLIP's image tower, and its projection f32[D, C]."""
    from transformers import CLIPVisionModelWithProjection, logging

    # Loading warns that the folder's text tower is not used.
    logging.set_verbosity_error()
    model = CLIPVisionModelWithProjection.from_pretrained(folder).float().eval()
    return lambda x: model.vision_model(x).pooler_output, model.visual_projection.weight


def resnet(folder):
    """A ResNet without its classifier, from torchvision's names."""
    weights = load_file(folder / "model.safetensors")

    def convolve(x, convolution, norm, stride=1):
        weight = weights[f"{convolution}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return F.batch_norm(x, **below(weights, norm))

    def residual_block(x, block, stride):
        last = 3 if f"{block}.conv3.weight" in weights else 2
        y = x
        for i in range(1, last + 1):
            # The first 3 x 3 convolution has the stride.
            y = convolve(y, f"{block}.conv{i}", f"{block}.bn{i}", stride if i == last - 1 else 1)
            y = y.relu() if i < last else y
        if f"{block}.downsample.0.weight" in weights:
            x = convolve(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        return (x + y).relu()

    blocks = {tuple(name.split(".")[:2]) for name in weights if name.startswith("layer")}

    def tower(x):
        x = F.max_pool2d(convolve(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
        for layer, number in sorted(blocks, key=lambda block: (block[0], int(block[1]))):
            halves = layer != "layer1" and number == "0"
            x = residual_block(x, f"{layer}.{number}", 2 if halves else 1)
        return x.mean((2, 3))

    return tower, None


def vgg(folder):
    """A VGG without its last layer, from torchvision's names."""
    weights = load_file(folder / "model.safetensors")
    positions = sorted({int(name.split(".")[1]) for name in weights if "features" in name})

    def tower(x):
        for i, following in zip(positions, [*positions[1:], positions[-1] + 3], strict=True):
            x = F.conv2d(x, **below(weights, f"features.{i}"), padding=1).relu()
            # An activation and a pool lie between convolutions that are three places apart.
            if following - i == 3:
                x = F.max_pool2d(x, 2)
        x = F.adaptive_avg_pool2d(x, 7).flatten(1)
        for i in (0, 3):
            x = linear(weights, f"classifier.{i}", x).relu()
        return x

    return tower, None


def bilstm(folder):
    """Features [u; v; |u - v|; u v] of pairs; u, v: maxima of LSTM outputs over the words."""
    weights = load_file(folder / "model.safetensors")
    embedding = weights["embedding"]
    recurrent = below(weights, "lstm")
    layers = sum(name.startswith("weight_ih") for name in recurrent) // 2
    sizes = embedding.shape[1], recurrent["weight_hh_l0"].shape[1], layers
    lstm = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
    lstm.load_state_dict(recurrent)

    def tower(inputs):
        ids, lengths = inputs["ids"], inputs["lengths"]
        packed = pack_padded_sequence(embedding[ids], lengths.clamp(min=1), True, False)
        x, _ = pad_packed_sequence(lstm(packed)[0], True, -torch.inf)
        pooled = torch.where(lengths[:, None] > 0, x.max(1).values, 0.0)  # [2 B, 2 C]
        u, v = pooled[::2], pooled[1::2]
        return torch.cat([u, v, (u - v).abs(), u * v], 1)

    return tower, None


def linear(weights, name, x):
    return F.linear(x, **below(weights, name))


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True).clamp(min=1e-24))


def cosine_logits(weights, arrays):
    """exp(logit_scale) cos(image_embeds, text_embeds): [B, K]."""
    image, text = unit(arrays["image_embeds"]), unit(arrays["text_embeds"])
    return {"logits": arrays["logit_scale"].exp() * image @ text.T}


def regressor(weights, arrays):
    """The mean of the rank values plus their standard deviation times w . image_embeds + b."""
    ranks, x = arrays["rank_values"], linear(weights, "Dense_0", arrays["image_embeds"])[:, 0]
    return {"value": ranks.mean() + ranks.std(correction=0) * x}


def bin_regressor(weights, arrays):
    """sum_k softmax(logits)_k b_k / (1 + delta_k), delta = tanh(W2 ReLU(W1 logits))."""
    logits = arrays["logits"]
    delta = linear(weights, "delta", linear(weights, "hidden", logits).relu()).tanh()
    return {"value": (logits.softmax(1) * arrays["rank_values"] / (1 + delta)).sum(1)}


def thresholds_head(weights, arrays, shared=True):
    """Log odds that the rank is above k: [B, K-1]; `shared`: one weight vector, K-1 biases."""
    bias = weights["bias"] if shared else 0.0
    return {"threshold_logits": linear(weights, "Dense_0", arrays["image_embeds"]) + bias}


def adapter(weights, arrays, ratio=0.8):
    x = arrays["image_embeds"]
    adapted = linear(weights, "up", linear(weights, "down", x).relu()).relu()
    return {"image_embeds": ratio * adapted + (1 - ratio) * x}


def projection(weights, arrays, layers=2, **sizes):
    x = arrays["image_embeds"]
    for i in range(layers - 1):
        x = linear(weights, str(i), x).relu()
    return {"image_embeds": linear(weights, str(layers - 1), x)}


def experts_head(weights, arrays):
    """A value for each group, and the logits of the groups: [B, G] each."""
    x, ranks = arrays["image_embeds"], arrays["rank_values"]
    values = ranks.mean() + ranks.std(correction=0) * linear(weights, "values", x)
    return {"expert_values": values, "group_logits": linear(weights, "groups", x)}


def motion_fusion(weights, arrays, blocks=2, heads=4, width=256):
    """W [image_embeds; W' mean(attention(motion)) + b'] + b."""
    embeds = arrays["image_embeds"]
    x = arrays["motion"].flatten(0, 1).flatten(2, 3)  # [B M, F, h w, C]
    for i in range(blocks):
        # Blocks alternate between the places of a frame and the frames at a place.
        block = below(weights, f"inter_{i}" if i % 2 else f"intra_{i}")
        x = x.transpose(1, 2) if i % 2 else x
        x = attention_block(block, x, heads)
        x = x.transpose(1, 2) if i % 2 else x
    temporal = linear(weights, "temporal", x.reshape(len(embeds), -1, width).mean(1))
    return {"image_embeds": linear(weights, "fusion", torch.cat([embeds, temporal], 1))}


def attention_block(weights, x, heads):
    """Pre-norm transformer block over the last axis but one: [..., T, C] -> [..., T, C]."""
    y = F.layer_norm(x, x.shape[-1:], **below(weights, "layer_norm1"))
    qkv = [linear(weights, f"self_attn.{name}_proj", y) for name in "qkv"]
    split = [part.unflatten(-1, (heads, -1)).transpose(-2, -3) for part in qkv]
    mixed = F.scaled_dot_product_attention(*split)  # [..., heads, T, C / heads]
    x = x + linear(weights, "self_attn.out_proj", mixed.transpose(-2, -3).flatten(-2))
    y = F.layer_norm(x, x.shape[-1:], **below(weights, "layer_norm2"))
    return x + linear(weights, "mlp.fc2", F.gelu(linear(weights, "mlp.fc1", y)))


def thresholds(arrays, conditional=False):
    """The value of the rank whose index is the number of thresholds passed with p > 1/2."""
    logits = arrays["threshold_logits"]
    passed = F.logsigmoid(logits).cumsum(1) > -np.log(2.0) if conditional else logits > 0
    return arrays["rank_values"][passed.sum(1)]


def nearest(arrays, points, k):
    """Indices i64[B, k] of the points nearest to the unit embeddings; of equal ones the first."""
    embeds = unit(arrays["image_embeds"])
    distances = torch.cdist(embeds, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sort(dim=1, stable=True).indices[:, :k]


INPUTS = {"images": images, "videos": videos, "sentences": sentences}
CROPS = {crop.__name__: crop for crop in (center_crop, diagonal_crops, resize, spread_crops)}
TOWERS = {"": clip, "ResNet-18": resnet, "ResNet-50": resnet, "VGG-16": vgg, "BiLSTM": bilstm}
HEADS = {
    "Adapter": adapter,
    "BinRegressor": bin_regressor,
    "Classifier": lambda weights, x: {"logits": linear(weights, "Dense_0", x["image_embeds"])},
    "CosineLogits": cosine_logits,
    "Experts": experts_head,
    "MotionFusion": motion_fusion,
    "Projection": projection,
    "ReferencePoints": lambda weights, arrays, **initial: {"reference_points": weights["points"]},
    "Regressor": regressor,
    "Thresholds": thresholds_head,
}
RULES = {
    "argmax": lambda x: x["rank_values"][x["logits"].argmax(1)],
    "expectation": lambda x: (x["logits"].softmax(1) * x["rank_values"]).sum(1),
    "experts": lambda x: x["expert_values"].gather(1, x["group_logits"].argmax(1)[:, None])[:, 0],
    "knn": lambda x, k: x["gallery_targets"][nearest(x, unit(x["gallery_embeds"]), k)].mean(1),
    "nearest_reference": lambda x: x["reference_values"][
        nearest(x, x["reference_points"], 1)[:, 0]
    ],
    "thresholds": thresholds,
    "value": lambda x: x["value"],
}


if __name__ == "__main__":
    examples = sys.argv[1:]
    if len(examples) == 1 and examples[0].endswith(".json"):
        examples = json.loads(pathlib.Path(examples[0]).read_text(encoding="utf-8"))
    print(json.dumps(Model().predict(examples), indent=1))
