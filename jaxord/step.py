"""The train step: augment, forward, losses, gradient, update. One for all methods."""

import flax
import jax
import jax.numpy as jnp
import optax

from jaxord import losses, trees
from jaxord.binding import bind, configured

DROPOUT = (
    0xD50  # keeps the stream of dropout apart from those of augmentation and of initial values
)


@flax.struct.dataclass
class State:
    """All that a run needs to go on. Parameters are flat dicts of path -> array.

    Attributes:
      step: i32[], steps taken; schedules and the order of the data are functions of it.
      trained: parameters the optimizer knows.
      frozen: parameters nobody differentiates.
      stats: running statistics of modules (batch normalisation, feature smoothing), flat as the
        parameters.
      opt_state: of the optimizer, over `trained` only.
      skipped: i32[2], steps that were taken without an update: those in a row up to now, and all.
    """

    step: jax.Array
    trained: dict
    frozen: dict
    stats: dict
    opt_state: optax.OptState
    skipped: jax.Array

    @property
    def variables(self):
        """Parameters and statistics as the evaluation takes them: {"params": flat dict, "stats":
        flat dict}."""
        return {"params": {**self.frozen, **self.trained}, "stats": self.stats}


def objective(config, weights=None):
    """The weighted sum of the config's losses.

    Args:
      config: a whole config.
      weights: {loss name: number or f32[]} in place of the config's.

    Returns:
      A function of named arrays, giving (f32[], {loss name: f32[]}).
    """
    terms = {
        entry["name"]: (configured(losses, entry), entry.get("arrays")) for entry in config.losses
    }
    weights = weights or loss_weights(config)

    def total(arrays):
        values = {
            name: bind(function, arrays, renames) for name, (function, renames) in terms.items()
        }
        return sum(weights[name] * value for name, value in values.items()), values

    return total


def loss_weights(config):
    """{loss name: its weight}."""
    return {entry["name"]: entry.get("weight", 1.0) for entry in config.losses}


def make_step(
    model,
    total_loss,
    optimizer,
    prepare,
    *,
    skips,
    statistics="update",
    layout=None,
    replicated=None,
):
    """The update as a plain function, for jit, loops and vmap: step(state, batch, labels,
    constants) -> (state, metrics).

    Dropout is a function of (constants["seed"], step): an argument, so that runs that differ in the
    seed share one program. Metrics, f32[] each: `loss`, each loss by its name without its weight,
    `gradient_norm` over all trained parameters; and `skipped`, as State has it.

    Where the loss or the norm of the gradient is not finite, parameters, statistics and the
    optimizer's moments stay as they were; the step counts all the same. After `skips` of them in a
    row no step changes anything any more: whoever looks at the metrics, a while later, finds the
    count and the State before the first of them.

    Args:
      model: from models.ordinal.build.
      total_loss: from `objective`.
      optimizer: an optax transformation over the trained parameters.
      prepare: (stored batch, labels, constants) -> batch with `image`, `target` and `rank`.
      skips: config.train.skips.
      statistics: "update" trains as usual; "keep" lets every module behave as in evaluation, as for
        a new head on finished features.
      layout, replicated: of `make_train_step`.

    Raises:
      ValueError: unknown `statistics`.
    """
    if statistics not in ("update", "keep"):
        raise ValueError(f"train.statistics is {statistics!r}; it takes 'update' or 'keep'")
    mutable = ["stats"] if statistics == "update" else []

    def placed(tree, sharding):
        # Where a parameter is split as the batch is, the compiler left alone would send activations
        # around instead of it.
        return tree if layout is None else jax.lax.with_sharding_constraint(tree, sharding)

    def step(state, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels, constants)}
        dropout = jax.random.fold_in(
            jax.random.fold_in(jax.random.key(constants["seed"]), DROPOUT), state.step
        )

        def loss(trained):
            variables = trees.nested(
                placed({"params": {**state.frozen, **trained}, "stats": state.stats}, replicated)
            )
            outputs, new = model.apply(
                variables, arrays, rngs={"dropout": dropout}, mutable=mutable
            )
            value, terms = total_loss({**arrays, **outputs})
            return value, (terms, {**state.stats, **trees.flatten(new.get("stats", {}))})

        (value, (terms, stats)), gradients = jax.value_and_grad(loss, has_aux=True)(state.trained)
        gradients = placed(gradients, layout and layout.trained)
        norm, (in_a_row, in_all) = optax.tree.norm(gradients), state.skipped
        good = jnp.isfinite(value) & jnp.isfinite(norm) & (in_a_row < skips)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
        state = state.replace(
            step=state.step + 1,
            trained=chosen(good, optax.apply_updates(state.trained, updates), state.trained),
            stats=chosen(good, stats, state.stats),
            opt_state=chosen(good, opt_state, state.opt_state),
            skipped=jnp.stack([jnp.where(good, 0, in_a_row + 1), in_all + ~good]),
        )
        return state, {"loss": value, **terms, "gradient_norm": norm, "skipped": state.skipped}

    return step


def chosen(good, new, old):
    """The new tree where `good` bool[], else the old one, whose schedules go on: their count stands
    for the step."""

    def one(new, old):
        return new if isinstance(new, optax.ScaleByScheduleState) else jnp.where(good, new, old)

    return jax.tree.map(
        one, new, old, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState)
    )


def in_a_row(step):
    """The step that takes batches of pipeline.train_calls, makes all their updates, and gives the
    metrics of the last."""

    def steps(state, batches, labels, constants):
        batches = dict(batches)
        count = batches.pop("steps")

        def one(i, carry):
            return step(
                carry[0], {name: array[i] for name, array in batches.items()}, labels, constants
            )

        first = {name: array[0] for name, array in batches.items()}
        _, metrics = jax.eval_shape(step, state, first, labels, constants)
        # The number of steps is no part of the program, so that one program serves every call.
        return jax.lax.fori_loop(
            0, count, one, (state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics))
        )

    return steps


def make_train_step(
    model, total_loss, optimizer, prepare, shardings, *, skips, statistics="update", several=False
):
    """The jitted update of `make_step`; the old state is donated.

    Args:
      model, total_loss, optimizer, prepare, skips, statistics: as of `make_step`; `prepare` runs
      inside jit. shardings: one that replicates state and metrics; or (tree of the state's, that of
      the metrics) where parameters are
        split over the devices (jaxord.runtime.devices.by_size): a step brings them together, and keeps of
        their gradients its part.
      several: a call makes several updates, see `in_a_row`.
    """
    layout, replicated = shardings if isinstance(shardings, tuple) else (None, shardings)
    step = make_step(
        model,
        total_loss,
        optimizer,
        prepare,
        skips=skips,
        statistics=statistics,
        layout=layout,
        replicated=replicated,
    )
    return jax.jit(in_a_row(step) if several else step, donate_argnums=0, out_shardings=shardings)


def make_forward(model, prepare, names, replicated):
    """The jitted evaluation of one batch.

    Returns:
      forward(variables, batch, labels, constants) -> {name: array} of those outputs and batch
      arrays in `names`; variables as of State.
    """

    def forward(variables, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels, constants)}
        outputs = model.apply(
            trees.nested(jax.lax.with_sharding_constraint(variables, replicated)), arrays
        )
        return {
            name: value
            for name, value in {**arrays, **outputs}.items()
            if name in names and name not in constants
        }

    return jax.jit(forward, out_shardings=replicated)


@jax.jit
def finite(state):
    """bool[]: whether all that steps change is finite: parameters, statistics and what the
    optimizer keeps."""
    return jnp.array(
        [
            jnp.isfinite(x).all()
            for x in jax.tree.leaves((state.trained, state.stats, state.opt_state))
        ]
    ).all()
