"""Parameter groups, learning-rate schedules and one optax transformation over the trained
parameters.

A parameter belongs to the first group of `config.optim.groups` whose pattern matches its whole
path, and `config.optim.rates` gives the group its learning rate and weight decay. "frozen" is
reserved: the optimiser never sees those parameters.
"""

import math
import re

import jax
import jax.numpy as jnp
import optax

from jaxord import trees
from jaxord.binding import did_you_mean


def steps(duration, batch, examples, total=None):
    """The number of training steps that a duration stands for.

    Args:
      duration: "100 epochs", "500 steps", "2560 examples" or "5 percent" (of `total`); fractions
        are welcome.
      batch: examples of one step.
      examples: examples of one epoch. Batches run on across its end, so an epoch is examples /
        batch steps.
      total: steps of the whole training; only percentages need it.

    Returns:
      int: the nearest number of steps, and at least 1 where the duration is not zero.

    Raises:
      ValueError: any other text, more than 100 percent, or a percentage where no total is known.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) (epoch|step|example|percent)s?", str(duration))
    if not match:
        raise ValueError(
            f"the duration is {duration!r}, expected '9 epochs', '50 steps', '90 examples' or '5 percent'"
        )
    number, unit = float(match[1]), match[2]
    if unit == "percent" and (total is None or number > 100):
        why = "it is more than all of it" if number > 100 else "how long that is, is not known here"
        raise ValueError(
            f"{duration!r} is a share of the training, and {why}; give it in epochs, steps or examples"
        )
    of_unit = dict(epoch=examples / batch, step=1, example=1 / batch, percent=(total or 0) / 100)
    return max(round(number * of_unit[unit]), 1) if number else 0


def schedule(optim_config, total_steps, steps_of):
    """The factor by which every group's learning rate is multiplied at a step.

        factor = rise * shape,  rise = s + (1 - s) step / W while step < W, then 1; or s while step < W, then 1
        constant    shape = 1
        cosine      shape = f + (1 - f) (1 + cos(pi (step - W) / (T - W))) / 2, from 1 after the warm-up to f at T
        multi_step  shape = gamma ^ (number of milestones <= step), counted from step 0, not from the warm-up's end

    with s warmup_start, W the warm-up's steps (warmup_shape linear or constant), f final, T
    total_steps. While step < idle_steps the factor is 0. Without a warm-up these are torch's
    CosineAnnealingLR (T_max = T, eta_min = f lr) and MultiStepLR; the warm-up is LinearLR, and
    cosine after it SequentialLR, all of them stepped once a training step.

    Args:
      optim_config: config.optim.
      total_steps: T.
      steps_of: duration -> steps (`functools.partial(steps, batch=..., examples=..., total=...)`).

    Returns:
      A function, step (int or i32[]) -> f32[].

    Raises:
      ValueError: an unknown schedule, a warm-up that leaves no step, multi_step without milestones.
    """
    o = optim_config
    warmup, milestones = steps_of(o.warmup), [steps_of(m) for m in o.milestones]
    start, final, gamma, idle = o.warmup_start, o.final, o.gamma, o.idle_steps
    _known("optim.schedule", o.schedule, ("constant", "cosine", "multi_step"))
    _known("optim.warmup_shape", o.warmup_shape, ("linear", "constant"))
    if warmup and warmup >= total_steps:
        raise ValueError(
            f"optim.warmup {o.warmup!r} is {warmup} steps, expected fewer than all {total_steps} of them"
        )
    if o.schedule == "multi_step" and not milestones:
        raise ValueError(
            "optim.milestones is empty; the schedule 'multi_step' needs durations like ('60 epochs',)"
        )

    def factor(step):
        step = jnp.asarray(step, jnp.float32)
        shape = 1.0
        if o.schedule == "cosine":
            # (1 + cos(pi p)) / 2 = sin^2(pi (1 - p) / 2), which keeps its digits in float32 near
            # the end.
            left = jnp.clip((total_steps - step) / max(total_steps - warmup, 1), 0.0, 1.0)
            shape = final + (1 - final) * jnp.sin(jnp.pi / 2 * left) ** 2
        elif o.schedule == "multi_step":
            shape = gamma ** jnp.sum(step >= jnp.array(milestones, jnp.float32)).astype(jnp.float32)
        share = step / max(warmup, 1) if o.warmup_shape == "linear" else 0.0
        rise = jnp.where(step < warmup, start + (1 - start) * share, 1.0)
        return jnp.where(step < idle, 0.0, rise * shape)

    return factor


def split(flat_params, optim_config):
    """Sorts parameters into trained and frozen ones.

    Args:
      flat_params: path -> array (or anything else, shapes are not looked at).
      optim_config: config.optim, of which `groups` and `rates` are used.

    Returns:
      (trained, frozen, group_of_path): two flat dicts that share out `flat_params`, and path ->
      group of all of them.

    Raises:
      ValueError: a parameter without a group, a pattern without a parameter, a group without rates,
        rates without a parameter, a misspelt rate; the message lists all of its kind.
    """
    rules = [(entry["parameters"], entry["group"]) for entry in optim_config.groups]
    group_of_path = trees.first_match(flat_params, rules)
    groups, rates = dict.fromkeys(group_of_path.values()), optim_config.rates
    lines = [f"group without rates: {g}" for g in groups if g != "frozen" and g not in rates]
    lines += [f"rates without a parameter: {g}" for g in rates if g == "frozen" or g not in groups]
    lines += [
        f"rates of {g}: found {sorted(rates[g])}, expected lr and, if not 0, weight_decay"
        for g in rates
        if "lr" not in rates[g] or set(rates[g]) - {"lr", "weight_decay"}
    ]
    if lines:
        raise ValueError(
            f"optim.rates does not fit the groups {list(groups)}\n  " + "\n  ".join(lines)
        )
    trained = {path: x for path, x in flat_params.items() if group_of_path[path] != "frozen"}
    frozen = {path: x for path, x in flat_params.items() if group_of_path[path] == "frozen"}
    return trained, frozen, group_of_path


def make(optim_config, group_of_path, factor, rates=None):
    """The optimiser of the trained parameters.

    "adam" and "sgd" add weight_decay * p to the gradient first, as torch's do; "adamw" and "radam"
    subtract lr * factor * weight_decay * p from the parameter. `clip` scales all trained gradients
    down to that global norm before anything else. In the first `idle_steps` steps the moments
    accumulate and no parameter changes, nor decays.

    Args:
      optim_config: config.optim.
      group_of_path: path -> group, as `split` gives it; frozen paths are left out.
      factor: step -> f32[], as `schedule` gives it; it is where idle_steps enters.
      rates: {group: {"lr": number or f32[], "weight_decay": likewise}} in place of the config's.

    Returns:
      optax.GradientTransformation over the flat dict of the trained parameters.

    Trap: the schedule reads the optimiser's own count, so starting the optimiser again starts the
      schedule again.
    """
    _known("optim.name", optim_config.name, ("adam", "adamw", "sgd", "radam"))
    labels = {path: group for path, group in group_of_path.items() if group != "frozen"}
    rates = rates or optim_config.rates
    rules = {g: _rule(optim_config, factor, **rates[g]) for g in dict.fromkeys(labels.values())}
    rule = optax.partition(rules, labels)
    return (
        optax.chain(optax.clip_by_global_norm(optim_config.clip), rule)
        if optim_config.clip
        else rule
    )


def describe(flat_params, group_of_path, optim_config):
    """One line for each group, frozen included: tensors, parameters, learning rate, weight
    decay."""
    lines = []
    for group in dict.fromkeys(group_of_path.values()):
        sizes = [
            math.prod(x.shape) for path, x in flat_params.items() if group_of_path[path] == group
        ]
        rates = "not trained"
        if group != "frozen":
            rate = optim_config.rates[group]
            rates = f"lr {rate['lr']:g}, weight decay {rate.get('weight_decay', 0.0):g}"
        lines.append(f"{group:<12} {len(sizes):>5} tensors {sum(sizes):>13,} parameters  {rates}")
    return lines


def _known(field, found, names):
    if found not in names:
        hint = did_you_mean(found, names, " ")
        raise ValueError(f"{field} is {found!r}, expected one of {names}. {hint}".rstrip())


def _rule(optim_config, factor, lr, weight_decay=0.0):
    """The transformation of one group."""
    name, b1, b2, eps = (optim_config[k] for k in ("name", "b1", "b2", "eps"))
    decay = optax.add_decayed_weights(weight_decay)
    rate = optax.scale_by_learning_rate(lambda step: lr * factor(step))
    if name == "sgd":
        return optax.chain(decay, optax.trace(optim_config.momentum), rate)
    if name == "adam":
        return optax.chain(decay, optax.scale_by_adam(b1, b2, eps), rate)
    moments = optax.scale_by_adam(b1, b2, eps) if name == "adamw" else scale_by_radam(b1, b2, eps)
    return optax.chain(moments, decay, rate)


def scale_by_radam(b1=0.9, b2=0.999, eps=1e-8):
    """Rectified Adam as OrdinalCLIP runs it.

        m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  n = (1 + b2) / (1 - b2),  n_t = n - 2 t b2^t / (1 - b2^t)
        n_t >= 5:  r sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)
                   with r^2 = (n_t - 4) (n_t - 2) n / ((n - 4) (n - 2) n_t)
        n_t < 5:   m / (1 - b1^t), which `idle_steps` = 5 suppresses (b2 = .999: n_5 = 4.996, n_6 = 5.994)

    Liu et al. 2020, Algorithm 2. Two things differ from optax.radam: eps stands beside sqrt(v), not
    beside the bias-corrected root, and n_t keeps its digits: 1999 - 1993.006 in float32 makes steps
    6 and 7 0.6 % too short. With x = -t log b2, 2 t / (exp(x) - 1) = 2 t / x - t + t (x / 6 - x^3 /
    360 + ...), whose first terms cancel against n and leave n_t = t + small things.
    """
    a, longest = -math.log(b2), (1 + b2) / (1 - b2)
    offset = longest - 2 / a

    def init(params):
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)

    def update(grads, state, params=None):
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        count = optax.safe_increment(state.count)
        t = count.astype(jnp.float32)
        x = a * t
        early = t + offset - t * (x / 6 - x**3 / 360 + x**5 / 15120 - x**7 / 604800)
        length = jnp.where(x < 1, early, longest - 2 * t / jnp.expm1(x))
        n = jnp.maximum(length, 5.0)  # no root of a negative number in the branch that is not taken
        rectified = jnp.sqrt(
            (n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n) * -jnp.expm1(-x)
        )

        def step(m, v):
            return jnp.where(length >= 5, rectified * m / (jnp.sqrt(v) + eps), m) / (1 - b1**t)

        return jax.tree.map(step, mu, nu), optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)
