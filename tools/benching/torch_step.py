"""The step of tools/bench_step.py in PyTorch: transformers' CLIPModel, the same heads and losses.

Knows the baselines and NumCLIP, and refuses other parts. The images come augmented and on the
device; our step does that itself. Parameters outside CLIP keep our paths and our layout.

Shapes: B batch, V views, K ranks, T tokens, C width, D embedding, H W image.
"""

import math
import os
import time

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from jaxord.models.tokens import CONTEXT, RANK
from jaxord.weights import hf_clip

COMPILED = "torch.compile"
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def fcrc(arrays):
    """NumCLIP Eq 4: pairs of the batch, distances |rank_i - rank_j|, both directions."""
    scores = arrays["logits"][:, arrays["rank"]]  # [B, B]
    apart = (arrays["rank"][:, None] - arrays["rank"]).abs().float()
    weights = torch.log(apart * (len(apart) - 1) / apart.sum(1, keepdim=True).clamp(min=1.0))
    matching = scores.diagonal()

    def mean(others):
        rows = torch.cat([matching[:, None], others + weights], 1)
        return (torch.logsumexp(rows, 1) - matching).mean()

    return mean(scores) + mean(scores.T)


LOSSES = {
    "cross_entropy": lambda arrays: F.cross_entropy(arrays["logits"], arrays["rank"]),
    "l1": lambda arrays: F.l1_loss(arrays["value"], arrays["target"]),
    "fcrc": fcrc,
}
KNOWN = {
    "heads": {"Classifier", "Regressor", "CosineLogits", "BinRegressor"},
    "losses": set(LOSSES),
    "prompt": {"", "FixedPrompt", "ContextPrompt", "ConceptPrompt"},
    "optim": set(OPTIMIZERS),
}
KNOWN_SETTINGS = (("form", "pair"), ("distance", "absolute"))


def check(config):
    """Raises ValueError with all parts of a config that are not written here."""
    parts = [("heads", entry["name"]) for entry in config.heads]
    parts += [("losses", entry["name"]) for entry in config.losses]
    parts += [("prompt", config.prompt.name), ("optim", config.optim.name)]
    unknown = [(part, name) for part, name in parts if name not in KNOWN[part]]
    lines = [f"{part} {name}, known are {sorted(KNOWN[part])}" for part, name in unknown]
    for entry in config.losses:
        settings = {key: entry[key] for key in entry if key not in ("name", "weight")}
        others = [item for item in settings.items() if item not in KNOWN_SETTINGS]
        lines += [f"loss {entry['name']} with {key}={value}" for key, value in others]
    if config.model.image_tower:
        lines.append(f"image tower {config.model.image_tower}, known is CLIP's own")
    lines += ["model.remat"] if config.model.remat else []
    if lines:
        title = f"torch_step.py cannot run the step of {config.name}-{config.method}:"
        raise ValueError("\n  ".join([title, *lines]))


def build_clip(settings):
    """transformers' CLIPModel of these sizes, with fused attention."""

    def tower(side):
        sizes = getattr(settings, side)
        named = {theirs: getattr(sizes, ours) for ours, theirs in hf_clip.TOWER.items()}
        return named | {"projection_dim": settings.projection_dim}

    vision = tower("vision")
    vision |= {"image_size": settings.image_size, "patch_size": settings.patch_size}
    end = settings.eos_token_id
    text = tower("text") | {"vocab_size": settings.vocab_size}
    text |= {"max_position_embeddings": settings.max_positions}
    text |= {"eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}
    sides = {"vision_config": vision, "text_config": text}
    config = CLIPConfig(**sides, projection_dim=settings.projection_dim)
    config._attn_implementation = "sdpa"
    return CLIPModel(config)


class Model(nn.Module):
    """The model of a Task with its parameters and the sum of its losses; dtype of activations."""

    def __init__(self, task, dtype):
        super().__init__()
        self.heads = [entry["name"] for entry in task.config.heads]
        losses = task.config.losses
        self.losses = [(LOSSES[loss["name"]], loss.get("weight", 1.0)) for loss in losses]
        self.prompt, self.dtype = task.config.prompt.name, dtype
        for name, array in task.constants.items():
            if name != "seed":
                self.register_buffer(name, torch.tensor(np.asarray(array)))
        self.clip = build_clip(task.model.settings)
        if not self.prompt:
            del self.clip.text_model, self.clip.text_projection, self.clip.logit_scale
        weights, self.others, self.by_path = {}, nn.ParameterDict(), {}
        for path, array in {**task.trained, **task.frozen}.items():
            if path.split("/")[0] in hf_clip.PARTS:
                array = hf_clip.to_source(path, np.asarray(array)).copy()
                weights[hf_clip.source_name(path)] = torch.tensor(array)
            else:
                self.others[path] = torch.tensor(np.asarray(array))
        self.clip.load_state_dict(weights)
        named = dict(self.clip.named_parameters())
        for path in (*task.trained, *task.frozen):
            of_clip = path.split("/")[0] in hf_clip.PARTS
            parameter = named[hf_clip.source_name(path)] if of_clip else self.others[path]
            self.by_path[path] = parameter.requires_grad_(path in task.trained)

    def forward(self, batch):
        """Our outputs for batch["image"] f32[B V, 3, H, W], and `loss` if the batch has a rank."""
        images, views = batch["image"], batch["views"]
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.clip.vision_model(pixel_values=images).pooler_output.float()  # [B V, C]
            features = features.reshape(len(images) // views, views, -1).mean(1)
            arrays = {**batch, "image_embeds": self.clip.visual_projection(features).float()}
            if self.prompt:
                text = self.text_embeds if hasattr(self, "text_embeds") else self.text().float()
                arrays |= {"text_embeds": text, "logit_scale": self.clip.logit_scale}
        for head in self.heads:
            arrays |= getattr(self, head)(arrays)
        if "rank" in batch:
            arrays["loss"] = sum(weight * loss(arrays) for loss, weight in self.losses)
        return arrays

    def text(self):
        """Projected features of the rank sentences under the prompt: [K, D]."""
        tower = self.clip.text_model
        words = tower.embeddings.token_embedding(self.prompt_tokens)  # [K, T, C]
        if self.prompt != "FixedPrompt":
            words = self.place(words, CONTEXT, self.others["prompt/context"][None])
        if self.prompt == "ConceptPrompt":
            words = self.place(words, RANK, self.others["prompt/ranks"])
        words = tower.embeddings(inputs_embeds=words)
        states = tower.encoder(inputs_embeds=words, attention_mask=None, is_causal=True)[0]
        states = tower.final_layer_norm(states)
        rows = torch.arange(len(states), device=states.device)
        return self.clip.text_projection(states[rows, self.prompt_end.long()])

    def place(self, words, kind, vectors):
        """Writes vectors [K or 1, n, C], in order, over the positions of one kind."""
        here = self.prompt_slots == kind
        order = (here.cumsum(1) - 1).clamp(min=0)[..., None].expand(words.shape)
        placed = vectors.expand(len(words), -1, -1).gather(1, order)
        return torch.where(here[..., None], placed, words)

    def linear(self, path, x):
        return x @ self.others[f"{path}/kernel"] + self.others[f"{path}/bias"]

    # Heads have the names of ours.
    def Classifier(self, arrays):  # noqa: N802
        return {"logits": self.linear("classifier/Dense_0", arrays["image_embeds"])}

    def Regressor(self, arrays):  # noqa: N802
        raw = self.linear("regressor/Dense_0", arrays["image_embeds"])[:, 0]
        return {"value": self.rank_values.mean() + self.rank_values.std(correction=0) * raw}

    def CosineLogits(self, arrays):  # noqa: N802
        images, texts = (F.normalize(arrays[f"{kind}_embeds"], dim=1) for kind in ("image", "text"))
        return {"logits": arrays["logit_scale"].exp() * images @ texts.T}

    def BinRegressor(self, arrays):  # noqa: N802
        hidden = F.relu(self.linear("bin_regressor/hidden", arrays["logits"]))
        delta = torch.tanh(self.linear("bin_regressor/delta", hidden))
        return {"value": (F.softmax(arrays["logits"], 1) * self.rank_values / (1 + delta)).sum(1)}


def batch_of(arrays, device):
    """A prepared batch of ours, image f32[B, V, H, W, 3], rank, target, as `Model` takes it."""
    image = np.asarray(arrays["image"])
    images = image.reshape(-1, *image.shape[2:]).transpose(0, 3, 1, 2).copy()
    types = {"rank": np.int64, "target": np.float32}
    labels = {name: np.asarray(arrays[name], types[name]) for name in types if name in arrays}
    labels = {name: torch.tensor(array, device=device) for name, array in labels.items()}
    return {"image": torch.tensor(images, device=device), **labels, "views": image.shape[1]}


def compiled(model, batch):
    """(torch.compile of the model, COMPILED), or the model itself and why torch cannot."""
    try:
        fast = torch.compile(model)
        result = fast(batch)
        if "loss" in result and torch.is_grad_enabled():
            result["loss"].backward()
            model.zero_grad(set_to_none=True)
        return fast, COMPILED
    # A missing or broken compiler raises anything; the same call ran before without one.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        return model, f"EAGER, torch.compile fails here: {reason}"


def build(task, arrays, factors, *, train, compile):
    """The update of a Task on a prepared batch of ours, or the forward pass of its evaluation.

    `factors` f32[steps] are the schedule's, `compile` tries torch.compile.

    Returns:
      (function that runs once and gives the loss or the outputs, function that waits for the
      device, facts: `loss` at the start, `form`, `compile_s` and `peak_bytes`, a function).
    """
    check(task.config)
    gpu = torch.cuda.is_available()
    if jax.default_backend() == "cpu":
        # As many as XLA takes.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = torch.device("cuda" if gpu else "cpu")
    wait = torch.cuda.synchronize if gpu else lambda: None
    # TF32 on a GPU, as XLA.
    torch.set_float32_matmul_precision("high" if gpu else "highest")
    model = Model(task, getattr(torch, str(np.dtype(task.model.dtype)))).to(device).train(train)
    batch = batch_of(arrays, device)
    with torch.set_grad_enabled(train):
        first = model(batch)
        begun = time.perf_counter()
        run, form = compiled(model, batch) if compile else (model, "eager, as asked")
        wait()
        seconds = time.perf_counter() - begun if form == COMPILED else math.nan

    def peak_bytes():
        return torch.cuda.max_memory_allocated() if gpu else None

    loss = float(first["loss"].detach()) if train else None
    form = f"{torch.__version__}, {form}, {torch.get_num_threads()} threads"
    facts = {"loss": loss, "form": form, "compile_s": seconds, "peak_bytes": peak_bytes}
    forward = torch.no_grad()(lambda: run(batch))
    return make_update(task, model, run, batch, factors) if train else forward, wait, facts


def make_update(task, model, run, batch, factors):
    """The update of a model, whose forward pass is `run`, on one batch; gives the loss."""
    o, groups = task.config.optim, {}
    for path in task.trained:
        rates = {"weight_decay": 0.0, **o.rates[task.groups[path]]}
        group = groups.setdefault(task.groups[path], {"params": [], **rates})
        group["params"].append(model.by_path[path])
    groups = list(groups.values())
    trained = [parameter for group in groups for parameter in group["params"]]
    optimizer = OPTIMIZERS[o.name](groups, betas=(o.b1, o.b2), eps=o.eps, fused=True)
    last = len(factors) - 1
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: float(factors[min(n, last)]))

    def step():
        loss = run(batch)["loss"]
        loss.backward()
        if o.clip:
            nn.utils.clip_grad_norm_(trained, o.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        return loss.detach()

    return step
