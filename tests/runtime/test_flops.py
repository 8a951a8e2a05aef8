"""FLOPs read off a jaxpr: by hand on small functions and on a small tower, and the published number
of a whole one."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive

from jaxord.models import clip
from jaxord.models.variants import VARIANTS
from jaxord.runtime import flops


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def tower(settings, images=1):
    """(function of (parameters, image), their shapes) of CLIP's image tower."""
    model, image = (
        clip.VisionModel(settings),
        array(images, settings.image_size, settings.image_size, 3),
    )
    return model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image


def test_products_count_twice_their_multiply_adds():
    assert flops.count(jnp.matmul, array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7
    scores = functools.partial(jnp.einsum, "bqhd,bkhd->bhqk")
    assert flops.count(scores, array(2, 3, 4, 5), array(2, 6, 4, 5)) == 2 * (2 * 3 * 4 * 5 * 6)
    assert flops.count(lambda x: jnp.tanh(x + x).sum(), array(3, 5)) == 0


def test_loops_count_as_often_as_they_run_and_branches_by_the_costliest():
    def loop(x):
        return jax.lax.scan(lambda y, _: (jax.jit(jnp.matmul)(y, y), None), x, None, length=9)[0]

    def branch(x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert flops.count(loop, array(4, 4)) == 9 * 2 * 4**3
    assert flops.count(branch, array(4, 4)) == 2 * 2 * 4**3
    with pytest.raises(ValueError, match="'while' cannot be read"):
        flops.count(
            lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x), array(4, 4)
        )


def test_convolutions_and_their_gradients():
    def convolve(image, kernel, stride=4, groups=1):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    image, kernel = array(2, 16, 16, 6), array(4, 4, 6, 8)
    work = 2 * (2 * 4 * 4 * 8) * (4 * 4 * 6)
    assert flops.count(convolve, image, kernel) == work
    for argument in (
        0,
        1,
    ):  # without the zeros between the pixels of the strided convolution's gradient
        gradient = jax.grad(lambda *x: convolve(*x).sum(), argument)
        assert flops.count(gradient, image, kernel) == 2 * work
    assert flops.count(functools.partial(convolve, groups=3), image, array(4, 4, 2, 9)) == 2 * (
        2 * 4 * 4 * 9
    ) * (4 * 4 * 2)


def test_fused_attention_counts_as_what_it_fuses():
    fused = Primitive("dot_product_attention_fwd_wrapper")
    fused.def_abstract_eval(lambda q, k, v: q)
    written = flops.count(jax.nn.dot_product_attention, *[array(2, 10, 4, 8)] * 3)
    assert (
        flops.count(lambda *x: fused.bind(*x), *[array(2, 10, 4, 8)] * 3)
        == written
        == 2 * 2 * (2 * 4 * 10 * 10 * 8)
    )


def test_a_tower_by_hand():
    settings = clip.ClipSettings(
        vision=clip.Tower(width=24, layers=2, heads=3, mlp=40),
        text=clip.Tower(width=16, layers=1, heads=2, mlp=24),
        image_size=16,
        patch_size=8,
        vocab_size=30,
        max_positions=12,
        projection_dim=8,
        eos_token_id=29,
    )
    apply, parameters, image = tower(settings, images=3)
    tokens, width, mlp = 5, 24, 40
    patches = 2 * 4 * width * (8 * 8 * 3)
    dense, products = 2 * tokens * (4 * width**2 + 2 * width * mlp), 2 * 2 * tokens**2 * width
    forward = 3 * (patches + 2 * (dense + products))
    assert flops.count(apply, parameters, image) == forward

    def loss(trained, frozen):
        return apply({"params": {**frozen, **trained}}, jnp.zeros(image.shape)).sum()

    every = parameters["params"]
    # Training doubles each product once for what flows back and once for the weights; nothing flows
    # to the pixels.
    whole = flops.count(jax.grad(loss), every, {})
    assert whole == 3 * forward - 3 * patches
    # With the layers frozen what flows back must still pass them, but their weights have no
    # gradient.
    part = {"embeddings": every["embeddings"]}
    rest = {name: value for name, value in every.items() if name != "embeddings"}
    assert flops.count(jax.grad(loss), part, rest) == whole - 3 * 2 * dense
    # With the embeddings frozen and only the last norm trained, nothing goes back at all.
    part, rest = (
        {n: v for n, v in every.items() if (n == "post_layernorm") is wanted}
        for wanted in (True, False)
    )
    assert flops.count(jax.grad(loss), part, rest) == forward


def test_vit_b_16_has_its_published_work():
    apply, parameters, image = tower(VARIANTS["ViT-B/16"])
    # Dosovitskiy's ViT-B/16 has 17.6 G multiply-adds at 224 pixels (without CLIP's projection).
    assert flops.count(apply, parameters, image) / 2 == pytest.approx(17.6e9, rel=0.005)
