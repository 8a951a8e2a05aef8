"""INV (Yang et al., ICML 2021): L1 (sentences: MSE) with weights inverse to the label's frequency,
mean weight 1.

Counts are clipped to 5..1000, on STS-B not at all, as in the programs."""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config):
    config.weights.scheme = "inverse"
    recipes.regression(config, recipes.plain(config))
