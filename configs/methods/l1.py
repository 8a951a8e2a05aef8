"""Mean absolute error of a linear regressor: the "Vanilla" row of the imbalanced age sets (Yang et
al., ICML 2021).

With pretrained weights the recipe is our choice."""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config):
    recipes.regression(config, {"name": "l1"})
