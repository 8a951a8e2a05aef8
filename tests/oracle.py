"""What the loops in float64 share. They take complex arrays: a derivative is imag(loss(x + ih)) /
h, h = 1e-30."""

import numpy as np


def complex_step(loop, x):
    """Value and gradient of a real function of the array `x`, in float64: exact to its last
    digits."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.astype(np.complex128)
        moved[index] += 1e-30j
        gradient[index] = np.imag(loop(moved)) / 1e-30
    return float(np.real(loop(x.astype(np.complex128)))), gradient


def log_sum_exp(scores):
    """Of a non-empty list; imaginary parts as small as 1e-26 survive, since nothing real is added
    to them."""
    top = max(s.real for s in scores)
    return top + np.log(sum(np.exp(s - top) for s in scores))


def magnitude(x):
    """|x|; at 0 with derivative 1."""
    return x if x.real >= 0 else -x


def norm(x):
    """Euclidean length; of zeros 0 with derivative 0."""
    squared = np.sum(x * x)
    return np.sqrt(squared) if squared.real > 0 else 0.0


def units(x):
    return np.array([row / norm(row) for row in x])
