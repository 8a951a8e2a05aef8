"""Flat trees, tables of patterns, and differences between trees."""

import numpy as np
import pytest

from jaxord import trees


def test_flatten_and_back():
    tree = {"b": {"c": 1}, "a": 2}
    assert list(trees.flatten(tree).items()) == [("a", 2), ("b/c", 1)]
    assert trees.unflatten(trees.flatten(tree)) == tree


def test_first_match_takes_the_first_full_match():
    rules = [("prompt/.*", "prompt"), (".*/kernel", "heads"), (".*", "frozen")]
    found = trees.first_match(["prompt/kernel", "head/kernel", "head/kernel_2"], rules)
    assert found == {"prompt/kernel": "prompt", "head/kernel": "heads", "head/kernel_2": "frozen"}


def test_first_match_reports_all_orphans_and_idle_rules_at_once():
    with pytest.raises(ValueError) as error:
        trees.first_match(["a/x", "b/x", "c"], [("a/.*", 1), ("d/.*", 2), ("a/x", 3)])
    text = str(error.value)
    assert "parameter without a rule: b/x" in text and "parameter without a rule: c" in text
    assert "rule without a parameter: d/.*" in text
    assert "a/x" not in text  # the last rule matches, though a/.* wins


def test_difference_lists_paths_shapes_and_dtypes():
    found = {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1, np.float32), "e": np.zeros(1)}
    expected = {"a": np.zeros(2), "b": np.zeros(4), "c": np.zeros(1, np.int32), "d": np.zeros(1)}
    assert len(trees.difference(found, expected)) == 4
    assert trees.difference(found, found) == []
