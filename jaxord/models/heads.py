"""Heads: modules that add named arrays to those of the towers, or replace them.

A head maps a dict of arrays (batch, constants, outputs so far) to a dict of arrays. Heads run in
the order of the config, so one may use what an earlier one gave.

Sizes come from the constants of the run: K from rank_values, G from group_prior, R from
  reference_values. All is float32.

Shapes: B batch, K ranks, G groups, R reference points, D embedding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import softmax, softplus

from jaxord.models.fds import FDS
from jaxord.models.video import MotionFusion
from jaxord.vectors import inner, unit

__all__ = [
    "Adapter",
    "BinRegressor",
    "Classifier",
    "CosineLogits",
    "Experts",
    "FDS",
    "Margins",
    "MotionFusion",
    "NoiseScale",
    "PairWeights",
    "Projection",
    "ReferencePoints",
    "Regressor",
    "Thresholds",
]

__all__ = [
    "FDS",
    "Adapter",
    "BinRegressor",
    "Classifier",
    "CosineLogits",
    "Experts",
    "Margins",
    "MotionFusion",
    "NoiseScale",
    "PairWeights",
    "Projection",
    "ReferencePoints",
    "Regressor",
    "Thresholds",
]


class CosineLogits(nn.Module):
    """logits[b, k] = exp(logit_scale) cos(image_embeds[b], text_embeds[k]): CLIP's scores.
    Normalises both."""

    def __call__(self, arrays):
        cosine = inner(unit(arrays["image_embeds"]), unit(arrays["text_embeds"]))  # [B, K]
        return {"logits": jnp.exp(arrays["logit_scale"]) * cosine}


class Classifier(nn.Module):
    """logits = W image_embeds + b, one row of W per rank."""

    @nn.compact
    def __call__(self, arrays):
        return {
            "logits": nn.Dense(len(arrays["rank_values"]))(
                arrays["image_embeds"].astype(jnp.float32)
            )
        }


class Regressor(nn.Module):
    """value = m + s (w . image_embeds + b), with m and s the mean and standard deviation of the
    rank values.

    The fixed m and s put the first predictions in the middle of the label's scale, whatever its
    units (our choice).
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

    delta = tanh(W2 ReLU(W1 logits)) with 2K hidden units, W from N(0, 0.001^2), biases 0: the form
    of the program, which the paper leaves open. Trap: 1 + delta lies in (0, 2) and nothing keeps it
    away from 0.
    """

    @nn.compact
    def __call__(self, arrays):
        logits = arrays["logits"].astype(jnp.float32)
        ranks = logits.shape[-1]
        small = nn.initializers.normal(1e-3)
        hidden = nn.relu(nn.Dense(2 * ranks, kernel_init=small, name="hidden")(logits))
        delta = jnp.tanh(nn.Dense(ranks, kernel_init=small, name="delta")(hidden))  # [B, K]
        return {"value": jnp.sum(softmax(logits) * arrays["rank_values"] / (1 + delta), axis=-1)}


class Thresholds(nn.Module):
    """threshold_logits[b, k]: how surely the rank is above k, k = 0..K-2.

    shared=True:  w . image_embeds + b_k, one w for all thresholds (CORAL, Cao 2020): answers that never contradict each
      other once the biases descend. Biases start at 0.
    shared=False: W image_embeds + b (CORN, Shi 2021).
    """

    shared: bool = True

    @nn.compact
    def __call__(self, arrays):
        x, thresholds = arrays["image_embeds"].astype(jnp.float32), len(arrays["rank_values"]) - 1
        if not self.shared:
            return {"threshold_logits": nn.Dense(thresholds)(x)}
        bias = self.param("bias", nn.initializers.zeros, (thresholds,))
        return {"threshold_logits": nn.Dense(1, use_bias=False)(x) + bias}  # [B, K-1]


class Projection(nn.Module):
    """image_embeds <- W_n ReLU(... ReLU(W_1 x + b_1)) + b_n, of which losses learn and rules need
    not (SupCon).

    What came before it stays readable as `image_features`, where no other head or projection stands
    between.

    Attributes:
      hidden: width between the layers; 0 is that of image_embeds.
      features: width of the result.
      layers: number of linear maps.
    """

    hidden: int = 0
    features: int = 128
    layers: int = 2

    @nn.compact
    def __call__(self, arrays):
        x = arrays["image_embeds"].astype(jnp.float32)
        hidden = self.hidden or x.shape[-1]
        for i in range(self.layers - 1):
            x = nn.relu(nn.Dense(hidden, name=str(i))(x))
        return {"image_embeds": nn.Dense(self.features, name=str(self.layers - 1))(x)}


class Experts(nn.Module):
    """A regressor for each group, and a classifier of the groups (Group-DIR Eq 3, Eq 4).

    expert_values = m + s (V image_embeds + b),  group_logits = W image_embeds + c, one row of V and of W per group; m and s
    the mean and standard deviation of all rank values, as in `Regressor` (our choice: the same for
    every expert, since the values of a group need not be known).
    """

    @nn.compact
    def __call__(self, arrays):
        x, values, groups = (
            arrays["image_embeds"].astype(jnp.float32),
            arrays["rank_values"],
            _size(arrays, "group_prior"),
        )
        raw = nn.Dense(groups, name="values")(x)  # [B, G]
        return {
            "expert_values": values.mean() + values.std() * raw,
            "group_logits": nn.Dense(groups, name="groups")(x),
        }


class ReferencePoints(nn.Module):
    """reference_points f32[R, D], free parameters, one for each of `reference_values` (mu of ConOrd
    Eq 8).

    Attributes:
      initial: "random" N(0, 1/D), which has the length of the unit features that they are compared
        with; "zeros"; "truncated_normal", the same cut at two standard deviations; "kaiming" N(0,
        2/D); "mean": the run replaces the points by the mean unit features of the training split's
        labels before the first step, and zeros stand till then.
      scale: multiplies the drawn ones. The paper gives none (our choice: 1).
    """

    initial: str = "random"
    scale: float = 1.0

    @nn.compact
    def __call__(self, arrays):
        shape = (_size(arrays, "reference_values"), arrays["image_embeds"].shape[-1])
        deviation, draw = self.scale * shape[1] ** -0.5, nn.initializers
        forms = {
            "random": draw.normal(deviation),
            "zeros": draw.zeros,
            "truncated_normal": draw.truncated_normal(deviation),
            "kaiming": draw.normal(deviation * 2**0.5),
            "mean": draw.zeros,
        }
        if self.initial not in forms:
            raise ValueError(
                f"ReferencePoints has initial={self.initial!r}; it takes one of {sorted(forms)}"
            )
        return {"reference_points": self.param("points", forms[self.initial], shape)}


class PairWeights(nn.Module):
    """pair_weights f32[2, size] > 0: ConOrd's learned attraction and repulsion by the gap of labels
    (setting X).

    softplus of free parameters. They start at attraction 1 / (gap + 1) and repulsion gap + 1, gap =
    0..size-1: with both rows equal the features would have no gradient, and nothing in the loss
    tells them an order (our choice; the paper has no form). Trap: the loss also falls, without end,
    by raising one row and lowering the other.
    """

    size: int

    @nn.compact
    def __call__(self, arrays):
        far = 1.0 + np.arange(self.size)
        start = _softplus_inverse(np.stack([1 / far, far]))
        return {
            "pair_weights": softplus(
                self.param("weights", lambda key: jnp.asarray(start, jnp.float32))
            )
        }


class Margins(nn.Module):
    """margins f32[K-1] >= 0 between neighbouring ranks (CLOC, Pitawela 2025): softplus of free
    parameters.

    The margins themselves start from U(0.5, 1).
    """

    @nn.compact
    def __call__(self, arrays):
        def start(key, shape):
            return _softplus_inverse(jax.random.uniform(key, shape, minval=0.5, maxval=1.0))

        return {
            "margins": softplus(self.param("margins", start, (len(arrays["rank_values"]) - 1,)))
        }


class NoiseScale(nn.Module):
    """noise_scale f32[], a free parameter: sigma of balanced MSE (Ren 2022), on the scale of the
    target.

    As in its program nothing keeps it positive: the losses take its square.
    """

    initial: float = 1.0

    @nn.compact
    def __call__(self, arrays):
        return {
            "noise_scale": self.param("noise_scale", nn.initializers.constant(self.initial), ())
        }


def _softplus_inverse(x):
    """log(e^x - 1), x > 0, without overflow."""
    return x + jnp.log(-jnp.expm1(-x))


def _size(arrays, name):
    setting = {"group_prior": "groups.count", "reference_values": "references.index"}[name]
    if name not in arrays:
        raise ValueError(f"a head needs {name}, which {setting} brings; set it")
    return len(arrays[name])
