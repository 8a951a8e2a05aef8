"""Text to ids: CLIP's byte pairs, which come with the weights, or plain bytes for models from
scratch.

Both keep words apart, so that the ids of a sentence are those of its parts, one after the other:
encode("a b") is encode("a") + encode("b"). Prompts are put together that way.
"""

import dataclasses
import pathlib
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: `encode` turns a text into a list of ids, without start and end."""

    encode: Callable
    sot: int  # start of text
    eot: int  # end of text
    full_stop: int
    vocab_size: int


def byte_tokenizer():
    """UTF-8 bytes with a space behind every word, lower case as in CLIP; 258 ids, nothing to
    load."""

    def encode(text):
        return list("".join(word + " " for word in text.lower().split()).encode("utf-8"))

    return Tokenizer(encode, sot=256, eot=257, full_stop=ord("."), vocab_size=258)


def clip(folder):
    """CLIP's byte-pair encoding from a checkpoint's folder: NFC, lower case, spaces cleaned,
    numbers split into digits.

    Args:
      folder: holds tokenizer.json, or vocab.json and merges.txt.

    Raises:
      ValueError: the files are not there, cannot be read, or are not CLIP's kind of vocabulary.
    """
    # Bare `tokenizers` imports in 0.03 s; transformers' CLIPTokenizer gives the same ids (tested)
    # but takes seconds.
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Loaded

    folder = pathlib.Path(folder)
    single, pair = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if not single.is_file() and not all(file.is_file() for file in pair):
        found = sorted(f.name for f in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt; found {found}. "
            "Copy them there from the checkpoint that the weights are of"
        )
    try:
        if single.is_file():
            loaded = Loaded.from_file(str(single))
            loaded.no_truncation()
            loaded.no_padding()
        else:
            loaded = Loaded(
                models.BPE.from_file(
                    *map(str, pair),
                    unk_token="<|endoftext|>",
                    continuing_subword_prefix="",
                    end_of_word_suffix="</w>",
                )
            )
            loaded.normalizer = normalizers.Sequence(
                [
                    normalizers.NFC(),
                    normalizers.Replace(Regex(r"\s+"), " "),
                    normalizers.Lowercase(),
                ]
            )
            words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
            loaded.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            )
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(
            f"the tokenizer in {folder} cannot be read ({error}): download it again"
        ) from error

    def encode(text):
        return loaded.encode(text, add_special_tokens=False).ids

    sot, eot, stop = (
        loaded.token_to_id("<|startoftext|>"),
        loaded.token_to_id("<|endoftext|>"),
        encode("."),
    )
    if sot is None or eot is None or len(stop) != 1 or stop[0] == eot:
        raise ValueError(
            f"the tokenizer in {folder} is not CLIP's: expected ids for <|startoftext|>, <|endoftext|> and one for a "
            f"full stop, found {sot}, {eot} and {stop}"
        )
    return Tokenizer(
        encode, sot=sot, eot=eot, full_stop=stop[0], vocab_size=loaded.get_vocab_size()
    )
