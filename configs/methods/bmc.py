"""Balanced MSE, batch form (BMC; Ren et al., CVPR 2022): the value has to pick its own target among
those of the batch.

As in the program for IMDB-WIKI an encoder is trained first (plain L1), then a new regressor under
this loss, a tenth of the time, with a noise scale that is learned at 1e-2 and chosen by the
balanced MAE where that is measured. retrain=off trains all at once. The noise starts at 10 years,
as in the program, and at 1 unit of other labels (our choice); noise= changes it. The program moves
the batch statistics of the frozen encoder, here they stay. With pretrained weights the recipe is
our choice.
"""

from configs import recipes
from configs.base import choose

from_scratch = recipes.balanced_mse_from_scratch


def apply(config, noise="", retrain="on"):
    recipes.balanced_mse(
        config, "balanced_mse", noise, choose("retrain", retrain, {"on": True, "off": False})
    )
