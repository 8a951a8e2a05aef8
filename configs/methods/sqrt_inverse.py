"""SQINV (Yang et al., ICML 2021): L1 (sentences: MSE) with weights inverse to the root of the
label's frequency, mean 1."""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config):
    config.weights.scheme = "sqrt_inverse"
    recipes.regression(config, recipes.plain(config))
