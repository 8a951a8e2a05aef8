"""Balanced MSE, analytical form (GAI; Ren et al., CVPR 2022): the labels' distribution as a mixture
of Gaussians.

components=8 as in the program. Stages, noise=, retrain= and what differs from the program: as
configs/methods/bmc.py. The mixture is fitted from the run's seed (0 in the program).
"""

from configs import recipes
from configs.base import choose

from_scratch = recipes.balanced_mse_from_scratch


def apply(config, noise="", retrain="on", components="8"):
    config.mixture = int(components)
    recipes.balanced_mse(
        config, "balanced_mse_gai", noise, choose("retrain", retrain, {"on": True, "off": False})
    )
