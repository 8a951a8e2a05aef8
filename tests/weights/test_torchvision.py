"""ResNet and VGG against torch modules written from torchvision's definition, their files there and
back, and refusals."""

import copy
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxord import trees
from jaxord.models import resnet, vgg
from jaxord.weights import torchvision

torch = pytest.importorskip("torch")
tnn = torch.nn


class TorchBlock(tnn.Module):
    """torchvision's BasicBlock and Bottleneck (v1.5)."""

    def __init__(self, inside, width, stride, bottleneck):
        super().__init__()
        if bottleneck:
            self.conv1 = tnn.Conv2d(inside, width, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(width)
            self.conv2 = tnn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(width)
            self.conv3 = tnn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = tnn.BatchNorm2d(4 * width)
        else:
            self.conv1 = tnn.Conv2d(inside, width, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(width)
            self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(width)
        self.bottleneck, outside = bottleneck, 4 * width if bottleneck else width
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = tnn.Sequential(
                tnn.Conv2d(inside, outside, 1, stride, bias=False), tnn.BatchNorm2d(outside)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(torch.relu(out)))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(tnn.Module):
    def __init__(self, depth):
        super().__init__()
        bottleneck, blocks = {18: (False, (2, 2, 2, 2)), 50: (True, (3, 4, 6, 3))}[depth]
        self.conv1 = tnn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = tnn.BatchNorm2d(64)
        self.maxpool = tnn.MaxPool2d(3, 2, 1)
        inside = 64
        for i, count in enumerate(blocks):
            layer, width = [], 64 * 2**i
            for j in range(count):
                layer.append(TorchBlock(inside, width, 2 if i and not j else 1, bottleneck))
                inside = 4 * width if bottleneck else width
            setattr(self, f"layer{i + 1}", tnn.Sequential(*layer))
        self.fc = tnn.Linear(inside, 1000)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))  # the input of fc


class TorchVGG(tnn.Module):
    def __init__(self, stages, hidden):
        super().__init__()
        layers, inside = [], 3
        for widths in stages:
            for width in widths:
                layers += [tnn.Conv2d(inside, width, 3, padding=1), tnn.ReLU()]
                inside = width
            layers.append(tnn.MaxPool2d(2, 2))
        self.features = tnn.Sequential(*layers)
        self.avgpool = tnn.AdaptiveAvgPool2d((7, 7))
        self.classifier = tnn.Sequential(
            tnn.Linear(inside * 49, hidden),
            tnn.ReLU(),
            tnn.Dropout(),
            tnn.Linear(hidden, hidden),
            tnn.ReLU(),
            tnn.Dropout(),
            tnn.Linear(hidden, 1000),
        )

    def forward(self, x):
        return self.classifier[:6](
            torch.flatten(self.avgpool(self.features(x)), 1)
        )  # the input of classifier.6


FULL = dict(stages=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3), hidden=4096)
NARROW = dict(
    stages=((4, 6), (8, 6), (6, 8, 10), (8, 12, 10), (12, 10, 8)), hidden=24
)  # as deep, thin enough for a test
MODELS = {"resnet18": resnet.ResNet(18), "resnet50": resnet.ResNet(50), "vgg": vgg.VGG(**NARROW)}


def shapes_of(model, size=32):
    """Flat parameters and statistics together, as ShapeDtypeStructs."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, size, size, 3)))
    return trees.flatten(variables["params"]) | trees.flatten(variables.get("stats", {}))


def collections(flat):
    stats = {path: x for path, x in flat.items() if path.split("/")[-1] in ("mean", "var")}
    return trees.unflatten(
        {path: x for path, x in flat.items() if path not in stats}
    ), trees.unflatten(stats)


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """Our model, torch's in float64, the file of its weights, and what we loaded from it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name = request.param
    theirs = TorchVGG(**NARROW) if name == "vgg" else TorchResNet(int(name[6:]))
    with torch.no_grad():
        for (
            key,
            x,
        ) in theirs.state_dict().items():  # as if trained: scales, biases and statistics matter
            if key.endswith("running_var"):
                x.uniform_(0.5, 2.0)
            elif key.endswith("running_mean") or x.ndim == 1 and key.endswith("bias"):
                x.normal_(0, 0.3)
            elif x.ndim == 1:
                x.uniform_(0.3, 1.0)
            elif x.ndim > 1:
                x.normal_(0, (2 / x[0].numel()) ** 0.5)
    file = tmp_path_factory.mktemp(name) / "weights.safetensors"
    save_file({key: x.numpy() for key, x in theirs.state_dict().items()}, file)
    return MODELS[name], theirs.double(), file, torchvision.load(file, shapes_of(MODELS[name]))


def images(height, width, n=4):
    return np.random.default_rng(1).normal(size=(n, height, width, 3)).astype(np.float32)


def to_torch(image):
    return torch.tensor(image, dtype=torch.float64).permute(0, 3, 1, 2)


def close(found, expected, tolerance, name=""):
    """Both of any size, relative to the largest expected value."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name
    )


def quick_jit(function):
    """Runs once: compiling counts for more than the speed of the code."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def test_features_in_evaluation_are_torchs(case):
    """Odd maps, down to 2 x 1 (repeated by VGG's pool). Within 5e-6 of the largest (measured
    5.2e-7)."""
    model, theirs, _, flat = case
    params, stats = collections(flat)
    image = images(45, 32, n=2)
    found = quick_jit(model.apply)({"params": params, "stats": stats}, image)
    assert found.dtype == jnp.float32
    with torch.no_grad():
        close(found, theirs.eval()(to_torch(image)), 5e-6)


def test_a_training_step_is_torchs(case, monkeypatch):
    """Features, gradients and running statistics; measured 8.1e-6, 5.6e-5, 1.0e-6 (ResNet-50),
    hence the tolerances.

    With silu for relu on both sides: where rounding moves one activation of a 2 x 2 map over relu's
      kink, the gradient jumps by
    1e-2, torch's own between float32 and float64 too. VGG is compared without dropout, which torch
    draws otherwise.
    """
    monkeypatch.setattr(resnet.nn, "relu", jax.nn.silu)
    monkeypatch.setattr(torch, "relu", tnn.functional.silu)
    model, theirs, _, flat = case
    params, stats = collections(flat)
    image, train = images(40, 48), not isinstance(model, vgg.VGG)

    def loss(params):
        variables = {"params": params, "stats": stats}
        features, new = (
            model.apply(variables, image, mutable=["stats"])
            if train
            else (model.apply(variables, image), {})
        )
        return jnp.sum(jnp.tanh(features) ** 2), (features, trees.flatten(new.get("stats", {})))

    gradients, (features, new) = jax.device_get(quick_jit(jax.grad(loss, has_aux=True))(params))
    theirs = copy.deepcopy(theirs).train(train)
    expected = theirs(to_torch(image))
    (torch.tanh(expected) ** 2).sum().backward()
    close(features, expected.detach(), 1e-4)
    parameters = {
        name: p for name, p in theirs.named_parameters() if p.grad is not None
    }  # all but the ignored head's
    gradients = trees.flatten(gradients)
    assert parameters.keys() == {torchvision.source_name(path) for path in gradients}
    for path, gradient in gradients.items():
        gradient = torchvision.to_source(path, gradient)
        close(gradient, parameters[torchvision.source_name(path)].grad, 5e-4, path)
    assert len(new) == len(trees.flatten(stats))
    for path, x in new.items():
        assert np.abs(x - flat[path]).max() > 1e-3, path
        close(x, theirs.get_buffer(torchvision.source_name(path)), 1e-5, path)


def test_export_of_import_is_the_same_bytes_and_loads_into_torch(case, tmp_path):
    _, theirs, file, flat = case
    torchvision.save(tmp_path / "new" / "weights.safetensors", flat)
    stored, saved = load_file(file), load_file(tmp_path / "new" / "weights.safetensors")
    heads = {name for name in stored if name.startswith(("fc.", "classifier.6."))}
    counters = {name for name in stored if name.endswith("num_batches_tracked")}
    assert len(heads) == 2 and saved.keys() == stored.keys() - heads - counters
    assert all(saved[name].tobytes() == stored[name].tobytes() for name in saved)
    theirs = copy.deepcopy(theirs)
    if isinstance(theirs, TorchVGG):
        theirs.classifier[6] = tnn.Identity()
    else:
        theirs.fc = tnn.Identity()
    theirs.load_state_dict({name: torch.tensor(x) for name, x in saved.items()}, strict=True)


@pytest.mark.parametrize(
    "model, make, count, head",
    [
        (resnet.ResNet(18), lambda: TorchResNet(18), 11_689_512, 512 * 1000 + 1000),
        (resnet.ResNet(50), lambda: TorchResNet(50), 25_557_032, 2048 * 1000 + 1000),
        (vgg.VGG(), lambda: TorchVGG(**FULL), 138_357_544, 4096 * 1000 + 1000),
    ],
    ids=MODELS,
)
def test_full_size_has_torchvisions_names_shapes_and_count(model, make, count, head):
    """The counts are those that torchvision publishes, with its head."""
    with torch.device("meta"):
        theirs = make()
    assert sum(p.numel() for p in theirs.parameters()) == count
    ours = shapes_of(model)
    params = trees.flatten(collections(ours)[0])
    assert sum(math.prod(s.shape) for s in params.values()) == count - head
    expected = {
        name: tuple(x.shape)
        for name, x in theirs.state_dict().items()
        if not torchvision.IGNORED.fullmatch(name)
    }
    nothing = np.float32(0)
    assert expected == {
        torchvision.source_name(path): torchvision.to_source(
            path, np.broadcast_to(nothing, s.shape)
        ).shape
        for path, s in ours.items()
    }


@pytest.mark.parametrize("height, width", [(2, 3), (7, 7), (9, 15)])
def test_adaptive_average_is_torchs(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    found = quick_jit(lambda x: vgg.adaptive_average(x, 7))(x)
    close(found, tnn.functional.adaptive_avg_pool2d(to_torch(x), 7).permute(0, 2, 3, 1), 1e-6)


SMALL = {
    "conv1/kernel": (3, 3, 2, 4),
    "bn1/scale": (4,),
    "bn1/mean": (4,),
    "classifier/0/kernel": (49 * 2, 5),
}
WANTED = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SMALL.items()}


def small(tmp_path, **changes):
    """A file of four arrays, changed: None removes one."""
    arrays = {
        "conv1.weight": np.ones((4, 2, 3, 3)),
        "bn1.weight": np.ones(4),
        "bn1.running_mean": np.ones(4),
        "classifier.0.weight": np.ones((5, 98)),
    }
    arrays = {name: x.astype(np.float32) for name, x in arrays.items()} | changes
    file = tmp_path / "small.safetensors"
    save_file({name: x for name, x in arrays.items() if x is not None}, file)
    return file


def test_the_flattened_map_is_permuted(tmp_path):
    theirs = np.arange(5 * 98, dtype=np.float32).reshape(5, 98)
    found = torchvision.load(small(tmp_path, **{"classifier.0.weight": theirs}), WANTED)[
        "classifier/0/kernel"
    ]
    for channel, y, x in ((0, 0, 0), (1, 2, 3), (0, 6, 5)):  # torch: channel slowest; ours: fastest
        np.testing.assert_array_equal(
            found[(7 * y + x) * 2 + channel], theirs[:, 49 * channel + 7 * y + x]
        )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    found = torchvision.load(
        small(tmp_path, **{"bn1.weight": np.asarray([1, 2, 3, 0.5], dtype)}), WANTED
    )["bn1/scale"]
    assert found.dtype == np.float32 and found.tolist() == [1, 2, 3, 0.5]


def test_every_fault_is_reported_at_once(tmp_path):
    ignored = {
        "fc.weight": np.ones(3),
        "classifier.6.bias": np.ones(3),
        "bn1.num_batches_tracked": np.ones(()),
    }
    file = small(
        tmp_path,
        **ignored,
        **{
            "bn1.running_mean": None,
            "bn9.bias": np.ones(2),
            "conv1.weight": np.ones((4, 2, 5, 5)),
            "bn1.weight": np.ones(4, np.int32),
            "classifier.0.weight": np.full((5, 98), np.nan),
        },
    )
    with pytest.raises(ValueError) as error:
        torchvision.load(file, WANTED)
    assert str(error.value).splitlines() == [
        f"the weights in {file} do not fit the model",
        "  missing: bn1.running_mean, our bn1/mean",
        "  unexpected: bn9.bias",
        "  bn1.weight: int32 in the weights, expected floating point",
        "  classifier.0.weight: not finite in the weights",
        "  conv1.weight: shape (5, 5, 2, 4) in the weights, (3, 3, 2, 4) in the model "
        "(as conv1/kernel)",
    ]


def test_a_flattened_map_of_another_size_is_a_fault_of_shape(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"classifier.0.weight: shape \(50, 5\) in the weights, \(98, 5\) in the model",
    ):
        torchvision.load(small(tmp_path, **{"classifier.0.weight": np.ones((5, 50))}), WANTED)


def test_what_is_no_safetensors_file_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"no weights at '.*none.safetensors'.*save_file"):
        torchvision.load(tmp_path / "none.safetensors", WANTED)
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "resnet.pth")
    with pytest.raises(
        ValueError,
        match=r"resnet.pth cannot be read as safetensors .*Pickled weights.*never loaded",
    ):
        torchvision.load(tmp_path / "resnet.pth", WANTED)
