"""Floating-point operations of a function: those of its matrix products and convolutions, read off
its jaxpr.

Counted, 2 for each multiply-add:
  matrix product   2 (elements of the result) (length of the sum)
  convolution      2 (elements of the result) (taps of the kernel) (channels in of a group) / (dilation of the input): the
                   zeros that the backward pass of a strided convolution lays between pixels are no
                   work
  cuDNN attention  2 products of [T, H] with [S, H] forward and 4 backward for each example and head, as where it is
                   written out; that its backward pass computes the scores again is not counted
A loop counts as often as it runs, of several branches the costliest counts. Sums, products of
elements, softmax, norms, activations and the optimizer do not count, a few percent of a ViT. Of a
gradient only what reaches its arguments is in the jaxpr: frozen parameters cost no gradient of
their own, and below the lowest trained one nothing flows back. What `remat` recomputes does count,
so count without it for a model's FLOP/s. For a CLIP of L layers of width C, hidden width M and T
tokens that is, forward, an example,

    2 T L (4 C^2 + 2 C M + 2 T C) + 2 (patches) C (3 patch^2) + projection,

17.6 G multiply-adds for an image of ViT-B/16 and three times that for the training of all of it.
"""

import math

import jax

ATTENTION = {
    "dot_product_attention_fwd_wrapper": 2,
    "dot_product_attention_bwd_wrapper": 4,
}  # products of cuDNN's


def count(function, *arguments):
    """Floating-point operations of one call, on all devices together; nothing is computed.

    Args:
      function: anything jax can trace, jitted or not.
      arguments: arrays, or ShapeDtypeStructs.

    Returns:
      int.

    Raises:
      ValueError: a matrix product in a loop of unknown length, or a Pallas kernel, whose work
        cannot be read.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments))


def _of_jaxpr(jaxpr):
    return sum(_of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation):
    name, settings = equation.primitive.name, equation.params
    if name == "dot_general":
        (summed, _), _ = settings["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in summed)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        taps = kernel.size // kernel.shape[settings["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * taps // math.prod(settings["lhs_dilation"])
    if name in ATTENTION:
        (batch, queries, heads, width), keys = (
            equation.invars[0].aval.shape,
            equation.invars[1].aval.shape[1],
        )
        return ATTENTION[name] * 2 * batch * heads * queries * keys * width
    inside = [
        value
        for entry in settings.values()
        for value in (entry if isinstance(entry, (tuple, list)) else (entry,))
        if hasattr(getattr(value, "jaxpr", value), "eqns")
    ]
    counts = [_of_jaxpr(jaxpr) for jaxpr in inside]
    if name == "pallas_call" or (name == "while" and any(counts)):
        raise ValueError(
            f"the work of the primitive {name!r} cannot be read off a jaxpr; count another form of the function"
        )
    if name == "cond":
        return max(counts)
    return settings.get("length", 1) * sum(counts) if name == "scan" else sum(counts)
