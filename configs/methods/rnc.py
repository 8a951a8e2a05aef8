"""Rank-N-Contrast (Zha et al., NeurIPS 2023): each pair against all that are farther in label; two
augmentations.

protocol=probe (its own: a linear regressor on the finished features, L1) or knn (as ConOrd
evaluates its baselines). similarity=l2 on raw features at temperature 2 (the program), or cosine.
ConOrd writes it with unit features and a temperature of its own:
similarity=cosine,temperature=0.07. Its ResNet-18 from scratch is trained by SGD 0.5, batch 256, 400
epochs, cosine to a thousandth; then the regressor by SGD 0.05, batch 64, 100 epochs, cosine to
0.008 of it. With pretrained weights the recipe is our choice, the batch ConOrd's. center=on adds
ConOrd's reference points (its Table 15).
"""

from configs import recipes
from configs.base import IMAGE, choose, entries, stage
from configs.methods import conord


def apply(config, protocol="probe", similarity="l2", temperature="2", center="off"):
    centers = [conord.centers(config)] if choose("center", center, conord.SWITCH) else []
    config.heads = entries(*(head for head, _ in centers))
    config.losses = entries(
        {"name": "rnc", "similarity": similarity, "temperature": float(temperature)},
        *(loss for _, loss in centers),
    )
    conord.neighbours(config, "image_embeds")
    recipes.finetune(config)
    points = [{"parameters": "reference_points/.*", "group": "points"}] if centers else []
    config.optim.groups = entries({"parameters": IMAGE, "group": "image"}, *points)
    config.optim.rates = recipes.rates(
        image=(1e-5, 0.01), **({"points": (1e-3, 0.0)} if centers else {})
    )
    recipes.two_views(config)
    if choose("protocol", protocol, {"probe": True, "knn": False}):
        config.stages = (stage("contrast", {"train.share": 0.8, "select": "last"}), probe(1e-3))


def probe(lr, **fields):
    """A linear regressor on features that stay as they are."""
    return stage(
        "probe",
        {
            "train.share": 0.2,
            "train.statistics": "keep",
            "fresh": "regressor/.*",
            "data.copies": 1,
            **fields,
            "heads": entries({"name": "Regressor"}),
            "losses": entries({"name": "l1"}),
            "rules": entries({"name": "value"}),
            "optim.groups": entries(
                {"parameters": IMAGE, "group": "frozen"}, {"parameters": ".*", "group": "heads"}
            ),
            "optim.rates": recipes.rates(heads=(lr, 0.0)),
        },
    )


def from_scratch(config):
    recipes.contrastive_program(config, 0.5)
    if config.stages:
        config.train.duration = "500 epochs"
        lr = 0.05 / recipes.spread(config) ** 2
        config.stages = (config.stages[0], probe(lr, **{"optim.final": 0.008, "data.batch": 64}))
