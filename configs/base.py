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
    config.optim.rates = entry(all=rate)
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


def entry(**fields):
    """A part of the config that an override may give values of other types."""
    return ConfigDict(fields, type_safe=False)


def entries(*items):
    """A tuple of `entry`, which catch typos inside it."""
    return tuple(entry(**item) for item in items)


def stage(name, fields):
    """One of config.stages: fields of the config, by their dotted names, that differ in it.

    `train.share` is its part of train.duration, `fresh` names the parameters that begin anew in it.
    """
    return entry(name=name, set=entries(*({"field": k, "value": v} for k, v in fields.items())))


def choose(title, value, table):
    """table[value], or a ValueError that names the choices."""
    if value not in table:
        raise ValueError(f"{title} is {value!r}. {did_you_mean(value, table)}")
    return table[value]


def did_you_mean(name, names):
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"Did you mean {near[0]!r}?" if near else f"It takes one of {sorted(names)}."


def base():
    """Every field with its default. Ordered things are tuples of ConfigDicts; None is not used."""
    c = ConfigDict()
    c.name = ""  # the data set; its workdir is runs/<name>-<method>
    c.method = ""  # set by configs/methods/<method>.py
    c.preset = ""  # the reading of the method, where paper and public code differ
    c.seed = 0  # of initial values, order, augmentation, splits and selections
    c.fold = ""  # "all", or one of data.folds; "" if the set has none

    d = c.data = ConfigDict()
    # A reader, "module.function" of jaxord.data.readers, with its settings.
    d.reader = entry(name="")
    d.root = ""  # folder of the lists and images
    d.table = ""  # list file under root, for readers that take one
    d.folds = ()  # names of the folds
    d.resize = "square"  # stored form: "square", or "shorter" (aspect kept, padded)
    d.stored_size = 256  # pixels of the stored uint8 image, from which crops are taken
    d.image_size = 224  # pixels that the model sees
    # Crops are functions of jaxord.data.augment.
    d.train_crop = entry(name="random_crop")
    d.eval_crop = entry(name="center_crop")
    d.flip = True  # random horizontal flip in training
    jitter = {"probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    d.jitter = ConfigDict(jitter)  # random colours in training
    d.grey = 0.0  # probability of a grey training image
    d.copies = 1  # rows of an image in a training batch, each augmented on its own
    d.bucket = 0  # sentences: batches within which examples are sorted by length; 0: none
    d.target_scale = 1.0  # training sees label / target_scale; metrics see the label
    d.normalize = "clip"  # mean and deviation of the channels: "clip", "imagenet", "half"
    # Home of decoded images: "resident" (device), "cached" (host), "stream" (nowhere), "auto".
    d.tier = "auto"
    d.cache = ""  # folder of the cached tier; "" keeps images in memory
    d.workers = 4  # decoding threads
    d.broken = "raise"  # unreadable image: "raise", or "skip": others fill its place
    d.broken_share = 0.05  # of "skip": the largest share of a split that may be broken
    d.corruption = ConfigDict({"name": "", "severity": 0})  # of test images: jaxord.data.corrupt
    d.shots = 0  # few-shot: training images kept per label; 0 keeps all
    # Distribution shift: so many labels keep that share of their training images.
    d.shift = ConfigDict({"labels": 0, "keep": 1.0, "choice": "top"})
    d.batch = 32  # images of a training step, over all devices
    d.eval_batch = 64  # images of an evaluation step, over all devices

    r = c.ranks = ConfigDict()
    r.labels = ()  # label of each rank; () derives them from the training labels
    r.edges = ()  # left edges of bins; () assigns the nearest label's rank
    r.last = 0.0  # with edges: the last label of the top bin, inclusive
    r.step = 1.0  # with edges: distance of neighbouring labels; 0 for real numbers
    r.bins = 10  # derived ranks: equal bins, if there are too many distinct labels
    r.anchor = "centre"  # with edges: value of a bin, its "centre" or its "left_edge"
    r.names = ()  # text of each rank; () writes its value

    g = c.groups = ConfigDict()  # of labels, for methods that contrast or regress by group
    g.count = 0  # 0: none
    g.mapping = "range"  # equal parts of low..high; "divide": floor(label / count)
    g.low, g.high = 0.0, 0.0  # high is exclusive; equal values: the training range
    # Reference points: index "", "unique", "round" or "interpolate".
    c.references = ConfigDict({"index": "", "count": 101})
    w = c.weights = ConfigDict()  # of training samples, by the frequency of their labels
    w.scheme = ""  # "", "inverse", "sqrt_inverse"
    w.lds = ""  # kernel that smooths the frequencies: "", "gaussian", "triang", "laplace"
    w.kernel, w.sigma = 5, 2.0
    w.within_groups = False  # count frequencies within each group
    w.least, w.most = 5.0, 1000.0  # of "inverse": bounds of the counts
    # Bins; the outer ones also count labels beyond; equal values: the training range.
    w.low, w.high, w.width = 0.0, 0.0, 1.0
    c.mixture = 0  # components of a Gaussian mixture of the training labels; 0: none

    m = c.model = ConfigDict()
    m.image_tower = ""  # "" is CLIP's; "ResNet-18", "ResNet-50", "VGG-16", "BiLSTM"
    m.image_weights = ""  # torchvision's weights as safetensors; "" starts from scratch
    m.sentence = ConfigDict({"hidden": 1500, "layers": 2, "dropout": 0.2})  # of the BiLSTM
    m.vector_size = 300  # of learned word vectors
    m.vectors = ""  # GloVe text file of word vectors; "" learns them
    m.variant = "ViT-B/16"  # a name of jaxord.models.variants
    m.weights = ""  # folder or hub id (<id>@<commit>) of a CLIP checkpoint; "": from scratch
    m.pretrained = False  # the method needs pretrained weights
    m.dtype = "auto"  # of activations: "float32", "bfloat16"; "auto": bfloat16 on accelerators
    m.attention = "auto"  # "xla", "cudnn"; "auto": the faster at the run's shapes
    m.remat = False  # recompute blocks in the backward pass: less memory, a third more time
    m.fsdp = 0  # split parameters of at least so many elements over the devices; 0: none
    m.features = ""  # folder for the features of a frozen image tower; "": no such cache
    m.logit_scale = 100.0  # exp(logit_scale) at the start of a model from scratch

    p = c.prompt = ConfigDict()
    p.name = ""  # module of jaxord.models.prompts; "" builds no text tower
    p.template = ""  # words around the rank "{}": "a photo of a {} year old person"
    p.context_tokens = 0  # context vectors drawn from N(0, 0.02^2); 0: the template's words
    p.context_position = "tail"  # of the rank among them: "tail", "middle", "front"
    p.rank_tokens = 0  # vectors per rank drawn from N(0, 0.02^2); 0: the words of the names
    p.base_names = ()  # OrdinalCLIP: texts that the base ranks start from; () draws them
    p.settings = ConfigDict(type_safe=False)  # of the module

    c.heads = ()  # modules of jaxord.models.heads, in order: dict(name=..., settings)
    c.losses = ()  # functions of jaxord.losses: dict(name=..., weight=..., settings)

    o = c.optim = ConfigDict()
    o.name = "adam"  # "adam", "sgd": L2 in the gradient, as in torch; "adamw", "radam": decoupled
    o.b1, o.b2, o.eps = 0.9, 0.999, 1e-8
    o.momentum = 0.9  # of sgd
    o.idle_steps = 0  # first steps without a change (OrdinalCLIP's RAdam has 5)
    o.schedule = "constant"  # "constant", "cosine", "multi_step"
    o.warmup = "0 steps"  # first steps, at a factor below 1
    o.warmup_start = 0.0  # factor at step 0
    o.warmup_shape = "linear"  # from warmup_start to 1, or "constant" at warmup_start
    o.milestones = ()  # of multi_step: durations after which the rate falls by gamma
    o.gamma = 0.1
    o.final = 0.0  # of cosine: factor at the end
    o.clip = 0.0  # largest global gradient norm; 0: none
    o.groups = ()  # dict(parameters=<regular expression>, group=<name>): first full match wins
    o.rates = ConfigDict(type_safe=False)  # group -> dict(lr=..., weight_decay=...), if trained

    t = c.train = ConfigDict()
    t.duration = "100 epochs"  # or "5000 steps"
    t.evaluate_every = "1 epochs"  # on the validation split, if there is one
    t.curves = ()  # further splits to log then, such as ("train",); they select nothing
    t.checkpoint_every = "1 epochs"
    t.log_every = "20 steps"
    t.share = 1.0  # part of the duration that a stage takes
    t.steps_per_call = 0  # updates per compiled call; 0: 20 with inputs on the device, else 1
    t.together = False  # all folds in one program; needs model.features or plain arrays
    t.skips = 10  # steps in a row without finite numbers that end the run; none is applied
    t.statistics = "update"  # "keep": running statistics and dropout as in evaluation

    c.stages = ()  # trained in order, each in its folder: see `stage`
    c.fresh = ""  # of a stage: pattern of parameters that start anew
    c.select = "val"  # the checkpoint: best on "val"; "last"; "test", to compare with those that do
    c.select_metric = "mae"
    c.rules = ()  # functions of jaxord.inference; all are reported, the first is the headline
    # Metrics by frequency of the label.
    c.shots = ConfigDict({"kind": "", "many": 100, "few": 20, "width": 1.0, "low": 0.0})
    c.metrics = ("mae", "accuracy", "srcc", "pcc")  # functions of jaxord.metrics
    c.summary = "mean"  # over folds: "mean" with standard deviation, or "median"
    c.paper = ""  # the published row of this data set and method
    return c
