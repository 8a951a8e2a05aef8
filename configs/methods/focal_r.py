"""Focal-R (Yang et al., ICML 2021): small errors count less, |e| (2 sigmoid(beta |e|) - 1)^gamma.

beta=0.2 per year and gamma=1 as in the programs for ages; 20 on STS-B, whose training scale is 0 to
1, as in its program. There the error is squared, as in its program. lds=on adds LDS's weights.
"""

from configs import recipes
from configs.base import choose

from_scratch = recipes.dir_program


def apply(config, beta="", gamma="1", lds="off"):
    if choose("lds", lds, {"on": True, "off": False}):
        recipes.lds(config)
    beta = float(beta or (20.0 if config.name == "stsb" else 0.2))
    power = 2 if config.name == "stsb" else 1
    recipes.regression(
        config, {"name": "focal_l1", "beta": beta, "gamma": float(gamma), "power": power}
    )
