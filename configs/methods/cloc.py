"""CLOC (Pitawela et al., CVPR 2025): multi-margin n-pair contrast with a learned margin between
neighbouring ranks, plus cross-entropy; first the margins are learned with everything else, then
they are fixed.

reduction=program|mean: the program divides by |Q| once more than a plain mean over pairs does.
on=features|logits: its README hands the classifier's outputs to the loss; comparing features is our
choice. Only the loss is public. Our choice: the second phase starts from the first one's parameters
and takes half of the time, and the whole recipe.
"""

from configs import recipes
from configs.base import choose, entries, stage


def apply(config, reduction="program", on="features"):
    embeds = choose("on", on, {"features": "image_embeds", "logits": "logits"})
    config.heads = entries({"name": "Classifier"}, {"name": "Margins"})
    config.losses = entries(
        {"name": "cloc", "reduction": reduction, "arrays": {"image_embeds": embeds}},
        {"name": "cross_entropy"},
    )
    config.rules = entries({"name": "argmax"}, {"name": "expectation"})
    recipes.finetune(config)
    phases(config)


def phases(config):
    fixed = (*entries({"parameters": "margins/.*", "group": "frozen"}), *config.optim.groups)
    config.stages = (
        stage("margins", {"train.share": 0.5}),
        stage("fixed", {"train.share": 0.5, "optim.groups": fixed}),
    )


def from_scratch(config):
    recipes.dir_program(config)
    phases(config)
