"""Heads: modules that add named arrays to those of the towers, or replace them.

A head maps a dict of arrays (batch, constants, outputs so far) to a dict of arrays. Heads run in the order of the
config, so one may use what an earlier one gave.

Shapes: B batch, K ranks, D embedding.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import softmax

from jaxord.vectors import inner, unit


class CosineLogits(nn.Module):
    """logits[b, k] = exp(logit_scale) cos(image_embeds[b], text_embeds[k]): CLIP's scores. Normalises both."""

    def __call__(self, arrays):
        cosine = inner(unit(arrays["image_embeds"]), unit(arrays["text_embeds"]))  # [B, K]
        return {"logits": jnp.exp(arrays["logit_scale"]) * cosine}


class Classifier(nn.Module):
    """logits = W image_embeds + b, one row of W per rank."""

    @nn.compact
    def __call__(self, arrays):
        return {"logits": nn.Dense(len(arrays["rank_values"]))(arrays["image_embeds"].astype(jnp.float32))}


class Regressor(nn.Module):
    """value = m + s (w . image_embeds + b), with m and s the mean and standard deviation of the rank values.

    The fixed m and s put the first predictions in the middle of the label's scale, whatever its units (our choice).
    """

    @nn.compact
    def __call__(self, arrays):
        values = arrays["rank_values"]
        raw = nn.Dense(1)(arrays["image_embeds"].astype(jnp.float32))[:, 0]  # [B]
        return {"value": values.mean() + values.std() * raw}


class Adapter(nn.Module):
    """image_embeds <- ratio A(x) + (1 - ratio) x with A(x) = ReLU(W2 ReLU(W1 x)), no biases.

    In NumCLIP's program but in neither paper: D -> D/4 -> D, ratio 0.8.
    """

    ratio: float = 0.8

    @nn.compact
    def __call__(self, arrays):
        x = arrays["image_embeds"].astype(jnp.float32)
        hidden = nn.relu(nn.Dense(x.shape[-1] // 4, use_bias=False, name="down")(x))
        adapted = nn.relu(nn.Dense(x.shape[-1], use_bias=False, name="up")(hidden))
        return {"image_embeds": self.ratio * adapted + (1 - self.ratio) * x}


class BinRegressor(nn.Module):
    """value = sum_k p_k b_k / (1 + delta_k), p = softmax(logits), b the bin centres (NumCLIP Eq 1).

    delta = tanh(W2 ReLU(W1 logits)) with 2K hidden units, W from N(0, 0.001^2), biases 0: the form of the program, which
    the paper leaves open. Trap: 1 + delta lies in (0, 2) and nothing keeps it away from 0.
    """

    @nn.compact
    def __call__(self, arrays):
        logits = arrays["logits"].astype(jnp.float32)
        ranks = logits.shape[-1]
        small = nn.initializers.normal(1e-3)
        hidden = nn.relu(nn.Dense(2 * ranks, kernel_init=small, name="hidden")(logits))
        delta = jnp.tanh(nn.Dense(ranks, kernel_init=small, name="delta")(hidden))  # [B, K]
        return {"value": jnp.sum(softmax(logits) * arrays["rank_values"] / (1 + delta), axis=-1)}
