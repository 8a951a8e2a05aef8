"""A linear classifier and a linear regressor on the same features, cross-entropy plus L1. The recipe is our choice."""

from configs.base import entries
from configs.methods import ce


def apply(config):
    config.heads = entries({"name": "Classifier"}, {"name": "Regressor"})
    config.losses = entries({"name": "cross_entropy"}, {"name": "l1"})
    config.rules = entries({"name": "value"}, {"name": "expectation"}, {"name": "argmax"})
    ce.recipe(config)
