"""Ordinal entropy (Zhang et al., ICLR 2023): features spread by the gaps of their labels, beside a
regression loss.

weight=1: the program adds its term as it is to that of the imbalanced-regression benchmark, L1 for
ages; the paper's equation has MSE, loss=mse. The program for ages squares the distance to the own
centre, see jaxord.losses.ordinal_entropy.
"""

from configs import recipes
from configs.base import choose

from_scratch = recipes.dir_program


def apply(config, weight="1", loss=""):
    plain = choose(
        "loss", loss, {"": recipes.plain(config), "l1": {"name": "l1"}, "mse": {"name": "mse"}}
    )
    # What the regressor sees: under CLIP that is not image_features, the default.
    term = {
        "name": "ordinal_entropy",
        "weight": float(weight),
        "arrays": {"image_features": "image_embeds"},
    }
    recipes.regression(config, plain, term)
