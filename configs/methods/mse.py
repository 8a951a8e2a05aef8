"""Mean squared error of a linear regressor: the "Vanilla" row of the imbalanced sentences (Yang et
al., ICML 2021).

Parameters are chosen by the MSE where that is measured, as in the programs. With pretrained weights
the recipe is our choice.
"""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config):
    recipes.regression(config, {"name": "mse"})
    if "mse" in config.metrics:
        config.select_metric = "mse"
