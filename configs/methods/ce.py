"""Cross-entropy over the ranks with a linear classifier: the plain classification baseline. The recipe is our choice."""

from ml_collections import ConfigDict

from configs.base import entries


def apply(config):
    config.heads = entries({"name": "Classifier"})
    config.losses = entries({"name": "cross_entropy"})
    config.rules = entries({"name": "expectation"}, {"name": "argmax"})
    recipe(config)


def recipe(config):
    """The image tower at a small rate, new heads at a larger one (our choice)."""
    config.optim.update({"name": "adamw", "schedule": "cosine"})
    config.optim.groups = entries(
        {"parameters": "vision_model/.*|visual_projection/.*", "group": "image"},
        {"parameters": ".*", "group": "heads"},
    )
    config.optim.rates = ConfigDict(
        {"image": {"lr": 1e-5, "weight_decay": 0.01}, "heads": {"lr": 1e-3, "weight_decay": 0.01}}, type_safe=False
    )
    config.train.duration = "100 epochs"
