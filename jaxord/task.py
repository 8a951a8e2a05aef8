"""A Task: data, ranks, model, constants and initial parameters of one fold of a config."""

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
from jaxord.runtime import attention, devices, hosts, rounding
from jaxord.targets import labels, ranks
from jaxord.weights import hf_clip, hub, initial
from jaxord.workdir import layout

TEXT_SIDE = ("prompt", "text_model", "text_projection")  # parameters that text_embeds depend on
STORED = ("stored", "size")  # images and their true sizes


@dataclasses.dataclass(frozen=True)
class Task:
    """One fold of one config, ready to train or to evaluate.

    `labels` has the replicated columns [N] that jaxord.targets.labels makes of the targets, and
    with several labels an image "annotations": the same [N, A] of the training split.
    """

    config: object
    splits: dict  # split name -> jaxord.data.storage.Split
    labels: dict  # split name -> {name: [N]}
    ranks: ranks.Ranks | None  # None if a target is two angles
    model: ordinal.OrdinalModel
    constants: dict  # name -> replicated array; text_embeds if all they depend on is frozen
    trained: dict  # initial parameters, flat, on the host, as `frozen` and `stats`
    frozen: dict
    stats: dict  # running statistics
    groups: dict  # path -> parameter group
    mesh: jax.sharding.Mesh
    weights: dict = dataclasses.field(default_factory=dict)  # hub.facts of model.weights
    rounded: frozenset = frozenset()  # frozen paths that are only rounded to the activations' dtype

    def held(self, frozen):
        """Frozen parameters as the devices hold them, rounded if nothing reads more of them."""
        dtype = self.model.dtype
        return {path: x.astype(dtype) if path in self.rounded else x for path, x in frozen.items()}

    def write_facts(self, folder):
        """Writes what the sizes of the model follow from, and the tokenizer of pretrained weights.

        See layout.write_facts.
        """
        parameters, targets = {**self.trained, **self.frozen}, self.splits["train"].records.targets
        settings = self.model.settings
        layout.write_facts(folder, parameters, self.ranks, self.constants, targets, settings)
        if self.config.model.weights and self.config.prompt.name:
            copy_tokenizer = hosts.first(hub.copy_tokenizer)
            copy_tokenizer(self.config.model.weights, folder / "tokenizer")

    def prepare(self, train):
        """(stored batch, labels, constants) -> batch with image, target and rank; for jit."""
        images = functools.partial(augment.transform, data=self.config.data, train=train)

        def prepared(batch, labels, constants):
            index, epoch, seed = batch["index"], batch["epoch"], constants["seed"]
            if "slot" in labels:  # the images are on the device
                slot = labels["slot"][index]
                stored = {name: labels[name].at[slot].get(mode="clip") for name in STORED}
                batch = {**batch, **stored}
            arrays = {k: x for k, x in batch.items() if k not in (*STORED, "frames", "epoch")}
            for stored in {"stored", "frames"} & set(batch):
                arrays["image"] = images(batch[stored], batch["size"], index, epoch, seed=seed)
            row = index
            if "annotations" in labels:
                row = index, augment.choice(labels["annotations"][index], index, epoch, seed)
            others = (*STORED, "slot", "annotations")
            arrays |= {name: column[row] for name, column in labels.items() if name not in others}
            return {**arrays, "epoch": epoch} if train else arrays

        return prepared


def make_task(config, fold, start=None, facts=None):
    """Reads the data, builds the model, loads or draws its parameters; ValueError for all mistakes.

    Args:
      config, fold: of one stage; fold "" without folds.
      start: selected variables of the stage before, {"params": flat, "stats": flat}; all
        parameters but those of config.fresh come from it.
      facts: (ranks, constants, targets) of the training of a run that is evaluated again; without
        them they follow from the data.
    """
    mesh = devices.data_mesh()
    devices.check_divides(config.data.batch * config.data.copies, mesh, "data.batch")
    devices.check_divides(config.data.eval_batch, mesh, "data.eval_batch")
    if config.data.corruption.name:
        corrupt.check(config.data.corruption.name, config.data.corruption.severity)
    named = facts[0] if facts else config.ranks
    records = readers.load(config.data, fold, config.seed, named)
    train = records["train"]
    settings = clip_settings(config) if config.prompt.name or not config.model.image_tower else None
    task_ranks, constants, targets = facts or (ranks_of(config, train), None, train.targets)
    task_labels = labels.build(config, targets, task_ranks)
    constants = task_labels.constants if facts is None else constants
    prompt = prompt_constants(config, settings, task_ranks.names) if config.prompt.name else {}
    vectors = initial.word_vectors(config, train.vocabulary)
    model = build_model(config, settings, train, prompt, vectors.shape, mesh)
    constants = {**constants, **prompt, "seed": np.uint32(config.seed % 2**32)}
    variables = initial.variables(config, model, constants, train, vectors, start)
    trained, frozen, groups = optim.split(variables["params"], config.optim)
    if start is None:
        initial.check_scratch(config, groups)

    replicated, by_row = devices.replicated(mesh), devices.split(mesh)
    make_split = storage.decode_split
    if config.model.features:
        make_split = features.make_split(config, model, variables, trained, replicated)
    place = functools.partial(devices.put, sharding=by_row)
    splits = {name: make_split(r, data_of(config, name), place) for name, r in records.items()}
    columns = {name: task_labels.columns(s.records.targets) for name, s in splits.items()}
    if splits["train"].records.annotations is not None:
        columns["annotations"] = annotated(task_labels, splits["train"].records.annotations)
    constants, columns = devices.put((constants, columns), replicated)
    # A frozen text side is computed once, here.
    if prompt and not any(path.split("/")[0] in TEXT_SIDE for path in trained):
        constants["text_embeds"] = text_embeds(model, devices.put(frozen, replicated), constants)
    parameters = trained, frozen, variables["stats"], groups
    weights = hub.facts(config.model.weights) if config.model.weights else {}
    task = Task(config, splits, columns, task_ranks, model, constants, *parameters, mesh, weights)
    gallery_size = len(splits["train"].records if facts is None else targets)
    return dataclasses.replace(task, rounded=trace_once(task, gallery_size))


def ranks_of(config, train):
    """Ranks of the training records; None if a target is two angles."""
    angles = train.targets.ndim > 1
    return None if angles else ranks.build(config.ranks, train.targets, rank_names(train))


def build_model(config, settings, train, prompt, vectors, mesh):
    """The model for these training records, prompt constants and shape of the word vectors."""
    dtype = activations(config)
    images = config.data.batch * config.data.copies * views(config, train) // mesh.size
    implementations = attentions(config, settings, dtype, images, prompt.get("prompt_tokens"))
    slots = prompt.get("prompt_slots")
    return ordinal.build(config, settings, dtype, slots, vectors, implementations)


def data_of(config, split):
    """config.data as a split sees it: only test images are corrupted."""
    data = copy.deepcopy(config.data)
    if split != "test":
        with data.unlocked():
            data.corruption.name = ""
    return data


def annotated(task_labels, annotations):
    """Columns [N, A] of labels f32[N, A], filled up with nan; `annotations` i32[N] counts them."""
    valid = ~np.isnan(annotations)
    filled = np.where(valid, annotations, annotations[:, :1])
    columns = task_labels.columns(filled.reshape(-1)).items()
    columns = {name: column.reshape(filled.shape) for name, column in columns}
    return {**columns, "annotations": valid.sum(1).astype(np.int32)}


def trace_once(task, gallery_size):
    """Traces a batch through crops, model, losses and rules, so that misfits fail at once.

    Returns Task.rounded. `gallery_size` is the number of samples that neighbours are searched in.
    """
    stored = next(eval_batches(task.splits["train"], batch=task.config.data.eval_batch))
    stored.pop("valid")
    total_loss = step.objective(task.config)
    for name in task.config.metrics:
        lookup(metrics, name)

    def forward(train, variables, stored, labels, constants):
        arrays = {**constants, **task.prepare(train)(stored, labels, constants)}
        rngs, mutable = {"dropout": jax.random.key(0)}, ["stats"] if train else []
        outputs, _ = task.model.apply(trees.nested(variables), arrays, rngs=rngs, mutable=mutable)
        return {**arrays, **outputs}

    # Rules that search no neighbours ignore the gallery.
    def rule_value(rule, renames, arrays):
        width = arrays[gallery_of(renames)].shape[1]
        gallery = {
            "gallery_embeds": jnp.zeros((gallery_size, width)),
            "gallery_targets": jnp.zeros((gallery_size, *arrays["target"].shape[1:])),
        }
        return bind(rule, {**arrays, **gallery}, renames)

    def everything(*inputs):
        arrays = forward(False, *inputs)
        values = [rule_value(*rule, arrays) for rule in configured_rules(task.config).values()]
        return total_loss(forward(True, *inputs)), values

    variables = {"params": {**task.trained, **task.frozen}, "stats": task.stats}
    inputs = variables, stored, task.labels["train"], task.constants
    if task.model.dtype == jnp.float32:
        jax.eval_shape(everything, *inputs)
        return frozenset()
    rounded = rounding.only_rounded(everything, task.model.dtype, *inputs)[0]["params"]
    return frozenset(path for path in task.frozen if rounded[path])


def gallery_of(renames):
    """Name of the output that a rule with a gallery compares."""
    return renames.get("image_embeds", "image_embeds")


def configured_rules(config):
    """{name: (inference rule, renamed arrays)} in the config's order."""
    if not config.rules:
        words = "it names functions of jaxord.inference, the first is the headline"
        raise ValueError(f"rules is empty; {words}")
    rules = [(rule["name"], configured(inference, rule), rule) for rule in config.rules]
    return {name: (function, rule.get("arrays") or {}) for name, function, rule in rules}


def activations(config):
    """The dtype of activations; "auto" takes bfloat16 on an accelerator."""
    name = config.model.dtype
    if name == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"model.dtype is {name!r}; it takes 'float32', 'bfloat16' or 'auto'")
    return jnp.dtype(name)


def views(config, records):
    """How many images the tower sees of a training example: crops, times a video's frames."""
    if records.read is None and "frames" not in records.inputs:
        return 1
    data, frames = config.data, ()
    if "frames" in records.inputs:
        frames = records.inputs["frames"].shape[1:2]
    stored = jax.ShapeDtypeStruct((1, *frames, data.stored_size, data.stored_size, 3), jnp.uint8)
    size, row = jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    augmented = functools.partial(augment.transform, data=data, train=True)
    return jax.eval_shape(augmented, stored, size, row, row).shape[1]


def attentions(config, settings, dtype, images, tokens, gradient=True):
    """Implementations of attention in (image tower, text tower), see jaxord.runtime.attention.

    `images` is their number on one device, `tokens` [K, T] are those of the rank sentences or None;
    a model that only predicts needs no `gradient`.
    """

    def choose(rows, positions, tower, causal):
        shape = rows, positions, tower.heads, tower.width // tower.heads
        return attention.choose(config.model.attention, shape, dtype, causal, gradient)

    image = text = "xla"
    if not config.model.image_tower:
        patches = (settings.image_size // settings.patch_size) ** 2
        image = choose(images, 1 + patches, settings.vision, causal=False)
    if tokens is not None:
        text = choose(*tokens.shape, settings.text, causal=True)
    return image, text


def rank_names(records):
    """Names of the labels in ascending order if the data names them, as folders do; else ()."""
    if "rank_name" not in records.columns:
        return ()
    names = dict(zip(records.targets.tolist(), records.columns["rank_name"].tolist(), strict=True))
    return tuple(names[target] for target in sorted(names))


def clip_settings(config):
    """Sizes of CLIP's towers: the variant's, which pretrained weights must have too, or theirs."""
    source, variant = config.model.weights, config.model.variant
    if variant and variant not in variants.VARIANTS:
        known = f"it takes one of {sorted(variants.VARIANTS)}, or '' for that of the weights"
        raise ValueError(f"model.variant is {variant!r}; {known}")
    if not source and (config.model.pretrained or not variant):
        raise ValueError(
            f"{config.method} needs pretrained CLIP weights, and model.weights is empty. Give a "
            "folder or a hub id of a Hugging Face CLIP checkpoint (config.json, model.safetensors, "
            "tokenizer files): --config.model.weights=openai/clip-vit-base-patch16"
        )
    if not source:
        return dataclasses.replace(variants.VARIANTS[variant], image_size=config.data.image_size)
    settings = hf_clip.read_settings(source)
    if variant:
        hf_clip.check_architecture(settings, variants.VARIANTS[variant])
    # Images of another normalisation would make every prediction worse without an error.
    expected, (mean, std) = hf_clip.preprocessing(source), augment.NORMALISATIONS["clip"]
    same = np.allclose((mean, std), (expected["mean"], expected["std"]), atol=1e-6)
    if config.data.normalize == "clip" and not same:
        raise ValueError(
            f"the weights in {source} want images normalised by mean {expected['mean']} and "
            f"standard deviation {expected['std']}, but data.normalize='clip' means {mean} and "
            f"{std}; choose one of {sorted(augment.NORMALISATIONS)}"
        )
    return dataclasses.replace(settings, image_size=config.data.image_size)


def prompt_constants(config, settings, names):
    """Tokens of the rank sentences; see models.tokens.sentences."""
    source = config.model.weights
    tokenizer = tokens.clip_tokenizer(hub.resolve(source)) if source else tokens.byte_tokenizer()
    if tokenizer.vocab_size > settings.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the text tower of variant "
            f"{config.model.variant!r} only {settings.vocab_size}; from scratch choose "
            "backbone=tiny"
        )
    return tokens.sentences(config.prompt, names, tokenizer, settings.max_positions)


@functools.partial(jax.jit, static_argnums=0)
def text_embeds(model, parameters, constants):
    """Features of the rank sentences f32[K, D] for flat parameters."""
    prompt = {name: array for name, array in constants.items() if name.startswith("prompt_")}
    return model.apply({"params": trees.unflatten(parameters)}, prompt, method="text")


def understood(task, train_targets):
    """Lines on the data as they were read: ranks, examples, what was passed over, strange labels.

    `train_targets` are the labels of the training, of a run that is evaluated on other data too.
    """
    records = {name: split.records for name, split in task.splits.items()}
    if not task.ranks:
        return list(records["train"].notes)
    ranks = task.ranks
    counts = np.bincount(ranks.index(records["train"].targets), minlength=len(ranks.names))
    head = f"{len(counts)} from {ranks.values[0]:g} to {ranks.values[-1]:g}"
    # Long scales are told by their ends.
    places = [*range(len(counts))] if len(counts) <= 12 else [*range(6), -2, -1]
    shown = [f"{ranks.names[place]} ({counts[place]:,})" for place in places]
    if len(counts) > len(places):
        shown.insert(6, "...")
    lines = [f"ranks  {head}: {', '.join(shown)}"]
    train = records["train"]
    for row in np.unique(np.linspace(0, len(train) - 1, 3).astype(int)):
        label, rank = train.targets[row], ranks.names[ranks.index(train.targets[row : row + 1])[0]]
        lines.append(f"       {train.paths[row]}: label {label:g}, rank {rank}")
    lines += train.notes
    seen = np.unique(ranks.index(train_targets))
    for name in sorted(records.keys() - {"train"}):
        targets = records[name].targets
        beyond = ranks.beyond(targets)
        unseen = beyond | ~np.isin(ranks.index(targets), seen)
        if unseen.any():
            labels = [f"{label:g}" for label in np.unique(targets[unseen])]
            more = ", ..." if len(labels) > 6 else ""
            rows = f"{unseen.sum():,} rows of {name} have labels that training never saw"
            errors = "; those beyond the ranks count as errors" if beyond.any() else ""
            lines.append(f"{rows}: {', '.join(labels[:6])}{more}{errors}")
    return lines


def overview(task):
    """Lines for the log: data, ranks, devices, parameter groups."""
    sizes = [(name, len(split.records), split.tier) for name, split in task.splits.items()]
    lines = [f"{name:<6} {size:>7,} examples, {tier}" for name, size, tier in sizes]
    lines += understood(task, task.splits["train"].records.targets)
    if task.weights:
        lines.append(hub.describe(task.config.model.weights))
    device = f"device {task.mesh.size} x {jax.devices()[0].device_kind}"
    device += f", activations {task.model.dtype}"
    if not task.config.model.image_tower:
        device += f", attention {task.model.tower[1].keywords['attention']}"
    lines.append(device)
    return lines + optim.describe({**task.trained, **task.frozen}, task.groups, task.config.optim)
