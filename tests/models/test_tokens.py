"""Both vocabularies; byte pairs by a small vocabulary of CLIP's form, made here, against
transformers' tokenizer."""

import json
import shutil

import pytest

from jaxord.models import tokens
from tests.conftest import write_vocabulary

TEXTS = (
    "a photo of a person",
    "  A  Photo\tof a\nPERSON ",
    "it's 35 years old.",
    "35",
    "1930s",
    "café",
    "cafe\u0301",
    "twenty one",
    "good, bad & ugly!?",
    "naïve 日本",
    "",
    "...",
    "don't",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("clip"))


def test_byte_pairs_by_hand(folder):
    clip = tokens.clip_tokenizer(folder)
    vocab = json.loads((folder / "vocab.json").read_text())
    expected = [vocab[word] for word in ("a</w>", "photo</w>", "of</w>", "a</w>", "person</w>")]
    assert clip.encode("a photo of a person") == expected
    assert clip.encode("  A  Photo\tof a\nPERSON ") == expected
    assert clip.encode("35") == [vocab["3</w>"], vocab["5</w>"]]  # digits are split
    assert clip.encode("it's.") == [vocab[w] for w in ("i", "t</w>", "'s</w>", ".</w>")]
    assert (clip.sot, clip.eot, clip.vocab_size) == (len(vocab) - 2, len(vocab) - 1, len(vocab))
    assert [clip.full_stop] == clip.encode(".") == [vocab[".</w>"]]


def test_byte_pairs_are_those_of_transformers(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    theirs.model_max_length = 77
    theirs.save_pretrained(tmp_path)
    shutil.copy(folder / "vocab.json", tmp_path)  # alone it must not be taken for the pair
    ours, single = tokens.clip_tokenizer(folder), tokens.clip_tokenizer(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    for text in TEXTS:
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == expected, text
        assert single.encode(text) == expected, text
    assert (
        (ours.sot, ours.eot)
        == (single.sot, single.eot)
        == (theirs.bos_token_id, theirs.eos_token_id)
    )
    assert ours.vocab_size == single.vocab_size == len(theirs)
    assert theirs("photo")["input_ids"] == [ours.sot, *ours.encode("photo"), ours.eot]


def test_truncation_and_padding_of_the_file_are_off(folder, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    files = [str(folder / name) for name in ("vocab.json", "merges.txt")]
    loaded = Tokenizer(models.BPE.from_file(*files, end_of_word_suffix="</w>"))
    loaded.pre_tokenizer = pre_tokenizers.Whitespace()
    loaded.enable_truncation(3)
    loaded.enable_padding(length=8)
    loaded.save(str(tmp_path / "tokenizer.json"))
    assert len(tokens.clip_tokenizer(tmp_path).encode("a a a a a")) == 5
    assert len(tokens.clip_tokenizer(tmp_path).encode("a")) == 1


def test_bytes():
    found = tokens.byte_tokenizer()
    assert found.encode(" Old  MAN\n") == list(b"old man ")
    assert found.encode("é") == [0xC3, 0xA9, ord(" ")]
    assert found.encode("") == []
    assert (found.sot, found.eot, found.full_stop, found.vocab_size) == (256, 257, ord("."), 258)


@pytest.mark.parametrize("kind", ["bytes", "pairs"])
def test_a_sentence_is_its_parts_in_a_row(kind, folder):
    found = tokens.byte_tokenizer() if kind == "bytes" else tokens.clip_tokenizer(folder)
    whole = found.encode("a photo of a 35 year old person")
    assert whole == found.encode("a photo of a") + found.encode("35") + found.encode(
        "year old person"
    )
    assert found.encode("a\u00a0b") == found.encode("a b")


def test_errors_name_the_files(folder, tmp_path):
    with pytest.raises(
        ValueError,
        match="expected tokenizer.json, or vocab.json and merges.txt; found no such folder",
    ):
        tokens.clip_tokenizer(tmp_path / "nowhere")
    shutil.copy(folder / "vocab.json", tmp_path)
    with pytest.raises(ValueError, match=r"has no tokenizer: .* found \['vocab.json'\]"):
        tokens.clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read .*: download it again"):
        tokens.clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "a</w>": 1, "<|endoftext|>": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="is not CLIP's: .* found None, 2 and"):
        tokens.clip_tokenizer(tmp_path)
