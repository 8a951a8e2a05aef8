"""Ranks by hand, and the sentences of prompts made from them."""

import numpy as np
import pytest

from configs.base import base
from jaxord.models import tokens
from jaxord.targets import ranks

WORDS = tokens.byte_tokenizer()


def config(**fields):
    c = base().ranks
    c.update(fields)
    return c


def test_bins_have_the_centres_of_numclip():
    # METHODS: centres of the inclusive integer ranges 0-12, 13-18, 19-34, 35-64, 65-100
    built = ranks.build(config(edges=(0.0, 13.0, 19.0, 35.0, 65.0), last=100.0), [])
    assert built.values.tolist() == [6.0, 15.5, 26.5, 49.5, 82.5]
    assert built.index([0, 12, 13, 18, 19, 34, 35, 64, 65, 100, 120, -1]).tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        4,
        0,
    ]


def test_left_edges_are_the_programs_anchor():
    built = ranks.build(config(edges=(0.0, 13.0, 19.0), last=30.0, anchor="left_edge"), [])
    assert built.values.tolist() == [0.0, 13.0, 19.0]


def test_index_is_the_nearest_value_half_to_even():
    built = ranks.build(config(labels=(0.0, 1.0, 2.0, 3.0, 4.0)), [])
    targets = np.array([-3.0, 0.5, 1.5, 2.5, 3.49, 9.0])
    assert built.index(targets).tolist() == np.clip(np.rint(targets), 0, 4).tolist()
    uneven = ranks.build(config(labels=(0.0, 10.0, 100.0)), [])
    assert uneven.index([4.0, 6.0, 54.0, 56.0]).tolist() == [0, 1, 1, 2]


def test_derived_ranks_are_the_labels_or_equal_bins():
    built = ranks.build(config(), [3.0, 1.0, 2.0, 3.0], names=("low", "mid", "high"))
    assert built.values.tolist() == [1.0, 2.0, 3.0] and built.names == ("low", "mid", "high")
    many = ranks.build(config(bins=4), np.linspace(0.0, 8.0, 500))
    np.testing.assert_allclose(many.values, [1.0, 3.0, 5.0, 7.0])
    assert many.index([0.0, 1.99, 2.01, 8.0]).tolist() == [0, 0, 1, 3]


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(labels=(1.0, 0.0)), "must be finite and ascend"),
        (dict(labels=(1.0, float("nan"))), "must be finite and ascend"),
        (dict(labels=(1.0, 1e39)), "must be finite and ascend"),
        (dict(labels=(1.0, 1.0 + 1e-9)), "must be finite and ascend"),  # one number in float32
        (dict(labels=(1.0, 2.0), edges=(0.0, 1.0)), "both given"),
        (dict(labels=(1.0, 2.0), names=("a",)), "1 names"),
        (dict(labels=(1.0,)), "at least two"),
        (dict(edges=(0.0, 5.0), last=4.0), "below the top bin"),
        (dict(edges=(0.0, 5.0), last=9.0, anchor="middle"), "'centre' or 'left_edge'"),
    ],
)
def test_bad_ranks(fields, words):
    with pytest.raises(ValueError, match=words):
        ranks.build(config(**fields), [])


def prompt(**fields):
    c = base().prompt
    c.update(fields)
    return c


def spell(tokens):
    return "".join({256: "<", 257: ">", 0: "_"}.get(t, chr(t)) for t in tokens)


def test_sentences_follow_clips_layout():
    made = tokens.sentences(prompt(template="age: {} years."), ("7", "old one"), WORDS, 77)
    assert spell(made["prompt_tokens"][1]) == "<age: old one years .>"
    assert spell(made["prompt_tokens"][0]) == "<age: 7 years .>______"
    assert (
        made["prompt_end"].tolist() == [15, 21] and made["prompt_tokens"].shape[1] == 22
    )  # cut at the longest <eot>
    slots = "".join(map(str, made["prompt_slots"][0]))
    assert slots == "0" + "1" * 5 + "2" * 2 + "1" * 6 + "00" + "3" * 6


@pytest.mark.parametrize(
    "position, slots", [("tail", "0111122200"), ("middle", "0112221100"), ("front", "0222111100")]
)
def test_drawn_context_and_its_position(position, slots):
    made = tokens.sentences(
        prompt(template="{}", context_tokens=4, rank_tokens=3, context_position=position),
        ("1", "2"),
        WORDS,
        77,
    )
    assert "".join(map(str, made["prompt_slots"][0])) == slots
    assert made["prompt_end"].tolist() == [9, 9]


def test_template_words_stand_unchanged_beside_a_drawn_context():
    made = tokens.sentences(prompt(template="a {} b", context_tokens=2), ("1", "2"), WORDS, 77)
    assert spell(made["prompt_tokens"][0]) == "<__a 1 b .>"
    assert "".join(map(str, made["prompt_slots"][0])) == "01100220000"


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(template="no place"), "needs one"),
        (dict(template="{} and {}"), "needs one"),
        (dict(template="{}", context_tokens=2, context_position="end"), "takes one of"),
        (dict(template="a very long template around the {}"), "tokens, the text tower 20"),
    ],
)
def test_bad_prompts(fields, words):
    with pytest.raises(ValueError, match=words):
        tokens.sentences(prompt(**fields), ("1", "2"), WORDS, 20)


def test_base_names_are_constants_and_give_each_rank_as_many_placeholders():
    made = tokens.sentences(
        prompt(template="of {}", name="RankPrompt", base_names=("a", "old")),
        ("1", "222222"),
        WORDS,
        77,
    )
    assert [spell(row) for row in made["prompt_base"]] == ["a __", "old "]
    assert [spell(row) for row in made["prompt_tokens"]] == ["<of ____.>"] * 2
    assert "".join(map(str, made["prompt_slots"][1])) == "0111222200"
    assert "prompt_base" not in tokens.sentences(prompt(template="{}"), ("1", "2"), WORDS, 77)
    for fields in (dict(name="ContextPrompt"), dict(name="RankPrompt", rank_tokens=2)):
        with pytest.raises(ValueError, match="expected 'RankPrompt' and 0"):
            tokens.sentences(
                prompt(template="{}", base_names=("a",), **fields), ("1", "2"), WORDS, 77
            )
