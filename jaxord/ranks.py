"""Ranks: the ordered classes of a task, their values on the label's scale, and the sentences that
name them.

Shapes: N targets, K ranks, T tokens of a sentence, S base ranks of n tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxord.tokenizer import Tokenizer

Array = npt.NDArray[Any]

# Kinds of positions in a sentence.
TEMPLATE, CONTEXT, RANK, FILLER = 0, 1, 2, 3
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


def sentences(config: Any, names: Sequence[str], tokenizer: Tokenizer, longest: int) -> Any:
    """Token ids of the sentence of each rank: <sot> template with the rank's name in it, full stop,
    <eot>.

    The words of the template are the context. With `context_tokens` the context is that many
    placeholders around the rank, and the template's words stand beside them unchanged. With
    `base_names` each rank is as many placeholders as the longest of them has tokens. Sentences are
    cut to the longest <eot>: the text tower is causal, so what follows it changes nothing.

    Args:
      config: the `prompt` part of a config.
      names: K texts.
      tokenizer: from jaxord.tokenizer.
      longest: number of positions of the text tower.

    Returns:
      dict(prompt_tokens=i32[K, T], prompt_slots=i32[K, T], prompt_end=i32[K]); slots say template
      0, context 1, rank 2, filler 3. With `base_names` also prompt_base=i32[S, n], their tokens,
      shorter ones filled up with 0.

    Raises:
      ValueError: a template without its one "{}", an unknown position, base names for a prompt that
        has no base ranks or beside rank_tokens, or a sentence longer than the text tower.
    """
    if config.base_names and (config.name != "RankPrompt" or config.rank_tokens):
        raise ValueError(
            "prompt.base_names says what RankPrompt's base ranks start from, and how many tokens a rank has; found "
            f"prompt.name {config.name!r} and prompt.rank_tokens {config.rank_tokens}; expected 'RankPrompt' and 0"
        )
    if config.template.count("{}") != 1:
        raise ValueError(
            f'prompt.template needs one "{{}}" where the rank stands, found {config.template!r}'
        )
    before, after = (tokenizer.encode(part.strip(" .")) for part in config.template.split("{}"))
    base = [tokenizer.encode(name.replace("_", " ")) for name in config.base_names]
    placeholders = max([config.rank_tokens, *map(len, base)])
    drawn = config.context_tokens
    words = TEMPLATE if drawn else CONTEXT
    ahead = {"tail": drawn, "middle": drawn // 2, "front": 0}
    if config.context_position not in ahead:
        raise ValueError(
            f"prompt.context_position is {config.context_position!r}; it takes one of {sorted(ahead)}"
        )
    ahead = ahead[config.context_position]
    rows = []
    for name in names:
        rank = [0] * placeholders if placeholders else tokenizer.encode(name.replace("_", " "))
        parts = [
            ([tokenizer.sot], TEMPLATE),
            ([0] * ahead, CONTEXT),
            (before, words),
            (rank, RANK),
            (after, words),
            ([0] * (drawn - ahead), CONTEXT),
            ([tokenizer.full_stop, tokenizer.eot], TEMPLATE),
        ]
        rows.append([(token, kind) for tokens, kind in parts for token in tokens])
    length = max(map(len, rows))
    if length > longest:
        worst = max(zip(map(len, rows), names, strict=True))[1]
        raise ValueError(
            f"the sentence of rank {worst!r} has {length} tokens, the text tower {longest} positions; shorten the "
            "template, the names or context_tokens"
        )
    table = np.array(
        [row + [(0, FILLER)] * (length - len(row)) for row in rows], np.int32
    )  # [K, T, 2]
    made = {
        "prompt_tokens": table[..., 0],
        "prompt_slots": table[..., 1],
        "prompt_end": np.array([len(row) - 1 for row in rows], np.int32),
    }
    if base:
        made["prompt_base"] = np.array(
            [row + [0] * (placeholders - len(row)) for row in base], np.int32
        )
    return made
