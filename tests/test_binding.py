"""Arrays by parameter names, settings by config entries, and the hints of errors."""

import functools

import pytest

from jaxord import binding, losses


def center(image_embeds, reference_points, reference, weight=None, *, reduction="mean"):
    return image_embeds, reference_points, reference, weight, reduction


def test_bind_takes_arrays_by_name_and_leaves_the_rest():
    arrays = {"image_embeds": 1, "reference_points": 2, "reference": 3, "other": 4}
    assert binding.bind(center, arrays) == (1, 2, 3, None, "mean")
    assert binding.bind(center, {**arrays, "weight": 5})[3] == 5


def test_bind_renames_and_keeps_settings():
    arrays = {"image_features": 1, "reference_points": 2, "reference": 3}
    function = functools.partial(center, reduction="sum")
    assert binding.bind(function, arrays, {"image_embeds": "image_features"}) == (
        1,
        2,
        3,
        None,
        "sum",
    )


def test_bind_says_what_is_missing_and_what_is_there():
    with pytest.raises(
        ValueError,
        match=r"center needs \['reference_points'\].*only \['image_embeds', 'reference'\]",
    ):
        binding.bind(center, {"image_embeds": 1, "reference": 3})


def test_lookup_suggests_the_nearest_name():
    assert binding.lookup(losses, "fcrc") is losses.fcrc
    with pytest.raises(
        ValueError, match="jaxord.losses has no 'cross_entropi'. Did you mean 'cross_entropy'"
    ):
        binding.lookup(losses, "cross_entropi")
    with pytest.raises(ValueError, match="It has"):
        binding.lookup(losses, "zzz")


def test_configured_refuses_unknown_settings():
    function = binding.configured(losses, {"name": "fcrc", "weight": 2.0, "form": "class"})
    assert function.keywords == {"form": "class"}
    with pytest.raises(ValueError, match="fcrc has no setting 'from'. Did you mean 'form'"):
        binding.configured(losses, {"name": "fcrc", "from": "class"})
