"""The Huber loss (Huber 1964) of a linear regressor, in the form of the programs of Yang et al.
(ICML 2021; slope 1 at any beta). beta=1 for ages; 0.3 for STS-B, whose training scale is 0 to 1, as
in its program."""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config, beta=""):
    recipes.regression(
        config, {"name": "huber", "beta": float(beta or (0.3 if config.name == "stsb" else 1.0))}
    )
