"""Floating-point operations of a function's matrix products and convolutions, from its jaxpr.

Counted, 2 for each multiply-add:
  matrix product   2 (elements of the result) (length of the sum)
  convolution      2 (elements of the result) (taps) (channels in of a group) / (input dilation):
                   the zeros in the gradient of a strided convolution are no work
  cuDNN attention  2 products of [T, H] with [S, H] forward and 4 backward for each example and
                   head, as in plain attention; recomputed scores do not count
A loop counts as often as it runs, of several branches the costliest counts. Elementwise work does
not count, a few percent of a ViT. A gradient counts only what reaches its arguments, so frozen
parameters cost nothing. `remat` does count, so count without it for a model's FLOP/s.

XLA's own cost analysis counts the body of a loop once and a cuDNN call not at all.
"""

import math

import jax

# Matrix products in cuDNN's fused attention.
ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 4}


def count(function, *arguments):
    """Floating-point operations of one call, on all devices together; arguments may be shapes.

    ValueError for a matrix product in a loop of unknown length, or a Pallas kernel.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments))


def _of_jaxpr(jaxpr):
    return sum(_of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation):
    name, settings = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated", *ATTENTION):
        left, right = (x.aval.shape for x in equation.invars[:2])
        size = equation.outvars[0].aval.size
    if name == "dot_general":
        (summed, _), _ = settings["dimension_numbers"]
        return 2 * size * math.prod(left[axis] for axis in summed)
    if name == "conv_general_dilated":
        channels_out = right[settings["dimension_numbers"].rhs_spec[0]]
        taps = math.prod(right) // channels_out
        return 2 * size * taps // math.prod(settings["lhs_dilation"])
    if name in ATTENTION:
        batch, queries, heads, width = left
        return ATTENTION[name] * 2 * batch * heads * queries * right[1] * width
    # The rest costs what the jaxprs inside it cost: calls, loops, branches, custom gradients.
    entries = [x if isinstance(x, (tuple, list)) else (x,) for x in settings.values()]
    inner = [x for entry in entries for x in entry if hasattr(getattr(x, "jaxpr", x), "eqns")]
    counts = [_of_jaxpr(jaxpr) for jaxpr in inner]
    if name == "pallas_call" or (name == "while" and any(counts)):
        hint = "count another form of the function"
        raise ValueError(f"the work of the primitive {name!r} cannot be read off a jaxpr; {hint}")
    if name == "cond":
        return max(counts)
    return settings.get("length", 1) * sum(counts) if name == "scan" else sum(counts)
