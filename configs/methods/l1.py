"""L1 regression with a linear head: the plain regression baseline. The recipe is our choice."""

from configs.base import entries
from configs.methods import ce


def apply(config):
    config.heads = entries({"name": "Regressor"})
    config.losses = entries({"name": "l1"})
    config.rules = entries({"name": "value"})
    ce.recipe(config)
