"""Tokens, the reader of sentence pairs, and word vectors, on fixtures made here."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxord.data import readers, records, storage
from jaxord.data.batches import train_batches
from jaxord.data.readers import sentences
from jaxord.data.splits import select_shots
from jaxord.weights import glove

HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
PAIRS = {
    "train": [
        ("A man plays.", "A man is playing a flute.", "3.8"),
        ('He said "no".', "It can't be.", "0.000"),
        ("Stop", "Go", "1"),
    ],
    "dev": [("A dog.", "A cat plays.", "5.000")],
    "test": [("A man.", "A zebra.", "2.5"), ("No", "Go", "0")],
}


def write(root, pairs=PAIRS):
    for name, rows in pairs.items():
        lines = (
            f"{i}\tmain\tx\t2012\t7\tnone\tnone\t{a}\t{b}\t{score}\n"
            for i, (a, b, score) in enumerate(rows)
        )
        (root / f"{name}_new.tsv").write_text(HEADER + "".join(lines), encoding="utf-8")
    return root


def read(root, **settings):
    return sentences.stsb(root, fold="", seed=0, **settings)


@pytest.mark.parametrize(  # what nltk.word_tokenize gives
    ("text", "expected"),
    [
        (
            'He said "hello, Mr. Smith" and stopped...',
            "He said `` hello , Mr. Smith '' and stopped ...",
        ),
        (
            "(a) [b] it's 'quoted' dogs' they'll -- end?!",
            "( a ) [ b ] it 's ' quoted ' dogs ' they 'll -- end ? !",
        ),
        (
            "e-mail 50% $30 A/B re: this; 2,000, at 10:30.",
            "e-mail 50 % $ 30 A/B re : this ; 2,000 , at 10:30 .",
        ),
        (
            "I can't, she DOESN'T, we cannot: gonna 80s",
            "I ca n't , she DOES N'T , we can not : gon na 80s",
        ),
        ("It fell. The U.S. Senate met Gov. Bush in Nov. 2003 (again).", None),
        ("", ""),
    ],
)
def test_tokens(text, expected):
    expected = (
        expected
        if expected is not None
        else "It fell . The U.S. Senate met Gov. Bush in Nov. 2003 ( again ) ."
    )
    assert sentences.tokenize(text) == expected.split()


def test_stsb(tmp_path):
    splits = read(write(tmp_path), tokens=6)
    assert {split: len(part) for split, part in splits.items()} == {"train": 3, "val": 1, "test": 2}
    train = splits["train"]
    assert (
        train.paths == ("train/0", "train/1", "train/2")
        and splits["val"].paths == ("dev/0",)
        and train.read is None
    )
    assert train.targets.tolist() == np.array([3.8, 0, 1], np.float32).tolist()
    assert train.columns["sentence1"].tolist() == [
        "A man plays.",
        'He said "no".',
        "Stop",
    ]  # quotes are plain
    words = train.vocabulary
    assert (
        words[:4] == ("<padding>", "<unknown>", ".", "A")
        and "zebra" in words
        and splits["test"].vocabulary == words
    )
    ids, mask = train.inputs["sentences"], train.inputs["sentence_mask"]
    assert (ids.shape, ids.dtype, mask.shape, mask.dtype) == ((3, 2, 6), np.int32, (3, 2, 6), bool)
    texts = [
        " ".join(words[i] for i in row[valid])
        for row, valid in zip(ids.reshape(6, 6), mask.reshape(6, 6), strict=True)
    ]
    assert texts[:2] == ["A man plays .", "A man is playing a flute"]  # cut at six tokens
    assert texts[2:4] == ["He said `` no '' .", "It ca n't be ."] and not ids[~mask].any()
    small = read(tmp_path, tokens=6, words=2)["train"]
    assert small.vocabulary == words[:4] and small.inputs["sentences"][0, 0].tolist() == [
        3,
        1,
        1,
        2,
        0,
        0,
    ]
    assert "a" in words and "A" not in read(tmp_path, lower=True)["train"].vocabulary


def test_stsb_through_load_and_pipeline(tmp_path):
    write(tmp_path)
    shift = {"labels": 0, "keep": 1.0, "choice": "top"}
    entry = {"name": "sentences.stsb", "lower": True}
    data = ConfigDict(
        {
            "reader": entry,
            "root": str(tmp_path),
            "folds": (),
            "table": "",
            "shots": 0,
            "shift": shift,
        }
    )
    train = readers.load(data, "", 0)["train"]
    both = records.concatenate([train, train.take([2, 0])])
    crops = {
        "train_crop": {"name": "random_crop"},
        "eval_crop": {"name": "center_crop"},
        "stored_size": 8,
        "image_size": 8,
    }
    crops["corruption"] = {"name": ""}
    data = ConfigDict(
        {"tier": "auto", "broken": "raise", "workers": 1, "copies": 1, "bucket": 2, **crops}
    )
    split = storage.decode_split(both, data, np.asarray)
    batches = train_batches(split, batch=3, seed=0)
    for batch in (next(batches) for _ in range(4)):
        assert batch["sentences"].shape == (3, 2, 8)
        np.testing.assert_array_equal(
            batch["sentences"], both.inputs["sentences"][batch["index"]][..., :8]
        )
    assert len(select_shots(train, 1, 0)) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("A", " ", "1"), r"dev_new.tsv, line 2: a sentence is empty"),
        (("A", "B", "5.1"), r"dev_new.tsv, line 2: score 5.1, expected 0 to 5"),
        (("A", "B", "high"), r"dev_new.tsv, line 2: score 'high' is not a number"),
        (("A\tB", "C", "1"), r"dev_new.tsv, line 2: 11 fields, expected 10"),
    ],
)
def test_faulty_lists(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, {**PAIRS, "dev": [row]}))


def test_one_message_says_all_that_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match="train_new.tsv, dev_new.tsv, test_new.tsv\nlists: .*\nlayout: <root>/"
    ):
        read(tmp_path)


def test_vectors(tmp_path, caplog):
    words = (sentences.PADDING, sentences.UNKNOWN, "man", ".", "zebra")
    path = tmp_path / "glove.txt"
    path.write_text(". 1 -2e-1 3\nman 0.5 0.25 4\n. . . 7 7 7\nother 9 9 9\n<padding> 5 5 5\n")
    with caplog.at_level("INFO"):
        table = glove.vectors(str(path), words, 3)
    assert "2 of 3 words have a vector of 3 numbers" in caplog.text
    assert (table.shape, table.dtype) == ((5, 3), np.float32)
    np.testing.assert_array_equal(
        table[[0, 2, 3]], np.array([[0, 0, 0], [0.5, 0.25, 4], [1, -0.2, 3]], np.float32)
    )
    np.testing.assert_array_equal(glove.vectors(str(path), words, 3), table)
    other = glove.vectors(str(path), words, -4)
    assert not np.any(other[[1, 4]] == table[[1, 4]]) and np.all(
        other[[0, 2, 3]] == table[[0, 2, 3]]
    )
    many = glove.vectors(str(path), (*words, *map(str, range(2000))), 0)[5:]
    assert abs(many.mean()) < 0.05 and abs(many.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other 1 2\n", r"has none of the 1 words, such as \['man'\]"),
        ("other 1 2\nman 1 x\n", "line 2: expected a word and 2 finite numbers, found 'man 1 x"),
        ("other 1 2\nman 1\n", "line 2: expected a word and 2 finite numbers"),
        ("other 1 2\nman 1 nan\n", "line 2: expected a word and 2 finite numbers"),
        ("other 1 2\nman 1 1e39\n", "line 2: expected a word and 2 finite numbers"),
    ],
)
def test_faulty_vectors(tmp_path, text, message):
    (tmp_path / "glove.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        glove.vectors(str(tmp_path / "glove.txt"), (sentences.PADDING, sentences.UNKNOWN, "man"), 0)
    with pytest.raises(ValueError, match="no word vectors at"):
        glove.vectors(str(tmp_path), (), 0)
