"""RankSim (Gong et al., ICML 2022): L1 (sentences: MSE), and neighbours in feature space ranked as
those in label space.

weight=100 and interpolation=2 are those of its command lines for ages, 3e-4 and 2 for STS-B. From
scratch 120 epochs; on AgeDB batch 64 and rate 2.5e-4, else those of the benchmark. The program
draws one sample of each label of the batch; here the first one counts.
"""

from configs import recipes


def apply(config, weight="", interpolation="2"):
    weight = float(weight or (3e-4 if config.name == "stsb" else 100.0))
    # What the regressor sees: under CLIP that is not image_features, the default.
    ranksim = {
        "name": "ranksim",
        "weight": weight,
        "interpolation": float(interpolation),
        "arrays": {"image_features": "image_embeds"},
    }
    recipes.regression(config, recipes.plain(config), ranksim)


def from_scratch(config):
    recipes.dir_program(
        config, epochs=120, **({"lr": 2.5e-4, "images": 64} if config.name == "agedb" else {})
    )
