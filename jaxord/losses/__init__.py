"""Losses: pure functions of named arrays, each over the whole global batch.

Positional parameters are names of arrays, looked up in the constants, the batch and the outputs of
the model; one with a default is optional. Keyword-only parameters are settings that a config gives.
Every loss returns f32[], the batch mean, without its weight. It is computed in float32 whatever
comes in, and in log space where it exponentiates: value and gradient stay finite for logits times
10,000, for ties, for a batch of one class and for a batch of one. An anchor whose sum is empty
counts 0.

`logits` are similarities already multiplied by exp(logit_scale). `rank` must lie in 0..K-1.
Embeddings come as the model gives them: a loss whose equation has unit vectors makes them so, and
says it. `direction="both"` is the sum of image-to-text and text-to-image everywhere. Losses over
all pairs of samples hold about `block` pairs at once, which changes time and memory only.
"""

from jaxord.losses.contrastive import asymmetric_contrastive, fcrc, info_nce, ordinal_pairwise
from jaxord.losses.contrastive_order import conord, expected_error
from jaxord.losses.embedding import cloc, group_contrastive, rnc, supcon
from jaxord.losses.order import ordinal_entropy, ranksim
from jaxord.losses.points import center
from jaxord.losses.rank import (
    coral,
    corn,
    cross_entropy,
    descending_soft_label,
    logit_adjusted,
    text_image_kl,
)
from jaxord.losses.regression import (
    balanced_mse,
    balanced_mse_gai,
    expert,
    focal_l1,
    huber,
    l1,
    mse,
)

__all__ = [
    "asymmetric_contrastive",
    "balanced_mse",
    "balanced_mse_gai",
    "center",
    "cloc",
    "conord",
    "coral",
    "corn",
    "cross_entropy",
    "descending_soft_label",
    "expected_error",
    "expert",
    "fcrc",
    "focal_l1",
    "group_contrastive",
    "huber",
    "info_nce",
    "l1",
    "logit_adjusted",
    "mse",
    "ordinal_entropy",
    "ordinal_pairwise",
    "ranksim",
    "rnc",
    "supcon",
    "text_image_kl",
]
