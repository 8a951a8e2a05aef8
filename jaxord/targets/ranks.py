"""Ranks: the ordered classes of a task, and their values on the label's scale.

Shapes: N targets, K ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Derived ranks are the distinct labels; with more labels than this they are bins of equal width.
MOST_DISTINCT = 128


@dataclass(frozen=True)
class Ranks:
    """K ordered classes."""

    values: Array  # f32[K], the number that stands for each rank, ascending
    names: tuple[str, ...]
    edges: Array  # f32[K] left edges where ranks are bins of the label's scale, else empty

    def index(self, targets: Array) -> Any:
        """i32[N]: the bin of each target, or the rank of the nearest value (ties to even)."""
        targets = np.asarray(targets, np.float64)
        if len(self.edges):
            index = np.searchsorted(self.edges, targets, side="right") - 1
        else:
            index = np.rint(np.interp(targets, self.values, np.arange(len(self.values))))
        return np.clip(index, 0, len(self.values) - 1).astype(np.int32)

    def beyond(self, targets: Array) -> Array:
        """bool[N]: labels that no rank stands for.

        If the ranks take at least half of the places of a scale with equal steps, these lie more
        than half a step from every rank: 4, or 2, where the ranks are 0, 1 and 3. Else the scale
        is real, and they lie more than a mean step past its ends. Bins have room for all labels.
        """
        values, targets = self.values.astype(np.float64), np.asarray(targets, np.float64)
        if len(self.edges):
            return np.zeros(len(targets), bool)
        span, gaps = values[-1] - values[0], np.diff(values)
        steps = gaps / gaps.min()
        regular = np.allclose(steps, np.rint(steps), atol=1e-3)
        if regular and 2 * len(values) >= span / gaps.min() + 1:
            nearest = values[self.index(targets)]
            return np.abs(targets - nearest) > gaps.min() * (0.5 + 1e-6)
        return np.abs(targets - np.clip(targets, values[0], values[-1])) > gaps.mean()


def build(config: Any, targets: Array, names: Sequence[str] = ()) -> Any:
    """Builds the ranks of a config, or derives them from the training targets.

    `config` is the `ranks` of a config; without names of its own, ranks take `names`, texts in
    ascending order such as folder names.
    """
    values, edges = np.asarray(config.labels, np.float64), np.asarray(config.edges, np.float64)
    last, step = config.last, config.step
    if len(values) and len(edges):
        raise ValueError("ranks.labels and ranks.edges are both given; give one of them")
    if not len(values) and not len(edges):
        values = np.unique(np.asarray(targets, np.float64))
        if len(values) > MOST_DISTINCT:
            edges = np.linspace(values[0], values[-1], config.bins + 1)[:-1]
            last, step = values[-1], 0.0
    if len(edges):
        if config.anchor not in ("centre", "left_edge"):
            raise ValueError(f"ranks.anchor is {config.anchor!r}; it takes 'centre' or 'left_edge'")
        if last < edges[-1]:
            raise ValueError(f"ranks.last is {last:g}, below the top bin's left edge {edges[-1]:g}")
        # A bin of whole years from 13 to 18 has its centre at 15.5: its last label is 18, not 19.
        last_labels = np.append(edges[1:] - step, last)
        values = edges if config.anchor == "left_edge" else (edges + last_labels) / 2
    names = tuple(config.names) or tuple(names) or tuple(f"{v:g}" for v in values)
    return make_ranks(values, names, edges)


def make_ranks(values: Array, names: tuple[str, ...], edges: Array) -> Ranks:
    """Ranks with float32 values and edges; ValueError if they are not finite and ascending, fewer
    than two, or of another number than the names."""
    for title, numbers in (("labels", values), ("edges", edges)):
        with np.errstate(over="ignore"):  # too large a number becomes infinite and is refused
            single = numbers.astype(np.float32)
        if not np.all(np.isfinite(single)) or not np.all(np.diff(single) > 0):
            rule = "must be finite and ascend, in float32 too; found"
            raise ValueError(f"ranks.{title} {rule} {numbers.tolist()}")
    if len(values) < 2:
        raise ValueError(f"an ordinal task needs at least two ranks, found {values.tolist()}")
    ranks = f"{len(values)} ranks {values.tolist()}"
    if len(names) != len(values):
        raise ValueError(f"{ranks} but {len(names)} names {list(names)}")
    if len(edges) not in (0, len(values)):
        raise ValueError(f"{ranks} but {len(edges)} edges {edges.tolist()}")
    return Ranks(values.astype(np.float32), names, edges.astype(np.float32))
