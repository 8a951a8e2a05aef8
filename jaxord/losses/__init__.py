"""Losses: pure functions of named arrays, each over the whole global batch.

Positional parameters are names of arrays, looked up in the constants, the batch and the outputs of the model; one with
a default is optional. Keyword-only parameters are settings that a config gives. Every loss returns f32[], the batch
mean, without its weight. It is computed in float32 whatever comes in, and in log space where it exponentiates: value
and gradient stay finite for logits times 10,000, for ties, for a batch of one class and for a batch of one.

`logits` are similarities already multiplied by exp(logit_scale). `rank` must lie in 0..K-1.
`direction="both"` is the sum of image-to-text and text-to-image everywhere.
"""

from jaxord.losses.contrastive import fcrc, info_nce
from jaxord.losses.rank import cross_entropy, text_image_kl
from jaxord.losses.regression import huber, l1, mse

__all__ = ["cross_entropy", "fcrc", "huber", "info_nce", "l1", "mse", "text_image_kl"]
