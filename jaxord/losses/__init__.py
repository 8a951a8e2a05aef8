"""Losses: pure functions of named arrays over the whole global batch.

Positional parameters are names of arrays in the constants, the batch and the model's outputs; one
with a default is optional. Keyword-only parameters are settings that a config gives. Every loss
returns f32[], the batch mean before its own weight in the config. A setting outside its choices or
shapes that do not fit raise ValueError.

Losses compute in float32 whatever comes in, and in log space where they exponentiate. Value and
gradient stay finite for logits times 10,000, for ties, for a batch of one class and for a batch of
one. An anchor with an empty sum counts 0.

The arrays, for B samples, K ranks, G groups, R reference points and embeddings of size D:

    logits [B, K]          threshold_logits [B, K-1]  rank i32[B]       rank_values f32[K]
    value [B]              noise_scale f32[]          target f32[B]     weight f32[B]
    group_logits [B, G]    expert_values [B, G]       group i32[B]      group_prior f32[G]
    image_embeds [B, D]    text_embeds [K, D]         margins f32[K-1]  index i32[B]
    image_features [B, D]  reference_points [R, D]    reference i32[B] or f32[B]

`logits` are similarities already multiplied by exp(logit_scale). `rank` must lie in 0..K-1. `value`
and `expert_values` are on the scale of `target`. Embeddings come as the model gives them: a loss
whose equation has unit vectors normalises them and says so. `direction="both"` is the sum of image
to text and text to image. Losses over all pairs of samples hold about `block` pairs at once, which
changes time and memory only.
"""

from jaxord.losses.classification import (
    coral,
    corn,
    cross_entropy,
    descending_soft_label,
    logit_adjusted,
)
from jaxord.losses.contrastive import cloc, group_contrastive, rnc, supcon
from jaxord.losses.contrastive_order import center, conord, expected_error
from jaxord.losses.regression import (
    balanced_mse,
    balanced_mse_gai,
    expert,
    focal_l1,
    huber,
    l1,
    mse,
)
from jaxord.losses.regularizers import ordinal_entropy, ranksim
from jaxord.losses.text_image import (
    asymmetric_contrastive,
    fcrc,
    info_nce,
    ordinal_pairwise,
    text_image_kl,
)

__all__ = ["coral", "corn", "cross_entropy", "descending_soft_label", "logit_adjusted"]
__all__ += ["asymmetric_contrastive", "fcrc", "info_nce", "ordinal_pairwise", "text_image_kl"]
__all__ += ["cloc", "group_contrastive", "rnc", "supcon", "center", "conord", "expected_error"]
__all__ += ["balanced_mse", "balanced_mse_gai", "expert", "focal_l1", "huber", "l1", "mse"]
__all__ += ["ordinal_entropy", "ranksim"]
