"""The train step: augment, forward, losses, gradient, update. One for all methods."""

import flax
import jax
import optax

from jaxord import losses, trees
from jaxord.binding import bind, configured


@flax.struct.dataclass
class State:
    """All that a run needs to go on. Parameters are flat dicts of path -> array.

    Attributes:
      step: i32[], updates made.
      trained: parameters the optimizer knows.
      frozen: parameters nobody differentiates.
      opt_state: of the optimizer, over `trained` only.
    """

    step: jax.Array
    trained: dict
    frozen: dict
    opt_state: optax.OptState

    @property
    def parameters(self):
        """All parameters, as the nested dict that the model takes."""
        return trees.unflatten({**self.frozen, **self.trained})


def objective(config):
    """The weighted sum of the config's losses.

    Returns:
      A function of named arrays, giving (f32[], {loss name: f32[]}).
    """
    terms = {entry["name"]: (configured(losses, entry), entry.get("arrays")) for entry in config.losses}
    weights = {entry["name"]: entry.get("weight", 1.0) for entry in config.losses}

    def total(arrays):
        values = {name: bind(function, arrays, renames) for name, (function, renames) in terms.items()}
        return sum(weights[name] * value for name, value in values.items()), values

    return total


def make_train_step(model, total_loss, optimizer, prepare, replicated):
    """The jitted update.

    Args:
      model: from models.ordinal.build.
      total_loss: from `objective`.
      optimizer: an optax transformation over the trained parameters.
      prepare: (stored batch, labels) -> batch with `image`, `target` and `rank`; runs inside jit.
      replicated: sharding of the state and of the metrics.

    Returns:
      step(state, batch, labels, constants) -> (state, metrics); the old state is donated. Metrics, f32[] each: `loss`,
      each loss by its name without its weight, `gradient_norm` over all trained parameters.
    """

    def step(state, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels)}

        def loss(trained):
            outputs = model.apply({"params": trees.unflatten({**state.frozen, **trained})}, arrays)
            return total_loss({**arrays, **outputs})

        (value, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.trained)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics = {"loss": value, **terms, "gradient_norm": optax.tree.norm(gradients)}
        return state.replace(step=state.step + 1, trained=trained, opt_state=opt_state), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=replicated)


def make_forward(model, prepare, names, replicated):
    """The jitted evaluation of one batch.

    Returns:
      forward(parameters, batch, labels, constants) -> {name: array} of those outputs and batch arrays in `names`.
    """

    def forward(parameters, batch, labels, constants):
        arrays = {**constants, **prepare(batch, labels)}
        outputs = model.apply({"params": parameters}, arrays)
        return {name: value for name, value in {**arrays, **outputs}.items() if name in names and name not in constants}

    return jax.jit(forward, out_shardings=replicated)
