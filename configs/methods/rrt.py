"""RRT (Yang et al., ICML 2021): regressor re-training, the decoupling of imbalanced classification
for regression.

First the plain loss, as long as method=l1 takes; then the encoder is kept and a new regressor
trained as long again, with weights inverse to the label's frequency, and lds=on smooths the
frequencies. The program leaves the scheme to the user (inverse: our choice) and moves the batch
statistics of the frozen encoder, here they stay.
"""

from configs import recipes
from configs.base import choose


def apply(config, lds="off"):
    recipes.regression(config, recipes.plain(config))
    smooth = {"weights.lds": "gaussian"} if choose("lds", lds, {"on": True, "off": False}) else {}
    recipes.retrain(config, 0.5, {"weights.scheme": "inverse", **smooth})
    config.train.duration = "200 epochs"


def from_scratch(config):
    recipes.dir_program(config)
    config.stages = tuple(
        recipes.at_rate(part, heads=(1e-3 / recipes.spread(config), 0.0)) for part in config.stages
    )
