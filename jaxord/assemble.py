"""From a config and a fold to everything a run is made of: data, ranks, model, constants, initial parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import inference, metrics, optim, ranks, sharding, step, tokenizer, trees
from jaxord.binding import bind, configured, lookup
from jaxord.data import augment, load, pipeline
from jaxord.models import ordinal
from jaxord.weights import hf_clip, variants

TEXT_SIDE = ("prompt", "text_model", "text_projection")  # what text_embeds are a function of


@dataclasses.dataclass(frozen=True)
class Task:
    """One fold of one config, ready to train or to evaluate.

    Attributes:
      config: the whole config.
      splits: split name -> jaxord.data.pipeline.Split.
      labels: split name -> dict of replicated arrays [N]: target f32, rank i32.
      ranks: the task's ranks.
      model: the linen module.
      constants: name -> replicated array; with `text_embeds` where everything they depend on is frozen.
      trained, frozen: initial parameters, flat, on the host.
      groups: path -> parameter group.
      mesh: of the devices.
    """

    config: object
    splits: dict
    labels: dict
    ranks: ranks.Ranks
    model: ordinal.OrdinalModel
    constants: dict
    trained: dict
    frozen: dict
    groups: dict
    mesh: jax.sharding.Mesh

    def prepare(self, train):
        """The function (stored batch, labels) -> batch with image, target and rank; to be called inside jit."""
        data = self.config.data
        images = functools.partial(
            augment.augment,
            crop=data.train_crop if train else data.eval_crop,
            flip=data.flip,
            image_size=data.image_size,
            normalize=data.normalize,
            seed=self.config.seed,
            train=train,
        )

        def batch_of(batch, labels):
            index = batch["index"]
            return {
                "image": images(batch["stored"], batch["size"], index, batch["epoch"]),
                "index": index,
                **{name: column[index] for name, column in labels.items()},
            }

        return batch_of


def assemble(config, fold):
    """Reads the data, builds the model, loads or draws its parameters.

    Raises:
      ValueError: anything that a user can mend: files, labels, settings, weights; before any training.
    """
    mesh = sharding.data_mesh()
    for name in ("batch", "eval_batch"):
        sharding.check_divides(config.data[name], mesh, f"data.{name}")
    records = load.load(config.data, fold, config.seed)
    settings = clip_settings(config)
    task_ranks = ranks.build(config.ranks, records["train"].targets, rank_names(records["train"]))
    prompt = prompt_constants(config, settings, task_ranks.names)
    model = ordinal.build(config, settings, activations(config), prompt.get("prompt_slots"))
    constants = {"rank_values": task_ranks.values, **prompt}
    parameters = initial_parameters(config, model, constants)
    trained, frozen, groups = optim.split(parameters, config.optim)
    check_scratch(config, groups)

    replicated, by_row = sharding.replicated(mesh), sharding.split(mesh)
    splits = {
        name: pipeline.decode_split(part, config.data, functools.partial(sharding.put, sharding=by_row))
        for name, part in records.items()
    }
    labels = {
        name: {"target": split.records.targets, "rank": task_ranks.index(split.records.targets)}
        for name, split in splits.items()
    }
    constants, labels = sharding.put((constants, labels), replicated)
    if prompt and not any(path.split("/")[0] in TEXT_SIDE for path in trained):
        constants["text_embeds"] = text_embeds(model, sharding.put(frozen, replicated), constants)
    task = Task(config, splits, labels, task_ranks, model, constants, trained, frozen, groups, mesh)
    check(task)
    return task


def check(task):
    """Traces one training batch through crops, model, losses and rules, so that what does not fit together fails at once."""
    stored = next(pipeline.eval_batches(task.splits["train"], batch=task.config.data.eval_batch))
    total_loss = step.objective(task.config)
    for name in task.config.metrics:
        lookup(metrics, name)

    def everything(parameters, stored, labels, constants):
        for train in (True, False):
            arrays = {**constants, **task.prepare(train)(stored, labels)}
        arrays |= task.model.apply({"params": trees.unflatten(parameters)}, arrays)
        return total_loss(arrays), [bind(rule, arrays, renames) for rule, renames in rules(task.config).values()]

    stored.pop("valid")
    jax.eval_shape(everything, {**task.trained, **task.frozen}, stored, task.labels["train"], task.constants)


def rules(config):
    """{name: (inference rule, renamed arrays)} in the config's order."""
    if not config.rules:
        raise ValueError("rules is empty; it names functions of jaxord.inference, the first is the headline")
    return {entry["name"]: (configured(inference, entry), entry.get("arrays") or {}) for entry in config.rules}


def activations(config):
    """The dtype of activations: the config's, or bfloat16 where there is an accelerator."""
    if config.model.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    if config.model.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"model.dtype is {config.model.dtype!r}; it takes 'float32', 'bfloat16' or 'auto'")
    return jnp.dtype(config.model.dtype)


def rank_names(records):
    """Names of the training split's labels in ascending order, where the data gives one per label (folders)."""
    if "rank_name" not in records.columns:
        return ()
    names = dict(zip(records.targets.tolist(), records.columns["rank_name"].tolist(), strict=True))
    return tuple(names[target] for target in sorted(names))


def clip_settings(config):
    """Sizes of the towers: those of the variant, which pretrained weights must have too.

    Raises:
      ValueError: weights of another architecture or made for other normalisation; none where the method needs them.
    """
    source, variant = config.model.weights, config.model.variant
    if variant and variant not in variants.VARIANTS:
        known = sorted(variants.VARIANTS)
        raise ValueError(f"model.variant is {variant!r}; it takes one of {known}, or '' for what the weights are")
    if not source and (config.model.pretrained or not variant):
        raise ValueError(
            f"{config.method} needs pretrained CLIP weights, and model.weights is empty. Give a folder or a hub id of a "
            "Hugging Face CLIP checkpoint (config.json, model.safetensors, tokenizer files): "
            "--config.model.weights=openai/clip-vit-base-patch16"
        )
    if not source:
        return dataclasses.replace(variants.VARIANTS[variant], image_size=config.data.image_size)
    found = hf_clip.settings(source)
    if variant:
        hf_clip.compare(found, variants.VARIANTS[variant])
    wanted = hf_clip.preprocessing(source)
    given = augment.NORMALISATIONS["clip"]
    if config.data.normalize == "clip" and not np.allclose(given, (wanted["mean"], wanted["std"]), atol=1e-6):
        raise ValueError(
            f"the weights in {source} want images normalised by mean {wanted['mean']} and standard deviation {wanted['std']}, "
            f"but data.normalize='clip' means {given[0]} and {given[1]}; choose one of {sorted(augment.NORMALISATIONS)}"
        )
    return dataclasses.replace(found, image_size=config.data.image_size)


def prompt_constants(config, settings, names):
    """Tokens of the rank sentences; empty without a text tower."""
    if not config.prompt.name:
        return {}
    source = config.model.weights
    words = tokenizer.clip(hf_clip.resolve(source)) if source else tokenizer.byte_tokenizer()
    if words.vocab_size > settings.vocab_size:
        raise ValueError(f"the tokenizer has {words.vocab_size} ids, the text tower only {settings.vocab_size} of variant "
                         f"{config.model.variant!r}; from scratch choose backbone=tiny")
    return ranks.sentences(config.prompt, names, words, settings.max_positions)


def initial_parameters(config, model, constants):
    """All parameters, flat: pretrained where there are weights, the rest drawn from the seed.

    Prompts start from word embeddings, so the towers are loaded first and what is missing is initialised around them.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), 0x1A17)  # apart from the stream of augmentation
    size = config.data.image_size
    arrays = {"image": jnp.zeros((1, 1, size, size, 3)), **constants}

    def fill(loaded):
        return model.apply({"params": loaded}, arrays, rngs={"params": key}, mutable=["params"])[1]["params"]

    loaded = {}
    if config.model.weights:
        shapes = trees.flatten(jax.eval_shape(fill, {}))
        wanted = {path: shape for path, shape in shapes.items() if path.split("/")[0] in hf_clip.PARTS}
        loaded = hf_clip.load(config.model.weights, wanted)
    # Runs once: half the compile time counts for more than the speed of the code.
    draw = jax.jit(fill, compiler_options={"xla_backend_optimization_level": 0})
    return {path: np.asarray(x) for path, x in trees.flatten(draw(trees.unflatten(loaded))).items()}


def check_scratch(config, groups):
    """A tower that starts at random and is never trained is a mistake."""
    if not config.model.weights and "frozen" in groups.values():
        raise ValueError(
            f"model.weights is empty, but {config.method} keeps parameters frozen, which would stay random; give weights, or "
            "start everything from scratch with the config argument 'backbone=tiny'"
        )


@functools.partial(jax.jit, static_argnums=0)
def text_embeds(model, parameters, constants):
    """Features of the rank sentences f32[K, D] for flat parameters."""
    prompt = (constants[name] for name in ("prompt_tokens", "prompt_slots", "prompt_end"))
    return model.apply({"params": trees.unflatten(parameters)}, *prompt, method="text")


def overview(task):
    """Lines for the log: data, ranks, devices, parameter groups."""
    lines = [f"{name:<6} {len(split.records):>7,} images, {split.tier}" for name, split in task.splits.items()]
    values = task.ranks.values
    lines.append(f"ranks  {len(values)} from {values[0]:g} to {values[-1]:g}: {', '.join(task.ranks.names[:6])}"
                 + (", ..." if len(values) > 6 else ""))
    lines.append(f"device {task.mesh.size} x {jax.devices()[0].device_kind}, activations {task.model.dtype}")
    return lines + optim.describe({**task.trained, **task.frozen}, task.groups, task.config.optim)
