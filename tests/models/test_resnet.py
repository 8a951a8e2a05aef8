"""ResNet and VGG: batch normalisation by hand and on eight devices, training and not,
recomputation, initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord import trees
from jaxord.models import resnet, vgg
from jaxord.runtime import devices

X = np.random.default_rng(0).normal(1.0, 2.0, (16, 3, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(0).normal(size=(8, 32, 40, 3)).astype(np.float32)
NORM = resnet.BatchNorm(jnp.float32)
VARIABLES = {
    "params": {
        "scale": jnp.asarray([1.0, 2.0, 0.5, -1.0]),
        "bias": jnp.asarray([0.0, 1.0, -1.0, 3.0]),
    },
    "stats": {
        "mean": jnp.asarray([0.5, 0.0, -1.0, 2.0]),
        "var": jnp.asarray([1.0, 4.0, 0.25, 2.0]),
    },
}


def test_batch_statistics_in_training_and_how_the_running_ones_move():
    out, new = NORM.apply(VARIABLES, X, mutable=["stats"])
    flat = X.astype(np.float64).reshape(-1, 4)
    mean, var = flat.mean(0), flat.var(0)
    scale, bias = (np.asarray(VARIABLES["params"][name]) for name in ("scale", "bias"))
    np.testing.assert_allclose(out, (X - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    old = VARIABLES["stats"]
    np.testing.assert_allclose(new["stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(
        new["stats"]["var"], 0.9 * old["var"] + 0.1 * flat.var(0, ddof=1), rtol=1e-6
    )


def test_running_statistics_in_evaluation():
    out = NORM.apply(VARIABLES, X)
    mean, var = (np.asarray(VARIABLES["stats"][name]) for name in ("mean", "var"))
    scale, bias = (np.asarray(VARIABLES["params"][name]) for name in ("scale", "bias"))
    np.testing.assert_allclose(out, (X - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    np.testing.assert_allclose(
        NORM.apply(VARIABLES, X[:1]), out[:1], atol=1e-6
    )  # whatever else is in the batch


def test_the_running_statistics_stay_while_parameters_are_drawn():
    for variables in (
        NORM.init(jax.random.key(0), X),
        NORM.apply({}, X, rngs={"params": jax.random.key(0)}, mutable=["params", "stats"])[1],
    ):
        assert variables["stats"]["mean"].tolist() == [0, 0, 0, 0] and variables["stats"][
            "var"
        ].tolist() == [1, 1, 1, 1]
    loaded = NORM.apply(
        {"stats": VARIABLES["stats"]},
        X,
        rngs={"params": jax.random.key(0)},
        mutable=["params", "stats"],
    )[1]
    np.testing.assert_array_equal(loaded["stats"]["mean"], VARIABLES["stats"]["mean"])


def test_bfloat16_activations_have_float32_statistics():
    norm, x = (
        resnet.BatchNorm(jnp.bfloat16),
        (X + 300).astype(jnp.bfloat16),
    )  # bfloat16 sums would lose the variance
    out, new = norm.apply(VARIABLES, x, mutable=["stats"])
    assert out.dtype == jnp.bfloat16 and {s.dtype for s in jax.tree.leaves(new)} == {
        jnp.dtype("float32")
    }
    expected = 0.9 * VARIABLES["stats"]["var"] + 0.1 * np.asarray(x, np.float64).reshape(-1, 4).var(
        0, ddof=1
    )
    np.testing.assert_allclose(new["stats"]["var"], expected, rtol=1e-4)


def test_one_value_a_channel_has_no_variance():
    with pytest.raises(
        ValueError,
        match=r"one value a channel \(a map of shape \[1, 1, 1, 4\]\).*more than one image",
    ):
        NORM.apply(VARIABLES, X[:1, :1, :1], mutable=["stats"])
    assert np.isfinite(NORM.apply(VARIABLES, X[:1, :1, :1])).all()
    assert np.isfinite(NORM.init_with_output(jax.random.key(0), X[:1, :1, :1])[0]).all()


def quick_jit(function):
    """Each runs once or twice: compiling counts for more than the speed of the code."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def draw(module, x):
    """Parameters and statistics as if trained."""
    generator = np.random.default_rng(0)

    def one(path, shape):
        if path.endswith(("scale", "var")):
            return generator.uniform(0.5, 1.5, shape).astype(np.float32)
        return generator.normal(
            0, 0.3 if len(shape) == 1 else (2 / np.prod(shape[:-1])) ** 0.5, shape
        ).astype(np.float32)

    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    flat = {name: trees.flatten(tree) for name, tree in variables.items()}
    return {
        name: trees.unflatten({path: one(path, s.shape) for path, s in tree.items()})
        for name, tree in flat.items()
    }


def training(module):
    """A step: (variables, x) -> flat output, new statistics and gradients."""

    def loss(params, stats, x):
        out, new = module.apply({"params": params, "stats": stats}, x, mutable=["stats"])
        return jnp.sum(jnp.tanh(out) ** 2), {"out": out, **new["stats"]}

    @quick_jit
    def step(variables, x):
        gradients, found = jax.grad(loss, has_aux=True)(variables["params"], variables["stats"], x)
        return trees.flatten({"found": found, "gradients": gradients})

    return step


def test_the_batch_is_the_global_one_on_eight_devices():
    block, found = (
        resnet.Block(4, 2, (1, 3, 1), jnp.float32),
        {},
    )  # a bottleneck with stride and shortcut
    variables, step = draw(block, X), training(block)
    for n in (1, 8):
        mesh = devices.data_mesh(jax.devices()[:n])
        x = devices.put(X, devices.split(mesh))
        found[n] = jax.device_get(step(devices.put(variables, devices.replicated(mesh)), x))
    assert len(found[1]) == 1 + 8 + 12
    for path, expected in found[1].items():  # sums over the batch are added up in another order
        np.testing.assert_allclose(
            found[8][path], expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=path
        )


def test_remat_changes_nothing():
    plain, again = (resnet.Stage(2, 4, 2, (3, 3), jnp.float32, remat) for remat in (False, True))
    variables = draw(plain, X)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), variables, draw(again, X)
    )
    expected, found = (jax.device_get(training(stage)(variables, X)) for stage in (plain, again))
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(
            found[path], expected[path], rtol=0, atol=1e-5 * np.abs(expected[path]).max()
        )


def test_paths_are_torchvisions():
    variables = jax.eval_shape(resnet.ResNet(50).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params, stats = trees.flatten(variables["params"]), trees.flatten(variables["stats"])
    for path, shape in {
        "conv1/kernel": (7, 7, 3, 64),
        "bn1/scale": (64,),
        "bn1/bias": (64,),
        "layer1/0/conv1/kernel": (1, 1, 64, 64),
        "layer1/0/downsample/0/kernel": (1, 1, 64, 256),
        "layer1/0/downsample/1/scale": (256,),
        "layer2/0/conv2/kernel": (3, 3, 128, 128),
        "layer4/2/bn3/bias": (2048,),
    }.items():
        assert params[path].shape == shape
    norms = {path.removesuffix("/scale") for path in params if path.endswith("/scale")}
    assert stats.keys() == {f"{norm}/{name}" for norm in norms for name in ("mean", "var")}


def test_resnet_takes_small_crops_and_gives_float32_features():
    """32 pixels, whose last map is 1 x 1, in bfloat16."""
    model, image = resnet.ResNet(18, dtype=jnp.bfloat16), IMAGE[:4, :, :32]
    features, new = jax.device_get(
        quick_jit(lambda v: model.apply(v, image, mutable=["stats"]))(draw(model, image))
    )
    assert (
        features.shape == (4, 512) and features.dtype == jnp.float32 and np.isfinite(features).all()
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


def test_initial_values_are_hes():
    kernel = quick_jit(lambda: resnet.HE(jax.random.key(0), (7, 7, 3, 64)))()
    np.testing.assert_allclose(
        np.std(np.asarray(kernel)), (2 / (64 * 49)) ** 0.5, rtol=0.03
    )  # fan-out, not fan-in


def test_another_depth_is_refused():
    with pytest.raises(ValueError, match=r"depth 34 is unknown; choose one of \[18, 50\]"):
        jax.eval_shape(resnet.ResNet(34).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


NARROW = dict(stages=((4, 4), (4,)), hidden=200)


def test_vgg_drops_out_in_training_only():
    model = vgg.VGG(**NARROW)
    variables = draw(model, IMAGE)
    plain = np.asarray(quick_jit(model.apply)(variables, IMAGE))
    train = quick_jit(
        lambda v, key: model.apply(v, IMAGE, mutable=["stats"], rngs={"dropout": key})
    )
    dropped, new = jax.device_get(train(variables, jax.random.key(1)))
    alive = (plain > 0).all(0)  # apart from relu's own zeros
    assert not new and alive.sum() > 30 and 0.4 < (dropped[:, alive] == 0).mean() < 0.6
    assert (train(variables, jax.random.key(2))[0] != dropped).any()
    # While parameters are drawn nothing drops out, and no rng is asked for.
    jax.eval_shape(lambda v: model.apply(v, IMAGE, mutable=["params", "stats"]), variables)


def test_vgg_remat_changes_nothing():
    found = []
    for remat in (False, True):
        model = vgg.VGG(remat=remat, **NARROW)
        value = quick_jit(
            jax.value_and_grad(lambda v, model=model: jnp.sum(model.apply(v, IMAGE) ** 2))
        )
        found.append(jax.device_get(value(draw(model, IMAGE))))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max()), *found
    )


def test_vgg_refuses_images_that_vanish():
    with pytest.raises(ValueError, match=r"got \[8, 31, 40, 3\]: use at least 32 pixels a side"):
        jax.eval_shape(vgg.VGG().init, jax.random.key(0), IMAGE[:, :31])
