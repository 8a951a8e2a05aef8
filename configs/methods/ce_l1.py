"""No paper, our baseline: a linear classifier and a linear regressor on the same features,
cross-entropy plus L1.

The recipe is our choice."""

from configs import recipes
from configs.base import entries

from_scratch = recipes.dir_program


def apply(config):
    config.heads = entries({"name": "Classifier"}, {"name": "Regressor"})
    config.losses = entries({"name": "cross_entropy"}, {"name": "l1"})
    config.rules = entries({"name": "expectation"}, {"name": "value"}, {"name": "argmax"})
    recipes.finetune(config)
