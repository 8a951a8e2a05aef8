"""Ranks: the ordered classes of a task, their values on the label's scale.

Shapes: N targets, K ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST_DISTINCT = (
    128  # derived ranks: with more distinct labels than this, equal bins take their place
)


@dataclass(frozen=True)
class Ranks:
    """K ordered classes.

    Attributes:
      values: f32[K], the number that stands for each rank, ascending.
      names: K texts.
      edges: f32[K] left edges where ranks are bins of the label's scale, else empty.
    """

    values: Array
    names: tuple[str, ...]
    edges: Array

    def index(self, targets: Array) -> Any:
        """Rank of each target: its bin, or the nearest value's rank (ties to the even rank).

        Args:
          targets: [N] on the label's scale.

        Returns:
          i32[N].
        """
        targets = np.asarray(targets, np.float64)
        if len(self.edges):
            found = np.searchsorted(self.edges, targets, side="right") - 1
        else:
            found = np.rint(np.interp(targets, self.values, np.arange(len(self.values))))
        return np.clip(found, 0, len(self.values) - 1).astype(np.int32)


def build(config: Any, targets: Array, names: Sequence[str] = ()) -> Any:
    """Ranks as the config gives them, or derived from the training targets.

    Args:
      config: the `ranks` part of a config.
      targets: [N], targets of the training split.
      names: texts of derived ranks in ascending order of their values, e.g. names of folders;
        config.names go before.

    Raises:
      ValueError: labels or edges that do not ascend, or another number of names than ranks.
    """
    values, edges = np.asarray(config.labels, np.float64), np.asarray(config.edges, np.float64)
    if len(values) and len(edges):
        raise ValueError("ranks.labels and ranks.edges are both given; give one of them")
    if not len(values) and not len(edges):
        values = np.unique(np.asarray(targets, np.float64))
        if len(values) > MOST_DISTINCT:
            edges = np.linspace(values[0], values[-1], config.bins + 1)[:-1]
            last, step = values[-1], 0.0
    else:
        last, step = config.last, config.step
    if len(edges):
        if config.anchor not in ("centre", "left_edge"):
            raise ValueError(f"ranks.anchor is {config.anchor!r}; it takes 'centre' or 'left_edge'")
        tops = np.append(edges[1:] - step, last)  # last label of each bin
        values = edges if config.anchor == "left_edge" else (edges + tops) / 2
        if last < edges[-1]:
            raise ValueError(f"ranks.last is {last:g}, below the top bin's left edge {edges[-1]:g}")
    return checked(
        values, tuple(config.names) or tuple(names) or tuple(f"{v:g}" for v in values), edges
    )


def checked(values: Array, names: tuple[str, ...], edges: Array) -> Ranks:
    """Ranks of the values and edges in float32.

    Raises:
      ValueError: fewer than two, another number of names or edges, or values or edges that do not
        ascend or are not finite.
    """
    for title, numbers in (("labels", values), ("edges", edges)):
        with np.errstate(over="ignore"):  # infinite then
            single = numbers.astype(np.float32)
        if not np.all(np.isfinite(single)) or not np.all(np.diff(single) > 0):
            raise ValueError(
                f"ranks.{title} must be finite and ascend, in float32 too, found {numbers.tolist()}"
            )
    if len(values) < 2:
        raise ValueError(f"an ordinal task needs at least two ranks, found {values.tolist()}")
    if len(names) != len(values):
        raise ValueError(
            f"{len(values)} ranks {values.tolist()} but {len(names)} names {list(names)}"
        )
    if len(edges) not in (0, len(values)):
        raise ValueError(
            f"{len(values)} ranks {values.tolist()} but {len(edges)} edges {edges.tolist()}"
        )
    return Ranks(values.astype(np.float32), names, edges.astype(np.float32))
