"""How methods without a recipe of their own are trained, and the families that share one."""

import statistics

from ml_collections import ConfigDict

from configs.base import IMAGE, entries, entry, stage
from configs.texts import AGE, VIDEO, kind


def rates(**groups):
    """config.optim.rates: rates(image=(1e-5, 0.01)) -> learning rate and weight decay of each
    group."""
    return ConfigDict(
        {name: {"lr": lr, "weight_decay": decay} for name, (lr, decay) in groups.items()},
        type_safe=False,
    )


def at_rate(part, **groups):
    """A stage with other rates of some of its groups; as it is where it has no rates of its own."""
    fields = {entry.field: entry.value for entry in part.set}
    if "optim.rates" in fields:
        fields["optim.rates"] = entry(**{**fields["optim.rates"], **rates(**groups)})
    return stage(part.name, fields)


def image_and_heads(config, image, heads):
    """Parameter groups: the image tower, and whatever heads there are; (learning rate, weight
    decay) of each."""
    config.optim.groups = entries(
        {"parameters": IMAGE, "group": "image"}, {"parameters": ".*", "group": "heads"}
    )
    config.optim.rates = rates(image=image, heads=heads)


def finetune(config):
    """A pretrained image tower at a small rate, new heads at a larger one (our choice)."""
    config.optim.update({"name": "adamw", "schedule": "cosine"})
    image_and_heads(config, (1e-5, 0.01), (1e-3, 0.01))
    config.train.duration = "100 epochs"


def batch(config, size):
    """Examples of a step; a video, which is eight images, keeps the batch of its set."""
    if kind(config.name) != VIDEO:
        config.data.batch = size


def own_crops(config):
    """Whether the data set, or the method before, has chosen crops that a recipe then leaves as
    they are."""
    return config.data.train_crop.to_dict() != {"name": "random_crop"}


def spread(config):
    """Standard deviation of the ranks' values, by which Regressor and Experts multiply what their
    weights give.

    A program without this factor takes the same steps at rate / spread (Adam) or rate / spread^2
    (SGD). 1 where the ranks come from the data.
    """
    values = config.ranks.labels or config.ranks.edges
    return statistics.pstdev(values) / config.data.target_scale if values else 1.0


def dir_program(config, lr=1e-3, images=256, epochs=90):
    """From scratch as the program of the imbalanced-regression benchmark (Yang et al., ICML 2021)
    trains its ResNet-50: Adam 1e-3, batch 256, 90 epochs, a tenth of the rate after 60 and 80,
    random crops out of 16 pixels of padding.

    Each of several stages takes these epochs, whose shares are then equal ones.
    """
    config.optim.update(
        {
            "name": "adam",
            "schedule": "multi_step",
            "milestones": ("60 epochs", "80 epochs"),
            "gamma": 0.1,
        }
    )
    paths = {"Regressor": "regressor/.*", "Experts": "experts/values/.*"}
    scaled = [
        {"parameters": paths[head.name], "group": "values"}
        for head in config.heads
        if head.name in paths
    ]
    config.optim.groups = entries(*scaled, {"parameters": ".*", "group": "all"})
    config.optim.rates = rates(
        all=(lr, 0.0), **({"values": (lr / spread(config), 0.0)} if scaled else {})
    )
    config.train.duration = f"{epochs * max(len(config.stages), 1)} epochs"
    batch(config, images)
    config.data.normalize = "half"
    if not own_crops(config):
        config.data.stored_size = config.data.image_size
        config.data.train_crop = entry(name="random_crop", padding=16)


def plain(config):
    """The loss of the benchmark's programs: L1 for ages, MSE for sentences."""
    return {"name": "mse" if config.name == "stsb" else "l1"}


def regression(config, *losses, heads=()):
    """A linear regressor under these losses, after these heads."""
    config.heads = entries(*heads, {"name": "Regressor"})
    config.losses = entries(*losses)
    config.rules = entries({"name": "value"})
    finetune(config)


def lds(config, kernel="gaussian", scheme=""):
    """Weights by smoothed frequencies, window 5 and 2: roots for ages, the frequencies themselves
    for sentences."""
    config.weights.update(
        {
            "scheme": scheme or ("inverse" if config.name == "stsb" else "sqrt_inverse"),
            "lds": kernel,
        }
    )


def retrain(config, share, fields, noise=False):
    """Two stages: all is trained; then the tower is kept, and a new regressor trained with what
    `fields` change."""
    own = ({"parameters": "noise_scale/.*", "group": "noise"},) if noise else ()
    config.stages = (
        stage("encoder", {"train.share": 1 - share}),
        stage(
            "regressor",
            {
                "train.share": share,
                "train.statistics": "keep",
                "fresh": "(regressor|noise_scale)/.*",
                **fields,
                "optim.groups": entries(
                    {"parameters": IMAGE, "group": "frozen"},
                    *own,
                    {"parameters": ".*", "group": "heads"},
                ),
                "optim.rates": rates(
                    heads=(1e-3, 0.0), **({"noise": (1e-2, 0.0)} if noise else {})
                ),
            },
        ),
    )


def balanced_mse(config, loss, noise, both):
    """Balanced MSE for a new regressor on a finished encoder, or for all at once; its own noise
    scale is learned."""
    initial = float(noise or (10.0 if kind(config.name) == AGE else 1.0)) / config.data.target_scale
    heads, losses = ({"name": "NoiseScale", "initial": initial},), ({"name": loss},)
    regression(config, *([plain(config)] if both else losses), heads=() if both else heads)
    if both:
        retrain(
            config,
            0.1,
            {"heads": entries(*heads, *config.heads), "losses": entries(*losses)},
            noise=True,
        )
    if "balanced_mae" in config.metrics:
        config.select_metric = "balanced_mae"


def balanced_mse_from_scratch(config):
    """90 epochs as the benchmark, then 10 of the regressor at 1e-4, as the program on IMDB-WIKI."""
    dir_program(config)
    if config.stages:
        config.train.duration = "100 epochs"
        config.stages = tuple(
            at_rate(part, heads=(1e-4 / spread(config), 0.0)) for part in config.stages
        )


def contrastive_program(config, lr):
    """From scratch as the programs of SupCon and RnC: SGD at this rate, batch 256, cosine to a
    thousandth, 400 epochs."""
    config.optim.update({"name": "sgd", "momentum": 0.9, "schedule": "cosine", "final": 1e-3})
    config.optim.groups = entries({"parameters": ".*", "group": "all"})
    config.optim.rates = rates(all=(lr, 1e-4))
    config.train.duration = "400 epochs"
    batch(config, 256)
    config.data.normalize = "half"


def two_views(config):
    """Two augmentations of each image, with the transforms of SupCon and RnC; crops of the data
    set's own stay."""
    config.data.copies = 2
    if not own_crops(config):
        config.data.train_crop = entry(name="random_resized_crop", scale=(0.2, 1.0))
    config.data.jitter.update(
        {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    )
    config.data.grey = 0.2
