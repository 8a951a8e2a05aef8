"""From a config and a fold to everything a run is made of: data, ranks, model, constants, initial
parameters."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import inference, metrics, optim, step, trees
from jaxord.binding import bind, configured, lookup
from jaxord.data import augment, corrupt, features, readers, storage
from jaxord.data.batches import eval_batches
from jaxord.models import ordinal, tokens, variants
from jaxord.runtime import attention, devices, narrow
from jaxord.targets import labels, ranks
from jaxord.weights import hf_clip, hub, initial

TEXT_SIDE = ("prompt", "text_model", "text_projection")  # what text_embeds are a function of


@dataclasses.dataclass(frozen=True)
class Task:
    """One fold of one config, ready to train or to evaluate.

    Attributes:
      config: the whole config.
      splits: split name -> jaxord.data.storage.Split.
      labels: split name -> dict of replicated arrays [N], what jaxord.targets.labels makes of the targets;
        "annotations" -> the same [N, A] for a training split whose images have several labels.
      ranks: the task's ranks; None where a target is two angles.
      model: the linen module.
      constants: name -> replicated array; with `text_embeds` where everything they depend on is
        frozen.
      trained, frozen: initial parameters, flat, on the host.
      stats: initial running statistics, flat, on the host.
      groups: path -> parameter group.
      mesh: of the devices.
      rounded: paths of frozen parameters that training and evaluation only ever round to the dtype
        of the activations.
    """

    config: object
    splits: dict
    labels: dict
    ranks: ranks.Ranks | None
    model: ordinal.OrdinalModel
    constants: dict
    trained: dict
    frozen: dict
    stats: dict
    groups: dict
    mesh: jax.sharding.Mesh
    rounded: frozenset = frozenset()

    def held(self, frozen):
        """Frozen parameters as the devices hold them: rounded where nothing reads more of them, so
        without a float32 copy."""
        return {
            path: x.astype(self.model.dtype) if path in self.rounded else x
            for path, x in frozen.items()
        }

    def prepare(self, train):
        """The function (stored batch, labels, constants) -> batch with image, target and rank; to
        be called inside jit."""
        data = self.config.data
        images = functools.partial(augment.transform, data=data, train=train)

        def batch_of(batch, labels, constants):
            index, epoch, seed = batch["index"], batch["epoch"], constants["seed"]
            if "slot" in labels:  # the images are on the device
                slot = labels["slot"][index]
                batch = {
                    **batch,
                    **{name: labels[name].at[slot].get(mode="clip") for name in ("stored", "size")},
                }
            arrays = {
                name: array
                for name, array in batch.items()
                if name not in ("stored", "frames", "size", "epoch")
            }
            for stored in {"stored", "frames"} & set(batch):
                arrays["image"] = images(batch[stored], batch["size"], index, epoch, seed=seed)
            if "annotations" in labels:
                row = index, augment.choice(labels["annotations"][index], index, epoch, seed)
            else:
                row = index
            others = ("annotations", "slot", "stored", "size")
            arrays |= {name: column[row] for name, column in labels.items() if name not in others}
            return {**arrays, "epoch": epoch} if train else arrays

        return batch_of


def make_task(config, fold, start=None, facts=None):
    """Reads the data, builds the model, loads or draws its parameters.

    Args:
      config: of one stage; its `fresh` says which parameters do not come from `start`.
      fold: name of the fold, "" without folds.
      start: the stage before: {"params": flat, "stats": flat}.
      facts: (ranks, constants, targets) of the training of a run that is evaluated again; else
        those of this data.

    Raises:
      ValueError: anything that a user can mend: files, labels, settings, weights; before any
        training.
    """
    mesh = devices.data_mesh()
    for name, rows in (
        ("batch", config.data.batch * config.data.copies),
        ("eval_batch", config.data.eval_batch),
    ):
        devices.check_divides(rows, mesh, f"data.{name}")
    if config.data.corruption.name:
        corrupt.check(config.data.corruption.name, config.data.corruption.severity)
    records = readers.load(config.data, fold, config.seed)
    train = records["train"]
    settings = clip_settings(config) if config.prompt.name or not config.model.image_tower else None
    if facts is None:
        angles, targets = train.targets.ndim > 1, train.targets
        task_ranks = None if angles else ranks.build(config.ranks, targets, rank_names(train))
        made = labels.build(config, targets, task_ranks)
        derived = made.constants
    else:
        task_ranks, derived, targets = facts
        made = labels.build(config, targets, task_ranks)
    prompt = prompt_constants(config, settings, task_ranks.names) if config.prompt.name else {}
    vectors = initial.word_vectors(config, train.vocabulary)
    dtype, rows = (
        activations(config),
        config.data.batch * config.data.copies * views(config, train, True) // mesh.size,
    )
    ways = attentions(config, settings, dtype, rows, prompt.get("prompt_tokens"))
    model = ordinal.build(config, settings, dtype, prompt.get("prompt_slots"), vectors.shape, ways)
    constants = {**derived, **prompt, "seed": np.uint32(config.seed % 2**32)}
    variables = initial.variables(config, model, constants, train, vectors, start)
    trained, frozen, groups = optim.split(variables["params"], config.optim)
    if start is None:
        initial.check_scratch(config, groups)

    replicated, by_row = devices.replicated(mesh), devices.split(mesh)
    make_split = storage.decode_split
    if config.model.features:
        make_split = features.make_split(config, model, variables, trained, replicated)
    place = functools.partial(devices.put, sharding=by_row)
    splits = {
        name: make_split(part, data_of(config, name), place) for name, part in records.items()
    }
    columns = {name: made.columns(split.records.targets) for name, split in splits.items()}
    if splits["train"].records.annotations is not None:
        columns["annotations"] = annotated(made, splits["train"].records.annotations)
    constants, columns = devices.put((constants, columns), replicated)
    if prompt and not any(path.split("/")[0] in TEXT_SIDE for path in trained):
        constants["text_embeds"] = text_embeds(model, devices.put(frozen, replicated), constants)
    task = Task(
        config,
        splits,
        columns,
        task_ranks,
        model,
        constants,
        trained,
        frozen,
        variables["stats"],
        groups,
        mesh,
    )
    return dataclasses.replace(
        task, rounded=check(task, len(splits["train"].records if facts is None else targets))
    )


def data_of(config, split):
    """config.data as a split sees it: only test images are corrupted."""
    data = copy.deepcopy(config.data)
    if split != "test":
        with data.unlocked():
            data.corruption.name = ""
    return data


def annotated(made, annotations):
    """Columns [N, A] of a training split whose images have several labels, and `annotations`
    i32[N], how many they are.

    Args:
      made: jaxord.targets.labels.Labels.
      annotations: f32[N, A], filled up with nan.
    """
    there = ~np.isnan(annotations)
    filled = np.where(there, annotations, annotations[:, :1])
    columns = {
        name: column.reshape(filled.shape)
        for name, column in made.columns(filled.reshape(-1)).items()
    }
    return {**columns, "annotations": there.sum(1).astype(np.int32)}


def check(task, size):
    """Traces one training batch through crops, model, losses and rules, so that what does not fit
    together fails at once.

    Args:
      task: the Task, but for `rounded`.
      size: samples of the gallery of neighbours.

    Returns:
      `rounded` of the Task.
    """
    stored = next(eval_batches(task.splits["train"], batch=task.config.data.eval_batch))
    total_loss = step.objective(task.config)
    for name in task.config.metrics:
        lookup(metrics, name)

    def everything(variables, stored, labels, constants):
        for train in (False, True):
            arrays = {**constants, **task.prepare(train)(stored, labels, constants)}
            outputs, _ = task.model.apply(
                trees.nested(variables),
                arrays,
                rngs={"dropout": jax.random.key(0)},
                mutable=["stats"] if train else [],
            )
            arrays |= outputs
            if not train:
                with_gallery = {
                    **arrays,
                    "gallery_targets": jnp.zeros((size, *arrays["target"].shape[1:])),
                }
                values = [
                    bind(
                        rule,
                        {
                            **with_gallery,
                            "gallery_embeds": jnp.zeros(
                                (size, arrays[gallery_of(rename)].shape[1])
                            ),
                        },
                        rename,
                    )
                    for rule, rename in configured_rules(task.config).values()
                ]
        return total_loss(arrays), values

    stored.pop("valid")
    variables = {"params": {**task.trained, **task.frozen}, "stats": task.stats}
    given = variables, stored, task.labels["train"], task.constants
    if task.model.dtype == jnp.float32:
        jax.eval_shape(everything, *given)
        return frozenset()
    params = narrow.only_rounded(everything, task.model.dtype, *given)[0]["params"]
    return frozenset(path for path in task.frozen if params[path])


def gallery_of(renames):
    """Name of the output that a rule with a gallery compares."""
    return renames.get("image_embeds", "image_embeds")


def configured_rules(config):
    """{name: (inference rule, renamed arrays)} in the config's order."""
    if not config.rules:
        raise ValueError(
            "rules is empty; it names functions of jaxord.inference, the first is the headline"
        )
    return {
        entry["name"]: (configured(inference, entry), entry.get("arrays") or {})
        for entry in config.rules
    }


def activations(config):
    """The dtype of activations: the config's, or bfloat16 where there is an accelerator."""
    if config.model.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    if config.model.dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f"model.dtype is {config.model.dtype!r}; it takes 'float32', 'bfloat16' or 'auto'"
        )
    return jnp.dtype(config.model.dtype)


def views(config, records, train):
    """How many images the tower sees of an example: crops, times frames of a video."""
    if records.read is None and "frames" not in records.inputs:
        return 1
    side = config.data.stored_size
    frames = records.inputs["frames"].shape[1:2] if "frames" in records.inputs else ()
    stored, ints = (
        jax.ShapeDtypeStruct((1, *frames, side, side, 3), jnp.uint8),
        jax.ShapeDtypeStruct((1, 2), jnp.int32),
    )
    seen = functools.partial(augment.transform, data=config.data, train=train)
    return jax.eval_shape(
        seen, stored, ints, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)
    ).shape[1]


def attentions(config, settings, dtype, rows, tokens, gradient=True):
    """Implementations of attention in (image tower, text tower), see jaxord.runtime.attention.

    Args:
      config: a whole config.
      settings: sizes of CLIP's towers, None where neither is used.
      dtype: of the activations.
      rows: images on one device.
      tokens: [K, T] of the rank sentences, or None.
      gradient: whether a training takes them.
    """
    shapes = {"image": None, "text": None}
    if not config.model.image_tower:
        shapes["image"] = (
            rows,
            1 + (settings.image_size // settings.patch_size) ** 2,
            settings.vision,
        )
    if tokens is not None:
        shapes["text"] = *tokens.shape, settings.text
    return tuple(
        attention.choose(
            config.model.attention,
            (*shape[:2], shape[2].heads, shape[2].width // shape[2].heads),
            dtype,
            causal=side == "text",
            gradient=gradient,
        )
        if shape
        else "xla"
        for side, shape in shapes.items()
    )


def rank_names(records):
    """Names of the training split's labels in ascending order, where the data gives one per label
    (folders)."""
    if "rank_name" not in records.columns:
        return ()
    names = dict(zip(records.targets.tolist(), records.columns["rank_name"].tolist(), strict=True))
    return tuple(names[target] for target in sorted(names))


def clip_settings(config):
    """Sizes of the towers: those of the variant, which pretrained weights must have too.

    Raises:
      ValueError: weights of another architecture or made for other normalisation; none where the
        method needs them.
    """
    source, variant = config.model.weights, config.model.variant
    if variant and variant not in variants.VARIANTS:
        known = sorted(variants.VARIANTS)
        raise ValueError(
            f"model.variant is {variant!r}; it takes one of {known}, or '' for what the weights are"
        )
    if not source and (config.model.pretrained or not variant):
        raise ValueError(
            f"{config.method} needs pretrained CLIP weights, and model.weights is empty. Give a folder or a hub id of a "
            "Hugging Face CLIP checkpoint (config.json, model.safetensors, tokenizer files): "
            "--config.model.weights=openai/clip-vit-base-patch16"
        )
    if not source:
        return dataclasses.replace(variants.VARIANTS[variant], image_size=config.data.image_size)
    found = hf_clip.read_settings(source)
    if variant:
        hf_clip.check_architecture(found, variants.VARIANTS[variant])
    wanted = hf_clip.preprocessing(source)
    given = augment.NORMALISATIONS["clip"]
    if config.data.normalize == "clip" and not np.allclose(
        given, (wanted["mean"], wanted["std"]), atol=1e-6
    ):
        raise ValueError(
            f"the weights in {source} want images normalised by mean {wanted['mean']} and standard deviation {wanted['std']}, "
            f"but data.normalize='clip' means {given[0]} and {given[1]}; choose one of {sorted(augment.NORMALISATIONS)}"
        )
    return dataclasses.replace(found, image_size=config.data.image_size)


def prompt_constants(config, settings, names):
    """Tokens of the rank sentences."""
    source = config.model.weights
    words = tokens.clip_tokenizer(hub.resolve(source)) if source else tokens.byte_tokenizer()
    if words.vocab_size > settings.vocab_size:
        raise ValueError(
            f"the tokenizer has {words.vocab_size} ids, the text tower only {settings.vocab_size} of variant "
            f"{config.model.variant!r}; from scratch choose backbone=tiny"
        )
    return tokens.sentences(config.prompt, names, words, settings.max_positions)


@functools.partial(jax.jit, static_argnums=0)
def text_embeds(model, parameters, constants):
    """Features of the rank sentences f32[K, D] for flat parameters."""
    prompt = {name: array for name, array in constants.items() if name.startswith("prompt_")}
    return model.apply({"params": trees.unflatten(parameters)}, prompt, method="text")


def overview(task):
    """Lines for the log: data, ranks, devices, parameter groups."""
    lines = [
        f"{name:<6} {len(split.records):>7,} examples, {split.tier}"
        for name, split in task.splits.items()
    ]
    if task.ranks:
        values = task.ranks.values
        lines.append(
            f"ranks  {len(values)} from {values[0]:g} to {values[-1]:g}: {', '.join(task.ranks.names[:6])}"
            + (", ..." if len(values) > 6 else "")
        )
    lines.append(
        f"device {task.mesh.size} x {jax.devices()[0].device_kind}, activations {task.model.dtype}"
        + (
            f", attention {task.model.tower[1].keywords['attention']}"
            if not task.config.model.image_tower
            else ""
        )
    )
    return lines + optim.describe({**task.trained, **task.frozen}, task.groups, task.config.optim)
