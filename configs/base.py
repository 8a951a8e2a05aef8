"""Every field once, with its default; and how a data set's file becomes a finished config.

A data set's file sets the data, the ranks and what differs for that set; a method's file in configs/methods sets the rest;
the command line comes last: `--config=configs/hci.py:method=coop,preset=vanilla,fold=3 --config.seed=1`.
"""

import difflib
import importlib
import inspect

from ml_collections import ConfigDict

from configs.pairs import PAIRS

WEIGHTS = {  # hub ids of the pretrained variants
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14-336": "openai/clip-vit-large-patch14-336",
    "tiny": "",  # exists only from scratch
}


def start(name, argument, *, method, fold="", backbone="ViT-B/16"):
    """A base config for a data set, and the options that its method takes.

    Args:
      name: the data set.
      argument: what stands behind the colon on the command line: "key=value,key=value".
      method, fold, backbone: defaults of the keys that every data set takes.

    Returns:
      (config, options): what is left of the argument goes to the method's `apply`.

    Raises:
      ValueError: an argument that is not key=value, or a method that does not go with the data set.
    """
    options = {"method": method, "fold": fold, "backbone": backbone}
    for part in filter(None, argument.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"the config's argument is key=value,key=value; found {part!r}")
        options[key] = value
    c = base()
    c.name, c.method, c.fold = name, options.pop("method"), options.pop("fold")
    if c.method not in PAIRS[name]:
        raise ValueError(f"{name} has no method {c.method!r}. {did_you_mean(c.method, PAIRS[name])}")
    c.model.variant = options.pop("backbone")
    if c.model.variant not in WEIGHTS:
        raise ValueError(f"no backbone {c.model.variant!r}. {did_you_mean(c.model.variant, WEIGHTS)}")
    c.model.weights = WEIGHTS[c.model.variant]
    if c.model.variant.endswith("-336"):
        c.data.image_size, c.data.stored_size = 336, 384
    return c, options


def finish(config, options):
    """Applies the method with its options, then locks the config."""
    method = importlib.import_module(f"configs.methods.{config.method}")
    known = [p for p in inspect.signature(method.apply).parameters if p != "config"]
    for key in options:
        if key not in known:
            keys = ["method", "fold", "backbone", *known]
            raise ValueError(f"{config.method} on {config.name} takes no {key!r}. {did_you_mean(key, keys)}")
    method.apply(config, **options)
    if not config.model.weights:
        from_scratch(config)
    return config.lock()


def from_scratch(config):
    """Without pretrained weights there is nothing to keep: every parameter is trained, at a rate for random ones."""
    config.model.logit_scale = 10.0
    config.optim.update({"name": "adamw", "schedule": "cosine", "warmup": "5 percent", "warmup_start": 0.0, "idle_steps": 0})
    config.optim.groups = entries({"parameters": ".*", "group": "all"})
    config.optim.rates = ConfigDict({"all": {"lr": 1e-3, "weight_decay": 0.05}}, type_safe=False)


def entries(*items):
    """A tuple of ConfigDicts, which catch typos inside it."""
    return tuple(ConfigDict(item, type_safe=False) for item in items)


def choose(title, value, table):
    """table[value], or a ValueError that names the choices."""
    if value not in table:
        raise ValueError(f"{title} is {value!r}. {did_you_mean(value, table)}")
    return table[value]


def did_you_mean(name, names):
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"Did you mean {near[0]!r}?" if near else f"It takes one of {sorted(names)}."


def base():
    """The complete config. Ordered things are tuples of ConfigDicts; names are strings; there is no None."""
    c = ConfigDict()
    c.name = ""  # the data set; its workdir is runs/<name>-<method>
    c.method = ""  # set by configs/methods/<method>.py
    c.preset = ""  # which reading of the method, where paper and public code differ
    c.seed = 0  # of everything: initial values, order, augmentation, splits and selections
    c.fold = ""  # "all", or one of data.folds; "" where the set has none

    d = c.data = ConfigDict()
    d.reader = ConfigDict({"name": ""}, type_safe=False)  # "module.function" of jaxord.data, and its settings
    d.root = ""  # folder that holds the lists and the images
    d.table = ""  # list file under root, for readers that take one
    d.folds = ()  # names of the folds
    d.resize = "square"  # stored form: "square" (both sides = stored_size) or "shorter" (aspect kept, padded)
    d.stored_size = 256  # pixels; every tier stores this uint8 image, the crop is taken from it
    d.image_size = 224  # pixels; what the model sees
    d.train_crop = ConfigDict({"name": "random_crop"}, type_safe=False)  # function of jaxord.data.augment
    d.eval_crop = ConfigDict({"name": "center_crop"}, type_safe=False)
    d.flip = True  # random horizontal flip in training
    d.normalize = "clip"  # "clip", "imagenet" or "half": mean and standard deviation of the channels
    d.tier = "auto"  # "resident" (device memory), "cached" (host memory), "stream" (decoded by workers), "auto": by size
    d.cache = ""  # folder of the decoded images of the cached tier; "" keeps them in memory
    d.workers = 4  # decoding threads
    d.broken = "raise"  # an image that cannot be decoded: "raise", or "skip" and count
    d.shots = 0  # few-shot: images kept per label in training; 0 keeps all
    d.shift = ConfigDict({"labels": 0, "keep": 1.0, "choice": "top"})  # distribution shift: that many labels keep that share
    d.batch = 32  # global batch of a training step
    d.eval_batch = 64  # global batch of an evaluation step

    r = c.ranks = ConfigDict()
    r.labels = ()  # label that stands for each rank; () derives them from the training targets
    r.edges = ()  # left edges of bins; () gives a target the nearest value's rank
    r.last = 0.0  # with edges: the last label of the top bin, inclusive
    r.step = 1.0  # with edges: distance of neighbouring labels; 0 where labels are real numbers
    r.bins = 10  # derived ranks: number of equal bins, where there are too many distinct labels to be ranks themselves
    r.anchor = "centre"  # with edges: value of a bin is its "centre" or its "left_edge"
    r.names = ()  # text of each rank; () writes the value

    m = c.model = ConfigDict()
    m.variant = "ViT-B/16"  # a name in jaxord.weights.variants
    m.weights = ""  # folder or hub id of a Hugging Face CLIP checkpoint; "" starts from scratch
    m.pretrained = False  # the method is meaningless without pretrained weights
    m.dtype = "auto"  # of activations: "float32", "bfloat16"; "auto" is bfloat16 on an accelerator
    m.remat = False  # recompute each transformer block in the backward pass: less memory, a third more time
    m.logit_scale = 100.0  # exp(logit_scale) at the start of a model from scratch; pretrained weights bring theirs

    p = c.prompt = ConfigDict()
    p.name = ""  # module of jaxord.models.prompts; "" builds no text tower
    p.template = ""  # words around the rank, "{}" stands for it: "a photo of a {} year old person"
    p.context_tokens = 0  # > 0: that many vectors drawn from N(0, 0.02^2) are the context; 0: the template's words are
    p.context_position = "tail"  # with context_tokens: where the rank stands among them: "tail", "middle", "front"
    p.rank_tokens = 0  # > 0: that many vectors a rank drawn from N(0, 0.02^2); 0: the words of the names
    p.settings = ConfigDict(type_safe=False)  # of the module

    c.heads = ()  # modules of jaxord.models.heads, in order: dict(name=..., settings)
    c.losses = ()  # functions of jaxord.losses: dict(name=..., weight=..., settings)

    o = c.optim = ConfigDict()
    o.name = "adam"  # "adam", "sgd": L2 in the gradient as in torch; "adamw", "radam": decoupled
    o.b1, o.b2, o.eps = 0.9, 0.999, 1e-8
    o.momentum = 0.9  # of sgd
    o.idle_steps = 0  # first steps that change nothing (OrdinalCLIP's RAdam has 5)
    o.schedule = "constant"  # "constant", "cosine", "multi_step"
    o.warmup = "0 steps"  # first steps, at a factor below 1
    o.warmup_start = 0.0  # factor at step 0
    o.warmup_shape = "linear"  # "linear" from warmup_start to 1, "constant" at warmup_start
    o.milestones = ()  # of multi_step: durations after which the rate falls by gamma
    o.gamma = 0.1
    o.final = 0.0  # of cosine: factor at the end
    o.clip = 0.0  # largest global gradient norm; 0 leaves it
    o.groups = ()  # ordered dict(parameters=<regular expression>, group=<name>); the first full match wins
    o.rates = ConfigDict(type_safe=False)  # group -> dict(lr=..., weight_decay=...); the group "frozen" needs none

    t = c.train = ConfigDict()
    t.duration = "100 epochs"  # or "5000 steps"
    t.evaluate_every = "1 epochs"  # on the validation split, where there is one
    t.checkpoint_every = "1 epochs"
    t.log_every = "20 steps"

    c.select = "val"  # "val": the best on the validation split; "last"; "test": for comparison with figures that did
    c.select_metric = "mae"
    c.rules = ()  # functions of jaxord.inference; all are reported, the first is the headline
    c.metrics = ("mae", "accuracy", "srcc", "pcc")  # functions of jaxord.metrics
    c.paper = ""  # the published row for this data set and method
    return c
