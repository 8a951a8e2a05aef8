"""Parameter trees as flat dicts of path -> array, such as 'vision_model/pre_layrnorm/scale'."""

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


def nested(variables: Mapping[str, Any]) -> Any:
    """{"params": flat dict, "stats": flat dict} as flax takes them."""
    return {collection: unflatten(flat) for collection, flat in variables.items()}


def first_match(paths: Iterable[str], rules: Sequence[tuple[str, str]]) -> Any:
    """{path: value} of the first rule, (regular expression, value), that matches the whole path.

    ValueError lists all paths that no rule matches, and all rules that match no path.
    """
    values, used, orphans = {}, set(), []
    for path in paths:
        matches = [i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, path)]
        used.update(matches)
        if matches:
            values[path] = rules[matches[0]][1]
        else:
            orphans.append(path)
    lines = [f"parameter without a rule: {path}" for path in orphans]
    idle = [pattern for i, (pattern, _) in enumerate(rules) if i not in used]
    lines += [f"rule without a parameter: {pattern}" for pattern in idle]
    if lines:
        title = "the table of parameter groups does not fit the model"
        raise ValueError("\n  ".join([title, *lines]))
    return values


def difference(
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    found_name: str = "found",
    expected_name: str = "expected",
) -> Any:
    """Lists the differences in path, shape and dtype between two flat trees, one line each."""
    lines = [f"only in {expected_name}: {path}" for path in expected if path not in found]
    lines += [f"only in {found_name}: {path}" for path in found if path not in expected]
    for path in [path for path in expected if path in found]:
        a, b = found[path], expected[path]
        for title, x, y in (("shape", tuple(a.shape), tuple(b.shape)), ("dtype", a.dtype, b.dtype)):
            if x != y:
                lines.append(f"{path}: {title} {x} in {found_name}, {y} in {expected_name}")
                break
    return lines
