"""Optimisers and schedules against torch's, RAdam against a float64 loop, durations and groups by
hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs.base import base
from jaxord import optim

torch = pytest.importorskip("torch")

STEPS = 12
GROUPS = (("first/.*", "a"), ("second", "b"), ("third", "frozen"))
RATES = dict(a=dict(lr=1e-2, weight_decay=0.1), b=dict(lr=1e-3))
STEPS_OF = functools.partial(optim.steps, batch=10, examples=100)


def unchanged(step):
    return 1.0


def config(**fields):
    c = base().optim
    c.groups = tuple(ConfigDict(dict(parameters=p, group=g)) for p, g in GROUPS)
    c.rates = ConfigDict(RATES, type_safe=False)
    for name, value in fields.items():
        c[name] = value
    return c


def problem(seed=0, scale=1.0):
    """Initial parameters and STEPS gradients, float32."""
    draw = np.random.default_rng(seed)
    shapes = {"first/w": (3, 4), "second": (5,)}

    def new():
        return {k: draw.normal(size=s).astype(np.float32) for k, s in shapes.items()}

    return new(), [{k: scale * g for k, g in new().items()} for _ in range(STEPS)]


def run(c, factor, params, gradients):
    """The parameters after each step, as float32 numpy."""
    optimizer = optim.make(c, {"first/w": "a", "second": "b", "third": "frozen"}, factor)
    state, seen = optimizer.init(params), []

    @jax.jit
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for g in gradients:
        params, state = step(params, state, g)
        seen.append({k: np.asarray(v) for k, v in params.items()})
    return seen


def torch_run(make, params, gradients, make_scheduler=None, clip=0.0):
    """The same by torch, in float64 so that only our own rounding shows."""
    tensors = {
        k: torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for k, v in params.items()
    }
    groups = [
        dict(params=[tensors["first/w"]], lr=1e-2, weight_decay=0.1),
        dict(params=[tensors["second"]], lr=1e-3),
    ]
    optimizer, seen = make(groups), []
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    for g in gradients:
        for k, t in tensors.items():
            t.grad = torch.tensor(g[k], dtype=torch.float64)
        if clip:
            torch.nn.utils.clip_grad_norm_(tensors.values(), clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
        seen.append({k: t.detach().numpy().copy() for k, t in tensors.items()})
    return seen


def worst(ours, theirs):
    return max(np.max(np.abs(a[k] - b[k])) for a, b in zip(ours, theirs, strict=True) for k in a)


TORCH = dict(
    adam=lambda groups: torch.optim.Adam(groups, weight_decay=0.0),
    adamw=lambda groups: torch.optim.AdamW(groups, weight_decay=0.0),
    sgd=lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.0),
)


@pytest.mark.parametrize("name", TORCH)
def test_optimiser_is_torchs(name):
    params, gradients = problem()
    ours = run(config(name=name), unchanged, params, gradients)
    # Measured 5.7e-7, 4.6e-7, 2.3e-7: roundings of parameters around 2.
    assert worst(ours, torch_run(TORCH[name], params, gradients)) < 1.5e-6


def test_decay_is_coupled_in_adam_and_decoupled_in_adamw():
    params, gradients = problem()
    adam, adamw = (run(config(name=n), unchanged, params, gradients) for n in ("adam", "adamw"))
    assert worst(adam, adamw) > 1e-3
    # The second has no decay, and there they are one.
    assert all(np.array_equal(a["second"], b["second"]) for a, b in zip(adam, adamw, strict=True))


def test_clip_is_over_all_trained_gradients():
    params, gradients = problem()
    ours = run(config(name="sgd", clip=0.5), unchanged, params, gradients)
    # torch divides by norm + 1e-6; measured 1.9e-7 all the same.
    assert worst(ours, torch_run(TORCH["sgd"], params, gradients, clip=0.5)) < 1e-6
    loose = run(config(name="sgd", clip=1e6), unchanged, params, gradients)
    assert worst(loose, run(config(name="sgd"), unchanged, params, gradients)) == 0


SCHEDULERS = dict(
    constant=(dict(), lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: 1.0)),
    cosine=(dict(final=0.0), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200)),
    multi_step=(
        dict(milestones=("6 epochs", "80 steps", "75 percent"), gamma=0.3),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [60, 80, 150], gamma=0.3),
    ),
)


def torch_factors(make_scheduler, count):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, seen = make_scheduler(optimizer), []
    for _ in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(seen)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedule_is_torchs(name):
    fields, make_scheduler = SCHEDULERS[name]
    factor = optim.rate_factor(
        config(schedule=name, **fields), 200, functools.partial(STEPS_OF, total=200)
    )
    # Measured relative error 2.0e-7, to the last step, where cosine is 6e-5.
    np.testing.assert_allclose(
        jax.vmap(factor)(jnp.arange(200)), torch_factors(make_scheduler, 200), rtol=8e-7
    )


def test_warm_up_then_cosine_is_torchs_sequence():
    c = config(schedule="cosine", warmup="3 epochs", warmup_start=0.2, final=0.001)
    ours = jax.vmap(optim.rate_factor(c, 200, STEPS_OF))(jnp.arange(200))

    def sequence(o):
        rise = torch.optim.lr_scheduler.LinearLR(o, 0.2, 1.0, total_iters=30)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(o, 170, eta_min=0.001)
        return torch.optim.lr_scheduler.SequentialLR(o, [rise, fall], milestones=[30])

    np.testing.assert_allclose(ours, torch_factors(sequence, 200), rtol=8e-7)


def test_warm_up_by_hand():
    factor = optim.rate_factor(
        config(warmup="4 steps", warmup_start=0.2, idle_steps=1), 10, STEPS_OF
    )
    np.testing.assert_allclose(
        [factor(i) for i in range(6)], [0.0, 0.4, 0.6, 0.8, 1.0, 1.0], rtol=1e-6
    )
    flat = config(warmup="4 steps", warmup_start=0.05, warmup_shape="constant")
    np.testing.assert_allclose(
        [optim.rate_factor(flat, 10, STEPS_OF)(i) for i in (0, 3, 4)], [0.05, 0.05, 1.0], rtol=1e-6
    )
    steps = config(schedule="multi_step", milestones=("2 steps", "6 steps"), warmup="4 steps")
    factor = optim.rate_factor(steps, 10, STEPS_OF)
    np.testing.assert_allclose(
        [factor(i) for i in range(7)], [0, 0.25, 0.05, 0.075, 0.1, 0.1, 0.01], rtol=1e-6
    )


def test_cosine_ends_at_final_and_stays():
    factor = optim.rate_factor(config(schedule="cosine", final=0.125), 50, STEPS_OF)
    assert factor(50) == factor(60) == 0.125


def test_schedule_drives_the_optimiser():
    params, gradients = problem()
    c = config(name="adam", schedule="cosine", final=0.1)
    ours = run(c, optim.rate_factor(c, STEPS, STEPS_OF), params, gradients)

    def scheduler(o):
        return torch.optim.lr_scheduler.LambdaLR(
            o, lambda s: 0.1 + 0.9 * (1 + np.cos(np.pi * s / STEPS)) / 2
        )

    assert worst(ours, torch_run(TORCH["adam"], params, gradients, scheduler)) < 1.5e-6


def radam_loop(p, gradients, lr, weight_decay, idle=True, b1=0.9, b2=0.999, eps=1e-8):
    """OrdinalCLIP's recurrence, float64."""
    p, m, v, seen = p.astype(np.float64), 0.0, 0.0, []
    longest = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, 1):
        g = g.astype(np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        n = longest - 2 * t * b2**t / (1 - b2**t)
        if n >= 5:
            r = np.sqrt(
                (1 - b2**t) * (n - 4) / (longest - 4) * (n - 2) / n * longest / (longest - 2)
            ) / (1 - b1**t)
            p = p * (1 - lr * weight_decay) - lr * r * m / (np.sqrt(v) + eps)
        elif not idle:
            p = p * (1 - lr * weight_decay) - lr * m / (1 - b1**t)
        seen.append(p)
    return seen


@pytest.mark.parametrize("idle", [5, 0])
@pytest.mark.parametrize("scale", [1.0, 1e-8])  # 1e-8: where eps stands decides the result
def test_radam_is_the_recurrence(idle, scale):
    params, gradients = problem(scale=scale)
    c = config(name="radam", idle_steps=idle)
    ours = run(c, optim.rate_factor(c, STEPS, STEPS_OF), params, gradients)
    for key, rates in (("first/w", RATES["a"]), ("second", dict(lr=1e-3, weight_decay=0.0))):
        expected = radam_loop(params[key], [g[key] for g in gradients], idle=idle > 0, **rates)
        for t, value in enumerate(expected):
            # Measured 3.5e-7: the rounding of parameters around 2; a step is about lr = 1e-2 or
            # 1e-3.
            np.testing.assert_allclose(ours[t][key], value, rtol=0, atol=1e-6)
            if t < idle:
                assert np.array_equal(ours[t][key], params[key])  # no step and no decay


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999])
def test_radam_rectification_keeps_its_digits(b2):
    rule = optim.scale_by_radam(0.9, b2, eps=0.0)
    state = rule.init(jnp.zeros(()))
    update = jax.jit(rule.update)
    for t in (1, 5, 6, 7, 100, 999, 1001, 30000):
        # Moments that are 1 after this update, so that the update is the step size itself.
        at = state._replace(count=jnp.int32(t - 1), mu=jnp.float32(1), nu=jnp.float32(1))
        ours = float(update(jnp.float32(1), at)[0])
        longest, b2t = 2 / (1 - b2) - 1, np.float64(b2) ** t
        n = longest - 2 * t * b2t / (1 - b2t)
        r = (
            np.sqrt((n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n) * (1 - b2t))
            if n >= 5
            else 1.0
        )
        # Measured 2.9e-7.
        np.testing.assert_allclose(ours, r / (1 - 0.9**t), rtol=1e-6, err_msg=f"t = {t}")


def test_idle_steps_accumulate_moments():
    params, gradients = problem()
    free = run(config(name="sgd"), unchanged, params, gradients)
    c = config(name="sgd", idle_steps=3)
    idle = run(c, optim.rate_factor(c, STEPS, STEPS_OF), params, gradients)
    assert all(np.array_equal(idle[t][k], params[k]) for t in range(3) for k in params)
    momentum = sum(0.9 ** (3 - t) * gradients[t]["second"] for t in range(4))
    np.testing.assert_allclose(idle[3]["second"], params["second"] - 1e-3 * momentum, atol=1e-7)
    assert worst(idle, free) > 1e-3


@pytest.mark.parametrize(
    "duration, expected",
    [
        ("100 epochs", 1000),
        ("1 epoch", 10),
        ("0.5 epochs", 5),
        ("500 steps", 500),
        ("0 steps", 0),
        ("2560 examples", 256),
        ("3 examples", 1),
        ("5 percent", 15),
        ("100 percent", 300),
        ("0 percent", 0),
    ],
)
def test_durations(duration, expected):
    assert optim.steps(duration, 10, 100, 300) == expected


def test_epochs_run_on_across_batches():
    assert optim.steps("3 epochs", 32, 50) == 5  # 150 examples
    assert optim.steps("1 epochs", 32, 5) == 1


@pytest.mark.parametrize(
    "duration", ["100", "epochs", "-1 epochs", "3 hours", "1e3 steps", "", 100, "5 steps 3"]
)
def test_a_duration_that_is_none(duration):
    with pytest.raises(ValueError, match="expected '9 epochs'"):
        optim.steps(duration, 10, 100, 300)


def test_percent_without_a_total():
    with pytest.raises(ValueError, match="is not known here"):
        optim.steps("5 percent", 10, 100)
    with pytest.raises(ValueError, match="more than all"):
        optim.steps("101 percent", 10, 100, 300)


def test_config_errors():
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        optim.rate_factor(config(schedule="cosin"), 10, STEPS_OF)
    with pytest.raises(ValueError, match="expected one of .'linear', 'constant'."):
        optim.rate_factor(config(warmup_shape="exponential"), 10, STEPS_OF)
    with pytest.raises(ValueError, match="milestones is empty"):
        optim.rate_factor(config(schedule="multi_step"), 10, STEPS_OF)
    with pytest.raises(ValueError, match="'2 epochs' is 20 steps, expected fewer than all 20"):
        optim.rate_factor(config(warmup="2 epochs"), 20, STEPS_OF)
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        optim.make(config(name="adamW"), {"first/w": "a"}, unchanged)


PARAMS = {
    "first/w": np.zeros((3, 4)),
    "first/b": np.zeros(4),
    "second": np.zeros(5),
    "third": np.zeros(()),
}


def test_split_and_describe():
    trained, frozen, groups = optim.split(PARAMS, config())
    assert list(trained) == ["first/w", "first/b", "second"] and list(frozen) == ["third"]
    assert groups == {"first/w": "a", "first/b": "a", "second": "b", "third": "frozen"}
    assert trained["second"] is PARAMS["second"]
    lines = [" ".join(line.split()) for line in optim.describe(PARAMS, groups, config())]
    assert lines == [
        "a 2 tensors 16 parameters lr 0.01, weight decay 0.1",
        "b 1 tensors 5 parameters lr 0.001, weight decay 0",
        "frozen 1 tensors 1 parameters not trained",
    ]


def test_split_reports_everything_that_does_not_fit():
    rates = ConfigDict(
        dict(a=dict(lr=1.0, wd=0.1), c=dict(lr=1.0), frozen=dict(lr=0.0)), type_safe=False
    )
    with pytest.raises(ValueError) as error:
        optim.split(PARAMS, config(rates=rates))
    text = str(error.value)
    assert "group without rates: b" in text
    assert "rates without a parameter: c" in text and "rates without a parameter: frozen" in text
    assert "rates of a: found ['lr', 'wd'], expected lr" in text
    with pytest.raises(ValueError, match="parameter without a rule: fourth"):
        optim.split({**PARAMS, "fourth": np.zeros(1)}, config())


def test_nothing_trained():
    c = config(
        groups=(ConfigDict(dict(parameters=".*", group="frozen")),),
        rates=ConfigDict(type_safe=False),
    )
    trained, frozen, groups = optim.split(PARAMS, c)
    assert not trained and list(frozen) == list(PARAMS)
    optimizer = optim.make(c, groups, unchanged)
    assert optimizer.update({}, optimizer.init({}), {})[0] == {}
