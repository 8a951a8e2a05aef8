"""Arguments that a function only rounds, so that a narrower type gives the same bits."""

import jax


def only_rounded(function, dtype, *arguments):
    """A tree of bools like `arguments`: whether a function only converts each to `dtype`, or less.

    Traces the function, computes nothing. `dtype` is e.g. bfloat16, to which a layer converts its
    float32 kernel; `arguments` are trees of arrays or of ShapeDtypeStructs.
    """
    rounded = _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, dtype)
    return jax.tree.unflatten(jax.tree.structure(arguments), rounded)


def _of_jaxpr(jaxpr, dtype):
    """One bool for each argument of the jaxpr."""
    # Variables of a jaxpr define no equality, so they are compared by identity.
    read_in_full = {id(variable) for variable in jaxpr.outvars}
    for equation in jaxpr.eqns:
        rounded = _of_equation(equation, dtype)
        pairs = zip(equation.invars, rounded, strict=True)
        read_in_full |= {id(variable) for variable, rounds in pairs if not rounds}
    return [id(variable) not in read_in_full for variable in jaxpr.invars]


def _of_equation(equation, dtype):
    if equation.primitive.name == "convert_element_type":
        return [equation.params["new_dtype"] == dtype]
    parts = [getattr(value, "jaxpr", value) for value in equation.params.values()]
    parts = [part for part in parts if hasattr(part, "eqns")]
    # A call, such as jit or remat, passes its arguments on to its one jaxpr.
    if len(parts) == 1 and len(parts[0].invars) == len(equation.invars):
        return _of_jaxpr(parts[0], dtype)
    return [False] * len(equation.invars)
