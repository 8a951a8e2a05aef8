"""Damaged and hostile files give a result or one sentence; tools/fuzz.py tries more of them."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools import fuzz

PIECE = st.one_of(st.binary(max_size=40), st.sampled_from(fuzz.PIECES))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200), PIECE), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def targets():
    return fuzz.targets()


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged tags
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_anything_that_was_edited_is_read_or_refused(targets, name, tmp_path):
    good, function = targets[name]

    # The few are slow.
    count, checks = 3 if fuzz.TARGETS[name] == 1 else 30, list(HealthCheck)

    @settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=checks)
    @given(which=st.integers(0, 20), edits=EDITS)
    def tried(which, edits):
        data = good[which % len(good)]
        for at, cut, piece in edits:
            at = int(at * len(data))
            data = data[:at] + piece + data[at + cut :]
        result, words = fuzz.verdict(function, data, tmp_path)
        assert result != "FAULT", words

    tried()


def test_a_fault_is_told_and_kept(tmp_path, capsys):
    def function(data, folder):
        raise ZeroDivisionError if data != b"good" else ValueError("a sentence")

    counts = fuzz.fuzz("made", [b"good"], function, 20, 0, tmp_path)
    assert counts["FAULT"] + counts["refused"] == 20 and counts["FAULT"] > 10
    assert len(list(tmp_path.iterdir())) == 1 and "ZeroDivisionError" in capsys.readouterr().err
    assert fuzz.edited(b"good", random.Random(1)) == fuzz.edited(b"good", random.Random(1))
    assert "no target ['images2']" in fuzz.main(["--targets=images2"])
