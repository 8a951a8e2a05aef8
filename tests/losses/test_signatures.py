"""Every loss is found by its name and takes arrays by theirs."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxord.losses
from jaxord import binding

B, G, D = 6, 4, 3

ARRAYS = {
    "cross_entropy info_nce fcrc text_image_kl asymmetric_contrastive": "logits rank",
    "ordinal_pairwise": "image_embeds text_embeds rank rank_values",
    "supcon": "image_embeds rank [index]",
    "rnc expected_error": "image_embeds target",
    "group_contrastive": "image_embeds group",
    "conord": "image_embeds target [pair_weights]",
    "center": "image_embeds reference_points reference",
    "cloc": "image_embeds rank margins",
    "expert": "expert_values target group [weight]",
    "descending_soft_label": "group_logits group",
    "logit_adjusted": "group_logits group group_prior",
    "l1 mse huber": "value target [weight]",
    "balanced_mse": "value target noise_scale",
    "balanced_mse_gai": "value target noise_scale mixture_weights mixture_means mixture_variances",
    "focal_l1": "value target [weight]",
    "ranksim ordinal_entropy": "image_features target",
    "coral corn": "threshold_logits rank",
}


def test_every_loss_takes_the_arrays_it_should():
    wanted = {name: arrays for names, arrays in ARRAYS.items() for name in names.split()}
    assert sorted(wanted) == sorted(jaxord.losses.__all__)
    for name, arrays in wanted.items():
        loss = binding.lookup(jaxord.losses, name)
        required, optional = binding.needs(loss)
        assert " ".join(required + [f"[{array}]" for array in optional]) == arrays
        assert all(
            p.default is not p.empty
            for p in inspect.signature(loss).parameters.values()
            if p.kind == p.KEYWORD_ONLY
        )
        assert inspect.getdoc(loss)


def test_every_loss_of_bfloat16_is_a_float32_number():
    floats = {
        "logits": (B, 5),
        "value": (B,),
        "target": (B,),
        "weight": (B,),
        "image_embeds": (B, D),
        "text_embeds": (5, D),
        "image_features": (B, D),
        "rank_values": (5,),
        "reference_points": (4, D),
        "expert_values": (B, G),
        "noise_scale": (),
        "group_logits": (B, G),
        "group_prior": (G,),
        "threshold_logits": (B, 4),
        "margins": (4,),
        "mixture_weights": (2,),
        "mixture_means": (2,),
        "mixture_variances": (2,),
    }
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in floats.items()}
    arrays |= {
        name: jax.ShapeDtypeStruct((B,), jnp.int32)
        for name in ("rank", "group", "index", "reference")
    }
    for name in jaxord.losses.__all__:
        found = jax.eval_shape(
            functools.partial(binding.bind, getattr(jaxord.losses, name)), arrays
        )
        assert (found.shape, found.dtype) == ((), jnp.float32), name


def test_helpers_are_no_losses():
    for name in ("mean_over_blocks", "unit", "distances", "log_mass", "choose"):
        with pytest.raises(ValueError, match=f"has no '{name}'"):
            binding.lookup(jaxord.losses, name)


def test_losses_are_found_by_name_and_take_arrays_by_name():
    normal = np.random.default_rng(0).normal
    arrays = {"logits": normal(size=(B, 5)), "rank": np.array([3, 0, 3, 4, 0, 1])}
    arrays |= {name: normal(size=B) for name in ("value", "target")}
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    logit_losses = ["cross_entropy", "text_image_kl", "info_nce", "fcrc"]
    for name in [*logit_losses, "l1", "mse", "huber"]:
        loss = binding.configured(jaxord.losses, {"name": name, "weight": 3.0})
        assert binding.bind(loss, arrays).shape == ()
    weighted = binding.bind(jaxord.losses.l1, arrays | {"weight": jnp.linspace(0, 2, B)})
    assert weighted != binding.bind(jaxord.losses.l1, arrays)
    with pytest.raises(ValueError, match="Did you mean 'direction'"):
        binding.configured(jaxord.losses, {"name": "fcrc", "directions": "i2t"})
    with pytest.raises(ValueError, match="has no 'negative_log_share'"):
        binding.lookup(jaxord.losses, "negative_log_share")
