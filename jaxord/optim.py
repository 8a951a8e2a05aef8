"""Parameter groups, learning-rate schedules and the optimizer of the trained parameters.

A parameter belongs to the first group of `config.optim.groups` whose pattern matches its whole
path; `config.optim.rates` gives the group its learning rate and weight decay. "frozen" is
reserved: the optimizer never sees those parameters.
"""

import math
import re

import jax
import jax.numpy as jnp
import optax

from jaxord import trees
from jaxord.binding import did_you_mean


def steps(duration, batch, examples, total=None):
    """The number of training steps in a duration, at least 1 if it is not zero.

    Args:
      duration: "100 epochs", "500 steps", "2560 examples" or "5 percent"; fractions are welcome.
      batch: examples of one step.
      examples: examples of one epoch, which is examples / batch steps: batches run on across it.
      total: steps of the whole training, which only percentages need.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) (epoch|step|example|percent)s?", str(duration))
    if not match:
        expected = "'9 epochs', '50 steps', '90 examples' or '5 percent'"
        raise ValueError(f"the duration is {duration!r}, expected {expected}")
    number, unit = float(match[1]), match[2]
    if unit == "percent" and (total is None or number > 100):
        reason = "more than all of it" if number > 100 else "and its length is not known here"
        share = f"{duration!r} is a share of the training, {reason}"
        raise ValueError(f"{share}; give it in epochs, steps or examples")
    of_unit = dict(epoch=examples / batch, step=1, example=1 / batch, percent=(total or 0) / 100)
    return max(round(number * of_unit[unit]), 1) if number else 0


def rate_factor(optim_config, total_steps, steps_of):
    """The factor of every group's learning rate: a function of the step, int or i32[] -> f32[].

        factor = rise * shape
        rise        s + (1 - s) step / W (linear) or s (constant) while step < W; then 1
        constant    shape = 1
        cosine      shape = f + (1 - f) (1 + cos(pi (step - W) / (T - W))) / 2, from 1 after the
                    warm-up to f at T
        multi_step  shape = gamma ^ (number of milestones <= step), counted from step 0

    with s warmup_start, W the warm-up's steps, f final, T total_steps; 0 while step < idle_steps.
    Without a warm-up these are torch's CosineAnnealingLR (T_max = T, eta_min = f lr) and
    MultiStepLR; the warm-up is LinearLR, and cosine after it SequentialLR, stepped once a training
    step. `optim_config` is config.optim, `steps_of` gives the steps of a duration.
    """
    o = optim_config
    warmup, milestones = steps_of(o.warmup), [steps_of(m) for m in o.milestones]
    start, final, gamma, idle = o.warmup_start, o.final, o.gamma, o.idle_steps
    _check_known("optim.schedule", o.schedule, ("constant", "cosine", "multi_step"))
    _check_known("optim.warmup_shape", o.warmup_shape, ("linear", "constant"))
    if warmup and warmup >= total_steps:
        expected = f"expected fewer than all {total_steps}"
        raise ValueError(f"optim.warmup {o.warmup!r} is {warmup} steps, {expected}")
    if o.schedule == "multi_step" and not milestones:
        raise ValueError("optim.milestones is empty; 'multi_step' needs some, as ('60 epochs',)")

    def factor(step):
        step = jnp.asarray(step, jnp.float32)
        shape = 1.0
        if o.schedule == "cosine":
            # (1 + cos(pi p)) / 2 = sin^2(pi (1 - p) / 2) keeps its digits in float32 near the end.
            left = jnp.clip((total_steps - step) / max(total_steps - warmup, 1), 0.0, 1.0)
            shape = final + (1 - final) * jnp.sin(jnp.pi / 2 * left) ** 2
        elif o.schedule == "multi_step":
            shape = gamma ** jnp.sum(step >= jnp.array(milestones, jnp.float32)).astype(jnp.float32)
        share = step / max(warmup, 1) if o.warmup_shape == "linear" else 0.0
        rise = jnp.where(step < warmup, start + (1 - start) * share, 1.0)
        return jnp.where(step < idle, 0.0, rise * shape)

    return factor


def split(flat_params, optim_config):
    """Splits flat parameters by config.optim into (trained, frozen, path -> group of all).

    Raises:
      ValueError: a parameter without a group, a pattern without a parameter, a group without rates,
        rates without a parameter, a misspelt rate; the message lists all of its kind.
    """
    rules = [(entry["parameters"], entry["group"]) for entry in optim_config.groups]
    group_of_path = trees.first_match(flat_params, rules)
    groups, rates = dict.fromkeys(group_of_path.values()), optim_config.rates
    # All faults in one message: each one alone would cost the user another start.
    lines = [f"group without rates: {g}" for g in groups if g != "frozen" and g not in rates]
    lines += [f"rates without a parameter: {g}" for g in rates if g == "frozen" or g not in groups]
    lines += [
        f"rates of {g}: found {sorted(rates[g])}, expected lr and, if not 0, weight_decay"
        for g in rates
        if "lr" not in rates[g] or set(rates[g]) - {"lr", "weight_decay"}
    ]
    if lines:
        title = f"optim.rates does not fit the groups {list(groups)}"
        raise ValueError("\n  ".join([title, *lines]))
    frozen = {path: x for path, x in flat_params.items() if group_of_path[path] == "frozen"}
    trained = {path: x for path, x in flat_params.items() if path not in frozen}
    return trained, frozen, group_of_path


def make(optim_config, group_of_path, factor, rates=None):
    """The optax optimizer over the flat dict of the trained parameters.

    "adam" and "sgd" add weight_decay * p to the gradient first, as torch's do; "adamw" and "radam"
    subtract lr * factor * weight_decay * p from the parameter. `clip` scales all trained gradients
    down to that global norm before anything else. In the first `idle_steps` steps moments
    accumulate and no parameter changes or decays.

    `factor` is from `rate_factor`; `rates`, {group: {"lr": number or f32[], "weight_decay":
    likewise}}, stand in place of the config's. Trap: `factor` follows the optimizer's own count, so
    a new optimizer starts it again.
    """
    _check_known("optim.name", optim_config.name, ("adam", "adamw", "sgd", "radam"))
    labels = {path: group for path, group in group_of_path.items() if group != "frozen"}
    rates = rates or optim_config.rates
    rules = {g: _rule(optim_config, factor, **rates[g]) for g in dict.fromkeys(labels.values())}
    rule = optax.partition(rules, labels)
    if not optim_config.clip:
        return rule
    return optax.chain(optax.clip_by_global_norm(optim_config.clip), rule)


def describe(flat_params, group_of_path, optim_config):
    """A line for each group, frozen included: tensors, parameters, learning rate, weight decay."""
    lines = []
    for group in dict.fromkeys(group_of_path.values()):
        sizes = [math.prod(x.shape) for p, x in flat_params.items() if group_of_path[p] == group]
        rates = "not trained"
        if group != "frozen":
            rate = optim_config.rates[group]
            rates = f"lr {rate['lr']:g}, weight decay {rate.get('weight_decay', 0.0):g}"
        lines.append(f"{group:<12} {len(sizes):>5} tensors {sum(sizes):>13,} parameters  {rates}")
    return lines


def _check_known(field, value, names):
    if value not in names:
        hint = did_you_mean(value, names, " ")
        raise ValueError(f"{field} is {value!r}, expected one of {names}. {hint}".rstrip())


def _rule(optim_config, factor, lr, weight_decay=0.0):
    """The transformation of one group."""
    o, decay = optim_config, optax.add_decayed_weights(weight_decay)
    rate = optax.scale_by_learning_rate(lambda step: lr * factor(step))
    if o.name == "sgd":
        return optax.chain(decay, optax.trace(o.momentum), rate)
    moments = (scale_by_radam if o.name == "radam" else optax.scale_by_adam)(o.b1, o.b2, o.eps)
    parts = (decay, moments) if o.name == "adam" else (moments, decay)
    return optax.chain(*parts, rate)


def scale_by_radam(b1=0.9, b2=0.999, eps=1e-8):
    """Rectified Adam as OrdinalCLIP runs it (Liu et al. 2020, Algorithm 2).

        m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
        n = (1 + b2) / (1 - b2),  n_t = n - 2 t b2^t / (1 - b2^t)
        n_t >= 5:  r sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)
                   with r^2 = (n_t - 4) (n_t - 2) n / ((n - 4) (n - 2) n_t)
        n_t < 5:   m / (1 - b1^t), suppressed by idle_steps = 5 (n_6 = 5.994 for b2 = .999)

    Unlike optax.radam, eps is added to sqrt(v), not to the bias-corrected root, and n_t keeps its
    digits: 1999 - 1993.006 in float32 makes steps 6 and 7 0.6 % too short. With x = -t log b2,
    2 t / (exp(x) - 1) = 2 t / x - t + t (x / 6 - x^3 / 360 + ...), whose first terms cancel against
    n and leave n_t = t + small terms.
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
        # No root of a negative number in the branch that is not taken.
        n = jnp.maximum(length, 5.0)
        ratio = (n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n)
        rectified = jnp.sqrt(ratio * -jnp.expm1(-x))

        def step(m, v):
            return jnp.where(length >= 5, rectified * m / (jnp.sqrt(v) + eps), m) / (1 - b1**t)

        return jax.tree.map(step, mu, nu), optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)
