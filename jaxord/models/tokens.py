"""Text to ids: CLIP's byte pairs, which come with the weights, or plain bytes for models from
scratch.

Both keep words apart, so that the ids of a sentence are those of its parts, one after the other:
encode("a b") is encode("a") + encode("b"). Prompts are put together that way.
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


def sentences(config: Any, names: Sequence[str], tokenizer: Tokenizer, longest: int) -> Any:
    """Token ids of the sentence of each rank: <sot> template with the rank's name in it, full stop,
    <eot>.

    The words of the template are the context. With `context_tokens` the context is that many
    placeholders around the rank, and the template's words stand beside them unchanged. With
    `base_names` each rank is as many placeholders as the longest of them has tokens. Sentences are
    cut to the longest <eot>: the text tower is causal, so what follows it changes nothing.

    Args:
      config: the `prompt` part of a config.
      names: K texts.
      tokenizer: from jaxord.models.tokens.
      longest: number of positions of the text tower.

    Returns:
      dict(prompt_tokens=i32[K, T], prompt_slots=i32[K, T], prompt_end=i32[K]); slots say template
      0, context 1, rank 2, filler 3. With `base_names` also prompt_base=i32[S, n], their tokens,
      shorter ones filled up with 0.

    Raises:
      ValueError: a template without its one "{}", an unknown position, base names for a prompt that
        has no base ranks or beside rank_tokens, or a sentence longer than the text tower.
    """
    if config.base_names and (config.name != "RankPrompt" or config.rank_tokens):
        raise ValueError(
            "prompt.base_names says what RankPrompt's base ranks start from, and how many tokens a rank has; found "
            f"prompt.name {config.name!r} and prompt.rank_tokens {config.rank_tokens}; expected 'RankPrompt' and 0"
        )
    if config.template.count("{}") != 1:
        raise ValueError(
            f'prompt.template needs one "{{}}" where the rank stands, found {config.template!r}'
        )
    before, after = (tokenizer.encode(part.strip(" .")) for part in config.template.split("{}"))
    base = [tokenizer.encode(name.replace("_", " ")) for name in config.base_names]
    placeholders = max([config.rank_tokens, *map(len, base)])
    drawn = config.context_tokens
    words = TEMPLATE if drawn else CONTEXT
    ahead = {"tail": drawn, "middle": drawn // 2, "front": 0}
    if config.context_position not in ahead:
        raise ValueError(
            f"prompt.context_position is {config.context_position!r}; it takes one of {sorted(ahead)}"
        )
    ahead = ahead[config.context_position]
    rows = []
    for name in names:
        rank = [0] * placeholders if placeholders else tokenizer.encode(name.replace("_", " "))
        parts = [
            ([tokenizer.sot], TEMPLATE),
            ([0] * ahead, CONTEXT),
            (before, words),
            (rank, RANK),
            (after, words),
            ([0] * (drawn - ahead), CONTEXT),
            ([tokenizer.full_stop, tokenizer.eot], TEMPLATE),
        ]
        rows.append([(token, kind) for tokens, kind in parts for token in tokens])
    length = max(map(len, rows))
    if length > longest:
        worst = max(zip(map(len, rows), names, strict=True))[1]
        raise ValueError(
            f"the sentence of rank {worst!r} has {length} tokens, the text tower {longest} positions; shorten the "
            "template, the names or context_tokens"
        )
    table = np.array(
        [row + [(0, FILLER)] * (length - len(row)) for row in rows], np.int32
    )  # [K, T, 2]
    made = {
        "prompt_tokens": table[..., 0],
        "prompt_slots": table[..., 1],
        "prompt_end": np.array([len(row) - 1 for row in rows], np.int32),
    }
    if base:
        made["prompt_base"] = np.array(
            [row + [0] * (placeholders - len(row)) for row in base], np.int32
        )
    return made
