"""Which arguments of a function are only ever rounded: held in the narrower type they give the same
bits."""

import jax


def only_rounded(function, dtype, *arguments):
    """Whether all that a function does with an argument is to convert it to `dtype`; so too where
    it does nothing with it.

    Args:
      function: anything jax can trace; nothing is computed.
      dtype: of bfloat16 activations, say, to which a layer converts its float32 kernel.
      arguments: trees of arrays or of ShapeDtypeStructs.

    Returns:
      A tree of bools like `arguments`.
    """
    verdicts = _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, dtype)
    return jax.tree.unflatten(jax.tree.structure(arguments), verdicts)


def _of_jaxpr(jaxpr, dtype):
    """One bool an argument of the jaxpr."""
    others = {
        id(variable) for variable in jaxpr.outvars
    }  # a jaxpr's variables have no equality, they are themselves
    for equation in jaxpr.eqns:
        verdicts = zip(equation.invars, _of_equation(equation, dtype), strict=True)
        others |= {id(variable) for variable, rounded in verdicts if not rounded}
    return [id(variable) not in others for variable in jaxpr.invars]


def _of_equation(equation, dtype):
    if equation.primitive.name == "convert_element_type":
        return [equation.params["new_dtype"] == dtype]
    inside = [getattr(value, "jaxpr", value) for value in equation.params.values()]
    inside = [value for value in inside if hasattr(value, "eqns")]
    if len(inside) == 1 and len(inside[0].invars) == len(
        equation.invars
    ):  # a call: its arguments are those of its jaxpr
        return _of_jaxpr(inside[0], dtype)
    return [False] * len(equation.invars)
