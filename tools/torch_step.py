"""The step that tools/bench_step.py times, once more in PyTorch: transformers' CLIPModel, the same
heads, losses and groups.

It knows the parts of the baselines and of NumCLIP that are named in `Model`, and refuses others.
The images come augmented and on the device, which our own step does itself. Parameters outside of
CLIP keep our paths and our layout.

Shapes: B batch, V views, K ranks, T tokens, C width, H W image.
"""

import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from jaxord.models.tokens import CONTEXT, RANK
from jaxord.weights import hf_clip

COMPILED = "torch.compile"
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def cross_entropy(arrays):
    return F.cross_entropy(arrays["logits"], arrays["rank"])


def l1(arrays):
    return F.l1_loss(arrays["value"], arrays["target"])


def fcrc(arrays):
    """NumCLIP's loss in the form of its Eq 4, pairs of the batch with distances |rank_i - rank_j|, both directions."""
    scores = arrays["logits"][:, arrays["rank"]]  # [B, B]
    apart = (arrays["rank"][:, None] - arrays["rank"]).abs().float()
    weights = torch.log(apart * (len(apart) - 1) / apart.sum(1, keepdim=True).clamp(min=1.0))
    own = scores.diagonal()

    def mean(others):
        return (torch.logsumexp(torch.cat([own[:, None], others + weights], 1), 1) - own).mean()

    return mean(scores) + mean(scores.T)


LOSSES = {"cross_entropy": cross_entropy, "l1": l1, "fcrc": fcrc}
KNOWN = {
    "heads": {"Classifier", "Regressor", "CosineLogits", "BinRegressor"},
    "losses": set(LOSSES),
    "prompt": {"", "FixedPrompt", "ContextPrompt", "ConceptPrompt"},
    "optim": set(OPTIMIZERS),
}


def check(config):
    """Refuses a config that has a part which is not written here, with the list of all such
    parts."""
    found = {
        "heads": [entry["name"] for entry in config.heads],
        "losses": [entry["name"] for entry in config.losses],
        "prompt": [config.prompt.name],
        "optim": [config.optim.name],
    }
    lines = [
        f"{part} {name}, known are {sorted(KNOWN[part])}"
        for part, names in found.items()
        for name in names
        if name not in KNOWN[part]
    ]
    lines += [
        f"loss {entry['name']} with {key}={value}"
        for entry in config.losses
        for key, value in entry.items()
        if (key, value) not in (("form", "pair"), ("distance", "absolute"))
        and key not in ("name", "weight")
    ]
    if config.model.image_tower:
        lines.append(f"image tower {config.model.image_tower}, known is CLIP's own")
    lines += ["model.remat"] if config.model.remat else []
    if lines:
        raise ValueError(
            f"tools/torch_step.py cannot run the step of {config.name}-{config.method}:\n  "
            + "\n  ".join(lines)
        )


def build_clip(settings):
    """transformers' CLIPModel of these sizes, with fused attention."""
    sides = {
        side: {
            theirs: getattr(getattr(settings, side), ours) for ours, theirs in hf_clip.TOWER.items()
        }
        | {"projection_dim": settings.projection_dim}
        for side in ("vision", "text")
    }
    sides["vision"] |= {"image_size": settings.image_size, "patch_size": settings.patch_size}
    sides["text"] |= {
        "vocab_size": settings.vocab_size,
        "max_position_embeddings": settings.max_positions,
        "eos_token_id": settings.eos_token_id,
        "bos_token_id": settings.eos_token_id - 1,
        "pad_token_id": settings.eos_token_id,
    }
    config = CLIPConfig(
        vision_config=sides["vision"],
        text_config=sides["text"],
        projection_dim=settings.projection_dim,
    )
    config._attn_implementation = "sdpa"
    return CLIPModel(config)


class Model(nn.Module):
    """The model of a task with its parameters, and the weighted sum of its losses.

    Args:
      task: from jaxord.task.
      dtype: of activations, torch's.
    """

    def __init__(self, task, dtype):
        super().__init__()
        self.heads = [entry["name"] for entry in task.config.heads]
        self.losses = [
            (LOSSES[entry["name"]], entry.get("weight", 1.0)) for entry in task.config.losses
        ]
        self.prompt, self.dtype = task.config.prompt.name, dtype
        for name, array in task.constants.items():
            if name != "seed":
                self.register_buffer(name, torch.tensor(np.asarray(array)))
        self.clip = build_clip(task.model.settings)
        if not self.prompt:
            del self.clip.text_model, self.clip.text_projection, self.clip.logit_scale
        given = {path: np.asarray(array) for path, array in {**task.trained, **task.frozen}.items()}
        of_clip = {
            path: hf_clip.source_name(path) for path in given if path.split("/")[0] in hf_clip.PARTS
        }
        arrays = {
            name: torch.tensor(hf_clip.to_source(path, given[path]).copy())
            for path, name in of_clip.items()
        }
        self.clip.load_state_dict(arrays)
        self.own = nn.ParameterDict(
            {path: torch.tensor(array) for path, array in given.items() if path not in of_clip}
        )
        named = dict(self.clip.named_parameters())
        self.by_path = {
            path: named[of_clip[path]] if path in of_clip else self.own[path] for path in given
        }
        for path in task.frozen:
            self.by_path[path].requires_grad_(False)

    def forward(self, batch):
        """The outputs of our model for batch["image"] f32[B V, 3, H, W], and `loss` where the batch
        has a rank."""
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
            words = self.place(words, CONTEXT, self.own["prompt/context"][None])
        if self.prompt == "ConceptPrompt":
            words = self.place(words, RANK, self.own["prompt/ranks"])
        words = tower.embeddings(inputs_embeds=words)
        states = tower.encoder(inputs_embeds=words, attention_mask=None, is_causal=True)[0]
        states = tower.final_layer_norm(states)
        return self.clip.text_projection(
            states[torch.arange(len(states), device=states.device), self.prompt_end.long()]
        )

    def place(self, words, kind, vectors):
        """Writes vectors [K or 1, n, C], in order, over the positions of one kind."""
        here = self.prompt_slots == kind
        order = (here.cumsum(1) - 1).clamp(min=0)[..., None].expand(words.shape)
        return torch.where(
            here[..., None], vectors.expand(len(words), -1, -1).gather(1, order), words
        )

    def linear(self, path, x):
        return x @ self.own[f"{path}/kernel"] + self.own[f"{path}/bias"]

    def Classifier(self, arrays):  # noqa: N802  heads have the names of ours
        return {"logits": self.linear("classifier/Dense_0", arrays["image_embeds"])}

    def Regressor(self, arrays):  # noqa: N802
        raw = self.linear("regressor/Dense_0", arrays["image_embeds"])[:, 0]
        return {"value": self.rank_values.mean() + self.rank_values.std(correction=0) * raw}

    def CosineLogits(self, arrays):  # noqa: N802
        images, texts = (
            F.normalize(arrays[name], dim=1) for name in ("image_embeds", "text_embeds")
        )
        return {"logits": arrays["logit_scale"].exp() * images @ texts.T}

    def BinRegressor(self, arrays):  # noqa: N802
        hidden = F.relu(self.linear("bin_regressor/hidden", arrays["logits"]))
        delta = torch.tanh(self.linear("bin_regressor/delta", hidden))
        return {"value": (F.softmax(arrays["logits"], 1) * self.rank_values / (1 + delta)).sum(1)}


def batch_of(arrays, device):
    """A prepared batch of ours {image f32[B, V, H, W, 3], rank, target} as `Model` takes it, on the
    device."""
    image = np.asarray(arrays["image"])
    batch = {
        "image": torch.tensor(
            image.reshape(-1, *image.shape[2:]).transpose(0, 3, 1, 2).copy(), device=device
        )
    }
    types = {"rank": np.int64, "target": np.float32}
    batch |= {
        name: torch.tensor(np.asarray(arrays[name], types[name]), device=device)
        for name in types
        if name in arrays
    }
    return {**batch, "views": image.shape[1]}


def compiled(model, batch, wanted):
    """(torch.compile of the model, what it is called); where torch cannot compile here, the model
    itself and why."""
    if not wanted:
        return model, "eager, as asked"
    try:
        fast = torch.compile(model)
        result = fast(batch)
        if "loss" in result and torch.is_grad_enabled():
            result["loss"].backward()
            model.zero_grad(set_to_none=True)
        return fast, COMPILED
    # Whatever a compiler that is missing or broken raises; the same call ran before without one
    except Exception as error:
        return (
            model,
            f"EAGER, torch.compile fails here: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}",
        )


def build(task, arrays, factors, *, train, compile):
    """The step, or the forward pass of the evaluation.

    Args:
      task: from jaxord.task.
      arrays: prepared batch of ours; `rank` and `target` in training only.
      factors: f32[steps], the schedule's factor at each step.
      train: whether to update.
      compile: whether to try torch.compile.

    Returns:
      (function that runs once and gives the loss or the outputs, function that waits for the
      device, facts: dict of `loss` at the start, `form`, `compile_s`, and `peak_bytes`, a function
      that gives the bytes in use at most or None).
    """
    check(task.config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    torch.set_float32_matmul_precision(
        "high" if device.type == "cuda" else "highest"
    )  # TF32 there, as XLA
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[str(np.dtype(task.model.dtype))]
    model, batch = Model(task, dtype).to(device).train(train), batch_of(arrays, device)
    groups = (
        [
            {
                "params": [
                    model.by_path[path] for path in task.trained if task.groups[path] == group
                ],
                "lr": task.config.optim.rates[group]["lr"],
                "weight_decay": task.config.optim.rates[group].get("weight_decay", 0.0),
            }
            for group in dict.fromkeys(task.groups[path] for path in task.trained)
        ]
        if train
        else []
    )
    o, trained = task.config.optim, [parameter for group in groups for parameter in group["params"]]

    with torch.set_grad_enabled(train):
        first = model(batch)
        loss = float(first["loss"].detach()) if train else None
        start = time.perf_counter()
        run, form = compiled(model, batch, compile)
        wait()
        seconds = time.perf_counter() - start

    def peak_bytes():
        return torch.cuda.max_memory_allocated() if device.type == "cuda" else None

    seconds = seconds if form == COMPILED else math.nan
    facts = {"loss": loss, "form": form, "compile_s": seconds, "peak_bytes": peak_bytes}
    if not train:
        return torch.no_grad()(lambda: run(batch)), wait, facts
    optimizer = OPTIMIZERS[o.name](groups, betas=(o.b1, o.b2), eps=o.eps, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(factors[min(step, len(factors) - 1)])
    )

    def step():
        loss = run(batch)["loss"]
        loss.backward()
        if o.clip:
            nn.utils.clip_grad_norm_(trained, o.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        return loss.detach()

    return step, wait, facts
