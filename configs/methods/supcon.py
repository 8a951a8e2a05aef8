"""SupCon (Khosla et al., NeurIPS 2020): supervised contrastive learning, then k-NN on the features
under the projection.

positives=rank (all of the same rank, ConOrd Eq 1) or view (the other augmentation only, the caption
of ConOrd Figure 1); ranks of real-valued labels are bins. temperature=0.07, the loss's default. The
projection is SupCon's two layers to 128; evaluation as in ConOrd by k-NN, k and batch as ConOrd's.
From scratch SGD 0.05, batch 256, cosine to a thousandth as in the program, 400 epochs as RnC (the
program: 1000). center=on adds ConOrd's reference points (its Table 15) to what the loss compares.
"""

from configs import recipes
from configs.base import choose, entries
from configs.methods import conord


def apply(config, positives="rank", temperature="0.07", center="off"):
    centers = [conord.centers(config)] if choose("center", center, conord.SWITCH) else []
    config.heads = entries({"name": "Projection"}, *(head for head, _ in centers))
    config.losses = entries(
        {"name": "supcon", "positives": positives, "temperature": float(temperature)},
        *(loss for _, loss in centers),
    )
    conord.neighbours(config, "image_features")
    recipes.finetune(config)
    recipes.two_views(config)


def from_scratch(config):
    recipes.contrastive_program(config, 0.05)
