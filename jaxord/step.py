"""The train step of every method: augment, forward, losses, gradient, update."""

import flax
import jax
import jax.numpy as jnp
import optax

from jaxord import losses, trees
from jaxord.binding import bind, configured

# Keeps the random numbers of dropout apart from those of augmentation and initial values.
DROPOUT = 0xD50


@flax.struct.dataclass
class State:
    """All that a run needs to go on. Parameters are flat dicts of path -> array."""

    step: jax.Array  # i32[], steps taken; schedules and the order of the data are functions of it
    trained: dict  # parameters that the optimizer updates
    frozen: dict  # parameters without a gradient
    stats: dict  # running statistics (batch normalisation, feature smoothing), flat too
    opt_state: optax.OptState  # of the optimizer, over `trained` only
    skipped: jax.Array  # i32[2], steps without an update: in a row up to now, and in all

    @property
    def variables(self):
        """{"params": flat dict, "stats": flat dict}, as evaluation takes them."""
        return {"params": {**self.frozen, **self.trained}, "stats": self.stats}


def objective(config, weights=None):
    """The sum of the config's losses: a function of named arrays -> (f32[], {loss name: f32[]}).

    `weights` are {loss name: number or f32[]} in place of the config's.
    """
    terms = {loss["name"]: (configured(losses, loss), loss.get("arrays")) for loss in config.losses}
    weights = weights or loss_weights(config)

    def total(arrays):
        values = {name: bind(loss, arrays, renames) for name, (loss, renames) in terms.items()}
        return sum(weights[name] * value for name, value in values.items()), values

    return total


def loss_weights(config):
    """{loss name: weight}."""
    return {loss["name"]: loss.get("weight", 1.0) for loss in config.losses}


def make_step(
    model, total_loss, optimizer, prepare, *, skips, statistics="update", layout=None, whole=None
):
    """The update as a plain function: step(state, batch, labels, constants) -> (state, metrics).

    Metrics are `loss`, each loss by name without its weight and `gradient_norm` over all trained
    parameters, f32[] each, and `skipped` as in State. Dropout is a function of (constants["seed"],
    step), so runs of different seeds share a program.

    A step whose loss or gradient norm is not finite leaves parameters, statistics and moments as
    they are, and counts. After `skips` of them in a row no step changes anything any more: whoever
    reads the metrics later finds the count, and the State before the first of them.

    Args:
      model, total_loss: from models.ordinal.build and `objective`.
      optimizer: an optax transformation over the trained parameters.
      prepare: (stored batch, labels, constants) -> batch with `image`, `target` and `rank`.
      statistics: "update", or "keep", by which every module behaves as in evaluation, for a new
        head on finished features.
      layout, whole: for split parameters, the State's shardings and that of whole parameters.
    """
    mutables = {"update": ["stats"], "keep": []}
    if statistics not in mutables:
        raise ValueError(f"train.statistics is {statistics!r}; it takes 'update' or 'keep'")

    def placed(tree, sharding):
        # Left alone, the compiler may move activations instead of split parameters.
        return tree if layout is None else jax.lax.with_sharding_constraint(tree, sharding)

    def step(state, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels, constants)}
        key = jax.random.fold_in(jax.random.key(constants["seed"]), DROPOUT)
        dropout = jax.random.fold_in(key, state.step)

        def loss(trained):
            variables = {"params": {**state.frozen, **trained}, "stats": state.stats}
            variables, rngs = trees.nested(placed(variables, whole)), {"dropout": dropout}
            outputs, new = model.apply(variables, arrays, rngs=rngs, mutable=mutables[statistics])
            value, terms = total_loss({**arrays, **outputs})
            return value, (terms, {**state.stats, **trees.flatten(new.get("stats", {}))})

        (value, (terms, stats)), gradients = jax.value_and_grad(loss, has_aux=True)(state.trained)
        gradients = placed(gradients, layout and layout.trained)
        norm, (in_a_row, in_all) = optax.tree.norm(gradients), state.skipped
        # A step without finite numbers changes nothing; after `skips` of them none does.
        good = jnp.isfinite(value) & jnp.isfinite(norm) & (in_a_row < skips)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
        state = state.replace(
            step=state.step + 1,
            trained=_accepted(good, optax.apply_updates(state.trained, updates), state.trained),
            stats=_accepted(good, stats, state.stats),
            opt_state=_accepted(good, opt_state, state.opt_state),
            skipped=jnp.stack([jnp.where(good, 0, in_a_row + 1), in_all + ~good]),
        )
        return state, {"loss": value, **terms, "gradient_norm": norm, "skipped": state.skipped}

    return step


def _accepted(good, new, old):
    """`new` where `good` bool[], else `old`; schedules go on: their count stands for the step."""

    def one(new, old):
        return new if isinstance(new, optax.ScaleByScheduleState) else jnp.where(good, new, old)

    return jax.tree.map(one, new, old, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState))


def repeated(step):
    """The step that makes all updates of a `train_calls` batch and gives the last metrics."""

    def steps(state, batches, labels, constants):
        batches = dict(batches)
        count = batches.pop("steps")

        def one(i, carry):
            batch = {name: array[i] for name, array in batches.items()}
            return step(carry[0], batch, labels, constants)

        first = {name: array[0] for name, array in batches.items()}
        _, metrics = jax.eval_shape(step, state, first, labels, constants)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        # The count is an argument, so that one program serves calls of every length.
        return jax.lax.fori_loop(0, count, one, (state, zeros))

    return steps


def make_train_step(
    model, total_loss, optimizer, prepare, shardings, *, skips, statistics="update", several=False
):
    """The jitted update of `make_step`, with `several` that of `repeated`; donates the old state.

    `shardings` is one that replicates state and metrics, or (tree of the State's, that of the
    metrics): a step gathers split parameters, and each device keeps its part of the gradients.
    """
    layout, whole = shardings if isinstance(shardings, tuple) else (None, shardings)
    settings = {"skips": skips, "statistics": statistics, "layout": layout, "whole": whole}
    step = make_step(model, total_loss, optimizer, prepare, **settings)
    return jax.jit(repeated(step) if several else step, donate_argnums=0, out_shardings=shardings)


def make_forward(model, prepare, names, replicated):
    """The jitted forward(variables, batch, labels, constants) -> {name: array} of these names."""

    def forward(variables, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels, constants)}
        variables = jax.lax.with_sharding_constraint(variables, replicated)
        arrays |= model.apply(trees.nested(variables), arrays)
        wanted = set(names) - constants.keys()
        return {name: value for name, value in arrays.items() if name in wanted}

    return jax.jit(forward, out_shardings=replicated)


@jax.jit
def finite(state):
    """bool[]: whether parameters, statistics and the optimizer's state are all finite."""
    leaves = jax.tree.leaves((state.trained, state.stats, state.opt_state))
    return jnp.array([jnp.isfinite(x).all() for x in leaves]).all()
