"""Text to ids: CLIP's byte pairs, which come with the weights, or bytes for models from scratch.

Both keep words apart, so the ids of a sentence are those of its parts in a row: encode("a b") is
encode("a") + encode("b"). `sentences` builds prompts that way.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Kinds of positions in a sentence.
TEMPLATE, CONTEXT, RANK, FILLER = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: `encode` turns a text into a list of ids, without start and end."""

    encode: Callable
    sot: int  # start of text
    eot: int  # end of text
    full_stop: int
    vocab_size: int


def byte_tokenizer():
    """UTF-8 bytes, a space behind every word, lower case as in CLIP; 258 ids, nothing to load."""

    def encode(text):
        return list("".join(word + " " for word in text.lower().split()).encode("utf-8"))

    return Tokenizer(encode, sot=256, eot=257, full_stop=ord("."), vocab_size=258)


def clip_tokenizer(folder):
    """CLIP's byte-pair encoding: NFC, lower case, spaces cleaned, numbers split into digits.

    `folder` is a checkpoint's, with tokenizer.json, or vocab.json and merges.txt. Missing or
    unreadable files, and another kind of vocabulary, are a ValueError.
    """
    folder = pathlib.Path(folder)
    single, pair = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if not single.is_file() and not all(file.is_file() for file in pair):
        found = sorted(f.name for f in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt; "
            f"found {found}. Copy them there from the checkpoint that the weights are of"
        )
    try:
        loaded = _whole_tokenizer(single) if single.is_file() else _tokenizer_from_pair(*pair)
    except Exception as error:  # tokenizers raises nothing narrower
        message = f"the tokenizer in {folder} cannot be read ({error}): download it again"
        raise ValueError(message) from error

    def encode(text):
        return loaded.encode(text, add_special_tokens=False).ids

    sot, eot = (loaded.token_to_id(f"<|{end}oftext|>") for end in ("start", "end"))
    stop = encode(".")
    if sot is None or eot is None or len(stop) != 1 or stop[0] == eot:
        raise ValueError(
            f"the tokenizer in {folder} is not CLIP's: expected ids for <|startoftext|>, "
            f"<|endoftext|> and one for a full stop, found {sot}, {eot} and {stop}"
        )
    return Tokenizer(encode, sot, eot, stop[0], loaded.get_vocab_size())


def _whole_tokenizer(file):
    # Bare `tokenizers` imports in 0.03 s; transformers' CLIPTokenizer gives the same ids (tested)
    # but takes seconds.
    from tokenizers import Tokenizer as Loaded

    loaded = Loaded.from_file(str(file))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _tokenizer_from_pair(vocabulary, merges):
    """Adds CLIP's normalisation and word pattern, which vocab.json and merges.txt lack."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Loaded

    form = dict(continuing_subword_prefix="", end_of_word_suffix="</w>")
    pairs = models.BPE.from_file(str(vocabulary), str(merges), unk_token="<|endoftext|>", **form)
    loaded = Loaded(pairs)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    steps = [normalizers.NFC(), spaces, normalizers.Lowercase()]
    loaded.normalizer = normalizers.Sequence(steps)
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(words, behavior="removed", invert=True)
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False)
    loaded.pre_tokenizer = pre_tokenizers.Sequence([split, alphabet])
    return loaded


def sentences(config: Any, names: Sequence[str], tokenizer: Tokenizer, longest: int) -> Any:
    """Token ids of each rank's sentence: <sot> template around the name, full stop, <eot>.

    The words of the template are the context. With `context_tokens` the context is that many
    placeholders around the rank, beside the template's unchanged words. With `base_names` each rank
    is as many placeholders as the longest of them has tokens. Sentences are cut to the longest
    <eot>: the text tower is causal, so nothing behind it matters.

    Args:
      config: the `prompt` part of a config.
      names: K texts.
      tokenizer: of the text tower.
      longest: number of positions of the text tower.

    Returns:
      dict(prompt_tokens=i32[K, T], prompt_slots=i32[K, T], prompt_end=i32[K]); slots are the kinds
      above. With `base_names` also prompt_base=i32[S, n], their tokens, filled up with 0.

    Raises:
      ValueError: fields of the prompt that exclude each other, or a sentence that is too long.
    """
    _check_prompt(config)
    base = [tokenizer.encode(name.replace("_", " ")) for name in config.base_names]
    rank_tokens = max([config.rank_tokens, *map(len, base)])
    before, after = (tokenizer.encode(part.strip(" .")) for part in config.template.split("{}"))
    words = TEMPLATE if config.context_tokens else CONTEXT
    ahead = _context_ahead(config)
    rows = []
    for name in names:
        # Placeholders have id 0: a prompt overwrites their embeddings.
        rank = [0] * rank_tokens if rank_tokens else tokenizer.encode(name.replace("_", " "))
        parts = [
            ([tokenizer.sot], TEMPLATE),
            ([0] * ahead, CONTEXT),
            (before, words),
            (rank, RANK),
            (after, words),
            ([0] * (config.context_tokens - ahead), CONTEXT),
            ([tokenizer.full_stop, tokenizer.eot], TEMPLATE),
        ]
        rows.append([(token, kind) for tokens, kind in parts for token in tokens])
    length = max(map(len, rows))
    if length > longest:
        worst = max(zip(map(len, rows), names, strict=True))[1]
        raise ValueError(
            f"the sentence of rank {worst!r} has {length} tokens, the text tower {longest} "
            "positions; shorten the template, the names or context_tokens"
        )
    table = np.array([row + [(0, FILLER)] * (length - len(row)) for row in rows], np.int32)
    ends = np.array([len(row) - 1 for row in rows], np.int32)
    arrays = dict(prompt_tokens=table[..., 0], prompt_slots=table[..., 1], prompt_end=ends)
    if base:
        filled = [row + [0] * (rank_tokens - len(row)) for row in base]
        arrays["prompt_base"] = np.array(filled, np.int32)
    return arrays


def _check_prompt(config):
    if config.base_names and (config.name != "RankPrompt" or config.rank_tokens):
        raise ValueError(
            "prompt.base_names says what RankPrompt's base ranks start from, and how many tokens a "
            f"rank has; found prompt.name {config.name!r} and prompt.rank_tokens "
            f"{config.rank_tokens}; expected 'RankPrompt' and 0"
        )
    if config.template.count("{}") != 1:
        raise ValueError(
            f'prompt.template needs one "{{}}" where the rank stands, found {config.template!r}'
        )


def _context_ahead(config):
    """How many of the context's placeholders stand before the rank."""
    drawn, position = config.context_tokens, config.context_position
    ahead = {"tail": drawn, "middle": drawn // 2, "front": 0}  # where the rank stands
    if position not in ahead:
        known = sorted(ahead)
        raise ValueError(f"prompt.context_position is {position!r}; it takes one of {known}")
    return ahead[position]
