"""Heads: modules that add named arrays to those of the towers, or replace them.

A head maps the dict of arrays so far (batch, constants, outputs) to a dict of arrays. Heads run in
the order of the config, so one can use the arrays of an earlier one. Sizes come from the constants
of the run: K from rank_values, G from group_prior, R from reference_values. All is float32.

A head of evaluation declares for exports the arrays it `reads` and `writes`, and as `torch_line`
the code that an export's README shows; its torch itself is in jaxord/export/predict_torch.py. In
the line {name} stands for an array or a setting, {own} for the head's parameters. A head without a
part in evaluation declares `training_only`.

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

__all__ = ["Adapter", "BinRegressor", "Classifier", "CosineLogits", "Experts", "FDS", "Margins"]
__all__ += ["MotionFusion", "NoiseScale", "PairWeights", "Projection", "ReferencePoints"]
__all__ += ["Regressor", "Thresholds"]


class CosineLogits(nn.Module):
    """logits[b, k] = exp(logit_scale) cos(image_embeds[b], text_embeds[k]), CLIP's scores."""

    reads = ("image_embeds", "text_embeds", "logit_scale")
    writes = ("logits",)
    torch_line = "logits = {logit_scale}.exp() * unit({image_embeds}) @ unit({text_embeds}).T"

    def __call__(self, arrays):
        cosine = inner(unit(arrays["image_embeds"]), unit(arrays["text_embeds"]))  # [B, K]
        return {"logits": jnp.exp(arrays["logit_scale"]) * cosine}


class Classifier(nn.Module):
    """logits = W image_embeds + b, one row of W per rank."""

    reads = ("image_embeds", "rank_values")
    writes = ("logits",)
    torch_line = 'logits = linear("{own}.Dense_0", {image_embeds})'

    @nn.compact
    def __call__(self, arrays):
        return {"logits": nn.Dense(len(arrays["rank_values"]))(_embeds(arrays))}


class Regressor(nn.Module):
    """value = m + s (w . image_embeds + b), m and s the mean and deviation of the rank values.

    Fixed m and s start the predictions in the middle of the label's scale (our choice).
    """

    reads = ("image_embeds", "rank_values")
    writes = ("value",)
    torch_line = (
        "value = {rank_values}.mean() + {rank_values}.std(correction=0) * "
        'linear("{own}.Dense_0", {image_embeds})[:, 0]'
    )

    @nn.compact
    def __call__(self, arrays):
        values = arrays["rank_values"]
        raw = nn.Dense(1)(_embeds(arrays))[:, 0]  # [B]
        return {"value": values.mean() + values.std() * raw}


class Adapter(nn.Module):
    """image_embeds <- ratio A(x) + (1 - ratio) x with A(x) = ReLU(W2 ReLU(W1 x)), no biases.

    D -> D/4 -> D, from NumCLIP's program; neither of its papers has it.
    """

    reads = ("image_embeds",)
    writes = ("image_embeds",)
    torch_line = (
        'image_embeds = {ratio} * linear("{own}.up", linear("{own}.down", {image_embeds}).relu())'
        ".relu() + (1 - {ratio}) * {image_embeds}"
    )

    ratio: float = 0.8

    @nn.compact
    def __call__(self, arrays):
        x = _embeds(arrays)
        hidden = nn.relu(nn.Dense(x.shape[-1] // 4, use_bias=False, name="down")(x))
        adapted = nn.relu(nn.Dense(x.shape[-1], use_bias=False, name="up")(hidden))
        return {"image_embeds": self.ratio * adapted + (1 - self.ratio) * x}


class BinRegressor(nn.Module):
    """value = sum_k p_k b_k / (1 + delta_k), p = softmax(logits), b the bin centres (NumCLIP Eq 1).

    delta = tanh(W2 ReLU(W1 logits)) with 2K hidden units, W from N(0, 0.001^2), biases 0: the form
    of the program, which the paper leaves open. Trap: 1 + delta in (0, 2) may come near 0.
    """

    reads = ("logits", "rank_values")
    writes = ("value",)
    torch_line = (
        'delta = linear("{own}.delta", linear("{own}.hidden", {logits}).relu()).tanh()\n'
        "value = ({logits}.softmax(1) * {rank_values} / (1 + delta)).sum(1)"
    )

    @nn.compact
    def __call__(self, arrays):
        logits = arrays["logits"].astype(jnp.float32)
        ranks = logits.shape[-1]
        small = nn.initializers.normal(1e-3)
        hidden = nn.relu(nn.Dense(2 * ranks, kernel_init=small, name="hidden")(logits))
        delta = jnp.tanh(nn.Dense(ranks, kernel_init=small, name="delta")(hidden))  # [B, K]
        return {"value": jnp.sum(softmax(logits) * arrays["rank_values"] / (1 + delta), axis=-1)}


class Thresholds(nn.Module):
    """threshold_logits f32[B, K-1]: entry k is large where the rank is above k.

    shared=True:  w . x + b_k, b from 0 (CORAL, Cao 2020): never contradictory once b descends.
    shared=False: W x + b (CORN, Shi 2021).
    """

    reads = ("image_embeds", "rank_values")
    writes = ("threshold_logits",)
    torch_line = (
        'threshold_logits = linear("{own}.Dense_0", {image_embeds}) + a.get("{own}.bias", 0)'
    )

    shared: bool = True

    @nn.compact
    def __call__(self, arrays):
        x, thresholds = _embeds(arrays), len(arrays["rank_values"]) - 1
        if not self.shared:
            return {"threshold_logits": nn.Dense(thresholds)(x)}
        bias = self.param("bias", nn.initializers.zeros, (thresholds,))
        return {"threshold_logits": nn.Dense(1, use_bias=False)(x) + bias}  # [B, K-1]


class Projection(nn.Module):
    """image_embeds <- W_n ReLU(... ReLU(W_1 x + b_1)) + b_n (SupCon, Khosla 2020).

    x stays readable as `image_features` if no other head or projection changes it.
    """

    reads = ("image_embeds",)
    writes = ("image_embeds",)
    torch_line = (
        "for i in range({layers}):\n"
        '    image_embeds = linear("{own}." + str(i), image_embeds.relu() if i else image_embeds)'
    )

    hidden: int = 0  # width between the layers; 0 is that of image_embeds
    features: int = 128  # width of the result
    layers: int = 2

    @nn.compact
    def __call__(self, arrays):
        x = _embeds(arrays)
        hidden = self.hidden or x.shape[-1]
        for i in range(self.layers - 1):
            x = nn.relu(nn.Dense(hidden, name=str(i))(x))
        return {"image_embeds": nn.Dense(self.features, name=str(self.layers - 1))(x)}


class Experts(nn.Module):
    """expert_values = m + s (V x + b), group_logits = W x + c (Group-DIR Eq 3, Eq 4).

    One row per group; m and s as in `Regressor`, over all rank values (our choice: a group's own
    values need not be known).
    """

    reads = ("image_embeds", "rank_values")
    writes = ("expert_values", "group_logits")
    torch_line = (
        "expert_values = {rank_values}.mean() + {rank_values}.std(correction=0) * "
        'linear("{own}.values", {image_embeds})\n'
        'group_logits = linear("{own}.groups", {image_embeds})'
    )

    @nn.compact
    def __call__(self, arrays):
        x, values = _embeds(arrays), arrays["rank_values"]
        groups = _size(arrays, "group_prior")
        raw = nn.Dense(groups, name="values")(x)  # [B, G]
        expert_values = values.mean() + values.std() * raw
        return {"expert_values": expert_values, "group_logits": nn.Dense(groups, name="groups")(x)}


class ReferencePoints(nn.Module):
    """reference_points f32[R, D]: free, one per entry of `reference_values` (mu of ConOrd Eq 8).

    `initial` is "random" N(0, 1/D), as long as the unit features they are compared with; "zeros";
    "truncated_normal", cut at two standard deviations; "kaiming" N(0, 2/D); or "mean": zeros, which
    the run replaces by each label's mean unit feature of the training split. `scale` multiplies
    drawn points (our choice: 1; the paper gives none).
    """

    reads = ()
    writes = ("reference_points",)
    torch_line = 'reference_points = a["{own}.points"]'

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
            known = sorted(forms)
            raise ValueError(
                f"ReferencePoints has initial={self.initial!r}; it takes one of {known}"
            )
        return {"reference_points": self.param("points", forms[self.initial], shape)}


class PairWeights(nn.Module):
    """pair_weights f32[2, size] > 0: ConOrd's learned attraction and repulsion (setting X).

    softplus of free parameters, indexed by the gap of two labels. Attraction starts at 1 / (gap +
    1), repulsion at gap + 1 (our choice): with equal rows the features would have no gradient.
    Trap: raising one row and lowering the other lowers the loss without end.
    """

    training_only = True

    size: int

    @nn.compact
    def __call__(self, arrays):
        far = 1.0 + np.arange(self.size)
        start = _softplus_inverse(np.stack([1 / far, far]))
        weights = self.param("weights", lambda key: jnp.asarray(start, jnp.float32))
        return {"pair_weights": softplus(weights)}


class Margins(nn.Module):
    """margins f32[K-1] >= 0 of neighbouring ranks: softplus, from U(0.5, 1) (CLOC, 2025)."""

    training_only = True

    @nn.compact
    def __call__(self, arrays):
        def start(key, shape):
            return _softplus_inverse(jax.random.uniform(key, shape, minval=0.5, maxval=1.0))

        shape = (len(arrays["rank_values"]) - 1,)
        return {"margins": softplus(self.param("margins", start, shape))}


class NoiseScale(nn.Module):
    """noise_scale f32[], sigma of balanced MSE (Ren 2022); may turn negative, losses square it."""

    training_only = True

    initial: float = 1.0

    @nn.compact
    def __call__(self, arrays):
        start = nn.initializers.constant(self.initial)
        return {"noise_scale": self.param("noise_scale", start, ())}


def _embeds(arrays):
    return arrays["image_embeds"].astype(jnp.float32)


def _softplus_inverse(x):
    """log(e^x - 1), x > 0, without overflow."""
    return x + jnp.log(-jnp.expm1(-x))


def _size(arrays, name):
    """Length of a constant, which a setting of the config has to bring."""
    setting = {"group_prior": "groups.count", "reference_values": "references.index"}[name]
    if name not in arrays:
        raise ValueError(f"a head needs {name}, which {setting} brings; set it")
    return len(arrays[name])
