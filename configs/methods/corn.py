"""CORN (Shi et al., Pattern Analysis and Applications 2023): conditional probabilities of passing
each threshold, given the one before. The loss is the program's, divided by the number of (sample,
threshold) pairs; the recipe is our choice."""

from configs import recipes
from configs.base import entries

from_scratch = recipes.dir_program


def apply(config):
    config.heads = entries({"name": "Thresholds", "shared": False})
    config.losses = entries({"name": "corn"})
    config.rules = entries({"name": "thresholds", "conditional": True})
    recipes.finetune(config)
