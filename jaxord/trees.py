"""Parameter trees as flat dicts of path -> array:
'vision_model/encoder/layers/0/mlp/fc1/kernel'."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax import traverse_util


def flatten(tree: Mapping[str, Any]) -> Any:
    """Nested dicts -> {'a/b': leaf}, sorted by path."""
    return dict(sorted(traverse_util.flatten_dict(tree, sep="/").items()))


def unflatten(flat: Mapping[str, Any]) -> Any:
    """{'a/b': leaf} -> nested dicts."""
    return traverse_util.unflatten_dict(flat, sep="/")


def first_match(paths: Iterable[str], rules: Sequence[tuple[str, str]]) -> Any:
    """Assigns to each path the value of the first rule whose pattern matches the whole path.

    Args:
      paths: the parameter paths.
      rules: ordered (regular expression, value) pairs.

    Returns:
      {path: value}.

    Raises:
      ValueError: a path that no rule matches, or a rule that matches no path at all; both lists are
        printed at once.
    """
    compiled = [re.compile(pattern) for pattern, _ in rules]
    found, used, orphans = {}, set(), []
    for path in paths:
        hits = [i for i, pattern in enumerate(compiled) if pattern.fullmatch(path)]
        used.update(hits)
        if hits:
            found[path] = rules[hits[0]][1]
        else:
            orphans.append(path)
    idle = [pattern for i, (pattern, _) in enumerate(rules) if i not in used]
    if orphans or idle:
        lines = [f"parameter without a rule: {path}" for path in orphans]
        lines += [f"rule without a parameter: {pattern}" for pattern in idle]
        raise ValueError(
            "the table of parameter groups does not fit the model\n  " + "\n  ".join(lines)
        )
    return found


def difference(
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    found_name: str = "found",
    expected_name: str = "expected",
) -> Any:
    """All differences in path, shape and dtype between two flat trees, one line each; empty when
    there is none."""
    lines = [f"only in {expected_name}: {path}" for path in expected if path not in found]
    lines += [f"only in {found_name}: {path}" for path in found if path not in expected]
    for path in expected:
        if path in found:
            a, b = found[path], expected[path]
            if tuple(a.shape) != tuple(b.shape):
                lines.append(
                    f"{path}: shape {tuple(a.shape)} in {found_name}, {tuple(b.shape)} in {expected_name}"
                )
            elif a.dtype != b.dtype:
                lines.append(
                    f"{path}: dtype {a.dtype} in {found_name}, {b.dtype} in {expected_name}"
                )
    return lines


def nested(variables):
    """{"params": flat dict, "stats": flat dict} as flax takes them."""
    return {collection: unflatten(flat) for collection, flat in variables.items()}
