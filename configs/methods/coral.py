"""CORAL (Cao et al., Pattern Recognition Letters 2020): one weight vector and a bias for each
threshold between ranks; binary cross-entropies. The loss is the program's; biases start at 0 and
the recipe is our choice."""

from configs import recipes
from configs.base import entries

from_scratch = recipes.dir_program


def apply(config):
    config.heads = entries({"name": "Thresholds", "shared": True})
    config.losses = entries({"name": "coral"})
    config.rules = entries({"name": "thresholds"})
    recipes.finetune(config)
