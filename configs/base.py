"""Every field once, with its default; and how a data set's file becomes a finished config.

A data set's file sets the data, the ranks and what differs for that set; a method's file in
configs/methods sets the rest; the command line comes last:
`--config=configs/hci.py:method=coop,preset=vanilla,fold=3 --config.seed=1`.
"""

import difflib
import importlib
import inspect

from ml_collections import ConfigDict

from configs.pairs import PAIRS
from configs.texts import concept_file, read_concepts

WEIGHTS = {  # hub ids of the pretrained variants
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14-336": "openai/clip-vit-large-patch14-336",
    "tiny": "",  # exists only from scratch
}

TOWERS = ("ResNet-18", "ResNet-50", "VGG-16", "BiLSTM")  # instead of CLIP's image tower
# Parameters of the tower that sees the example
IMAGE = "(vision_model|visual_projection|resnet|vgg|sentence)/.*"


def start(name, argument, *, method, fold="", backbone="ViT-B/16"):
    """A base config for a data set, and the options that its method takes.

    Args:
      name: the data set.
      argument: what stands behind the colon on the command line: "key=value,key=value".
      method, fold, backbone: defaults of keys that every data set takes; image_weights is one more.

    Returns:
      (config, options): what is left of the argument goes to the method's `apply`.

    Raises:
      ValueError: an argument that is not key=value, or a method that does not go with the data set.
    """
    options = {"method": method, "fold": fold, "backbone": backbone, "image_weights": ""}
    for part in filter(None, argument.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"the config's argument is key=value,key=value; found {part!r}")
        options[key] = value
    c = base()
    c.name, c.method, c.fold = name, options.pop("method"), options.pop("fold")
    if c.method not in PAIRS[name]:
        raise ValueError(
            f"{name} has no method {c.method!r}. {did_you_mean(c.method, PAIRS[name])}"
        )
    backbone = options.pop("backbone")
    if backbone not in (*WEIGHTS, *TOWERS):
        raise ValueError(f"no backbone {backbone!r}. {did_you_mean(backbone, (*WEIGHTS, *TOWERS))}")
    if backbone in TOWERS:
        c.model.image_tower, c.model.image_weights = backbone, options.pop("image_weights")
        c.data.normalize = "imagenet"
    else:
        c.model.variant = backbone
        if options.pop("image_weights"):
            raise ValueError(
                f"image_weights are torchvision's, of {TOWERS}; CLIP's own are config.model.weights"
            )
    c.model.weights = WEIGHTS[c.model.variant]
    if concept_file(name):
        low, high, width = (
            float(read_concepts(concept_file(name))[key]) for key in ("low", "high", "step")
        )
        c.groups.low, c.groups.high = c.weights.low, c.weights.high = low, high + width
        c.weights.width = width or (high - low) / 100
    if c.model.variant.endswith("-336"):
        c.data.image_size, c.data.stored_size = 336, 384
    return c, options


def finish(config, options):
    """Applies the method with its options, then locks the config."""
    method = importlib.import_module(f"configs.methods.{config.method}")
    known = [p for p in inspect.signature(method.apply).parameters if p != "config"]
    for key in options:
        if key not in known:
            keys = ["method", "fold", "backbone", "image_weights", *known]
            raise ValueError(
                f"{config.method} on {config.name} takes no {key!r}. {did_you_mean(key, keys)}"
            )
    method.apply(config, **options)
    if config.prompt.name:
        config.metrics = (*config.metrics, "ordinality_score")
    elif config.model.image_tower:
        config.model.variant = config.model.weights = ""  # nothing of CLIP is used
    if config.model.image_tower and not config.model.image_weights:
        getattr(method, "from_scratch", from_scratch)(config)
    elif not config.model.weights:
        from_scratch(config)
    return apart(config).lock()


def apart(value):
    """A copy in which no two places hold one ConfigDict: a field that is set there would change
    elsewhere too."""
    if isinstance(value, ConfigDict):
        return ConfigDict(
            {key: apart(each) for key, each in value.items()}, type_safe=value.is_type_safe
        )
    return tuple(apart(each) for each in value) if isinstance(value, tuple) else value


def from_scratch(config):
    """Without pretrained weights there is nothing to keep: every parameter is trained, at a rate
    for random ones.

    Later stages keep what they freeze, which the first one has trained.
    """
    rate = {"lr": 1e-3, "weight_decay": 0.05}
    config.model.logit_scale = 10.0
    config.optim.update(
        {
            "name": "adamw",
            "schedule": "cosine",
            "warmup": "5 percent",
            "warmup_start": 0.0,
            "idle_steps": 0,
        }
    )
    kept = {"parameters": "(text_model|text_projection)/.*|logit_scale", "group": "frozen"}
    text = (
        [kept] if config.prompt.name and config.model.weights else []
    )  # another image tower beside CLIP's text side
    config.optim.groups = entries(*text, {"parameters": ".*", "group": "all"})
    config.optim.rates = ConfigDict({"all": rate}, type_safe=False)
    stages = []
    for k, old in enumerate(config.stages):
        fields = {
            entry.field: entry.value for entry in old.set if not entry.field.startswith("optim.")
        }
        groups = {entry.field: entry.value for entry in old.set}.get("optim.groups")
        if k and groups:
            trained = sorted({entry.group for entry in groups} - {"frozen"})
            fields |= {
                "optim.groups": groups,
                "optim.rates": ConfigDict(dict.fromkeys(trained, rate), type_safe=False),
            }
        stages.append(stage(old.name, fields))
    config.stages = tuple(stages)


def entries(*items):
    """A tuple of ConfigDicts, which catch typos inside it."""
    return tuple(ConfigDict(item, type_safe=False) for item in items)


def stage(name, fields):
    """One of config.stages: fields of the config, by their dotted names, that differ in it.

    `train.share` is its part of train.duration, `fresh` names the parameters that begin anew in it.
    """
    return ConfigDict(
        {"name": name, "set": entries(*({"field": k, "value": v} for k, v in fields.items()))},
        type_safe=False,
    )


def choose(title, value, table):
    """table[value], or a ValueError that names the choices."""
    if value not in table:
        raise ValueError(f"{title} is {value!r}. {did_you_mean(value, table)}")
    return table[value]


def did_you_mean(name, names):
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"Did you mean {near[0]!r}?" if near else f"It takes one of {sorted(names)}."


def base():
    """The complete config. Ordered things are tuples of ConfigDicts; names are strings; there is no
    None."""
    c = ConfigDict()
    c.name = ""  # the data set; its workdir is runs/<name>-<method>
    c.method = ""  # set by configs/methods/<method>.py
    c.preset = ""  # which reading of the method, where paper and public code differ
    c.seed = 0  # of everything: initial values, order, augmentation, splits and selections
    c.fold = ""  # "all", or one of data.folds; "" where the set has none

    d = c.data = ConfigDict()
    d.reader = ConfigDict(
        {"name": ""}, type_safe=False
    )  # "module.function" of jaxord.data, and its settings
    d.root = ""  # folder that holds the lists and the images
    d.table = ""  # list file under root, for readers that take one
    d.folds = ()  # names of the folds
    # Stored form: "square" (both sides = stored_size) or "shorter" (aspect kept, padded)
    d.resize = "square"
    d.stored_size = 256  # pixels; every tier stores this uint8 image, the crop is taken from it
    d.image_size = 224  # pixels; what the model sees
    d.train_crop = ConfigDict(
        {"name": "random_crop"}, type_safe=False
    )  # function of jaxord.data.augment
    d.eval_crop = ConfigDict({"name": "center_crop"}, type_safe=False)
    d.flip = True  # random horizontal flip in training
    d.jitter = ConfigDict(
        {"probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    )  # of colours
    d.grey = 0.0  # probability of turning a training image grey
    # Rows an image has in a training batch, each augmented apart: 2 for losses between two
    # augmentations
    d.copies = 1
    d.bucket = (
        0  # sentences: sort by length within windows of that many batches; 0 leaves the order
    )
    # Models are trained on label / target_scale; predictions and metrics are on the label's scale
    d.target_scale = 1.0
    d.normalize = (
        "clip"  # "clip", "imagenet" or "half": mean and standard deviation of the channels
    )
    # "resident" (device memory), "cached" (host memory), "stream" (decoded by workers), "auto": by
    # size
    d.tier = "auto"
    d.cache = ""  # folder of the decoded images of the cached tier; "" keeps them in memory
    d.workers = 4  # decoding threads
    # An image that cannot be decoded: "raise", or "skip": batches are filled from the others
    d.broken = "raise"
    d.broken_share = (
        0.05  # of "skip": the largest share of a split's images that may be broken; more raise
    )
    d.corruption = ConfigDict(
        {"name": "", "severity": 0}
    )  # of the test images, see jaxord.data.corrupt
    d.shots = 0  # few-shot: images kept per label in training; 0 keeps all
    d.shift = ConfigDict(
        {"labels": 0, "keep": 1.0, "choice": "top"}
    )  # distribution shift: that many labels keep that share
    d.batch = 32  # images of a training step, over all devices
    d.eval_batch = 64  # images of an evaluation step, over all devices

    r = c.ranks = ConfigDict()
    r.labels = ()  # label that stands for each rank; () derives them from the training targets
    r.edges = ()  # left edges of bins; () gives a target the nearest value's rank
    r.last = 0.0  # with edges: the last label of the top bin, inclusive
    r.step = 1.0  # with edges: distance of neighbouring labels; 0 where labels are real numbers
    # Derived ranks: number of equal bins, where there are too many distinct labels to be ranks
    # themselves
    r.bins = 10
    r.anchor = "centre"  # with edges: value of a bin is its "centre" or its "left_edge"
    r.names = ()  # text of each rank; () writes the value

    g = c.groups = ConfigDict()  # of labels, for methods that contrast or regress by group
    g.count = 0  # 0: none
    g.mapping = "range"  # equal parts of low..high; "divide": floor(label / count)
    g.low, g.high = 0.0, 0.0  # high is exclusive; equal: the training range
    c.references = ConfigDict(
        {"index": "", "count": 101}
    )  # reference points: "", "unique", "round", "interpolate"
    w = c.weights = ConfigDict()  # of training samples, by the frequency of their labels
    w.scheme = ""  # "": none; "inverse", "sqrt_inverse"
    w.lds = ""  # smooth the frequencies first: "gaussian", "triang", "laplace"
    w.kernel, w.sigma = 5, 2.0
    w.within_groups = False  # frequencies of each group on their own
    w.least, w.most = 5.0, 1000.0  # of scheme "inverse": counts are clipped to these
    w.low, w.high, w.width = (
        0.0,
        0.0,
        1.0,
    )  # bins; labels beyond are counted at the ends; equal: the training range
    c.mixture = 0  # components of a Gaussian mixture fitted to the training labels; 0: none

    m = c.model = ConfigDict()
    m.image_tower = ""  # "" is CLIP's own; "ResNet-18", "ResNet-50", "VGG-16", "BiLSTM"
    # Safetensors file with torchvision's names for another image tower; "" starts it from scratch
    m.image_weights = ""
    m.sentence = ConfigDict({"hidden": 1500, "layers": 2, "dropout": 0.2})  # of the BiLSTM
    m.vector_size = 300  # of the BiLSTM's word vectors; those of a file have their own
    # Of the BiLSTM: GloVe text file, a word and its vector a line; "" learns the vectors from
    # scratch
    m.vectors = ""
    m.variant = "ViT-B/16"  # a name in jaxord.models.variants
    # Folder or hub id (<id>@<commit> pins it) of a Hugging Face CLIP checkpoint; "" starts from
    # scratch
    m.weights = ""
    m.pretrained = False  # the method is meaningless without pretrained weights
    m.dtype = "auto"  # of activations: "float32", "bfloat16"; "auto" is bfloat16 on an accelerator
    # "xla", "cudnn"; "auto" is the fastest of them on this accelerator at the run's shapes
    m.attention = "auto"
    # Recompute each transformer block in the backward pass: less memory, a third more time
    m.remat = False
    # Parameters of at least that many elements, and their optimizer state, are split over the
    # devices; 0: none
    m.fsdp = 0
    # Folder of a frozen image tower's features, of the evaluation's crop, not augmented; "": no
    # such cache
    m.features = ""
    # exp(logit_scale) at the start of a model from scratch; pretrained weights bring theirs
    m.logit_scale = 100.0

    p = c.prompt = ConfigDict()
    p.name = ""  # module of jaxord.models.prompts; "" builds no text tower
    p.template = ""  # words around the rank, "{}" stands for it: "a photo of a {} year old person"
    # > 0: that many vectors drawn from N(0, 0.02^2) are the context; 0: the template's words are
    p.context_tokens = 0
    p.context_position = (
        "tail"  # with context_tokens: where the rank stands among them: "tail", "middle", "front"
    )
    p.rank_tokens = (
        0  # > 0: that many vectors a rank drawn from N(0, 0.02^2); 0: the words of the names
    )
    p.base_names = ()  # OrdinalCLIP: texts that the base ranks start from; () draws them
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
    # Ordered dict(parameters=<regular expression>, group=<name>); the first full match wins
    o.groups = ()
    o.rates = ConfigDict(
        type_safe=False
    )  # group -> dict(lr=..., weight_decay=...); the group "frozen" needs none

    t = c.train = ConfigDict()
    t.duration = "100 epochs"  # or "5000 steps"
    t.evaluate_every = "1 epochs"  # on the validation split, where there is one
    # Further splits whose metrics are logged then, such as ("train",); they select nothing
    t.curves = ()
    t.checkpoint_every = "1 epochs"
    t.log_every = "20 steps"
    t.share = 1.0  # of the duration: what a stage takes of it
    # Updates of one call of the compiled step; 0: 20 with resident images or cached features, else
    # 1
    t.steps_per_call = 0
    # All folds in one program (jaxord.population); their inputs are cached features, or other
    # arrays
    t.together = False
    # Steps in a row whose loss or gradient is not finite; none is applied, and that many stop the
    # run
    t.skips = 10
    t.statistics = (
        "update"  # running statistics and dropout; "keep": all modules behave as in evaluation
    )

    # Trained one after the other, each a folder of the run: dict(name=..., set=fields); see `stage`
    c.stages = ()
    # Of a stage: regular expression of parameters that begin anew instead of going on from the
    # stage before
    c.fresh = ""

    # "val": the best on the validation split; "last"; "test": for comparison with figures that did
    c.select = "val"
    c.select_metric = "mae"
    c.rules = ()  # functions of jaxord.inference; all are reported, the first is the headline
    c.shots = ConfigDict(
        {"kind": "", "many": 100, "few": 20, "width": 1.0, "low": 0.0}
    )  # metrics by frequency of the label
    c.metrics = ("mae", "accuracy", "srcc", "pcc")  # functions of jaxord.metrics
    c.summary = "mean"  # over the folds: "mean" with its standard deviation, or "median"
    c.paper = ""  # the published row for this data set and method
    return c
