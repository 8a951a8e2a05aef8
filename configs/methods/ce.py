"""Cross-entropy over the ranks with a linear classifier, whose expectation is the prediction (DEX;
Rothe et al., IJCV 2018).

The plain classification baseline; the recipe is our choice.
"""

from configs import recipes
from configs.base import entries

from_scratch = recipes.dir_program


def apply(config):
    config.heads = entries({"name": "Classifier"})
    config.losses = entries({"name": "cross_entropy"})
    config.rules = entries({"name": "expectation"}, {"name": "argmax"})
    recipes.finetune(config)
