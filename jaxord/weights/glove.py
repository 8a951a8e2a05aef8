"""Pretrained word vectors: GloVe text files."""

import os

import numpy as np
from absl import logging


def vectors(path, words, seed):
    """The table f32[len(words), D] of word vectors that a tower of sentences starts from.

    A word without a vector gets one from N(0, 1), padding (the first word) zeros. Logs how many
    words have one.

    Args:
      path: of a GloVe text file: a word and its D numbers a line, separated by blanks.
      words: the vocabulary of Records: padding, unknown, then words.
      seed: of the run.

    Raises:
      ValueError: no such file, a line that is no vector, or none of the words in it.
    """
    if not os.path.isfile(path):
        raise ValueError(
            f"no word vectors at {path!r} (config.model.vectors); it is a GloVe text file: a word, "
            "its numbers"
        )
    places = {word: place for place, word in enumerate(words) if place > 1}
    rows, dim = {}, 0
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            dim = dim or len(line.split()) - 1
            word = line.partition(" ")[0]
            if word not in places:
                continue
            name, *values = line.rstrip().rsplit(" ", dim)
            if name != word and len(values) == dim:
                continue  # GloVe's largest file has words with blanks in them, such as ". . ."
            vector = _floats(values)
            if len(vector) != dim or not np.isfinite(vector).all():
                expected = f"expected a word and {dim} finite numbers, found {line[:60]!r}"
                raise ValueError(f"{path}, line {number}: {expected}")
            rows[places[word]] = vector
    total = len(words) - 2
    if not rows:
        some = list(words[2:7])
        raise ValueError(
            f"{path} has none of the {total} words, such as {some}; is it a GloVe text file?"
        )
    draw = np.random.Generator(np.random.Philox(key=seed % 2**64))
    table = draw.standard_normal((len(words), dim), np.float32)
    table[0] = 0
    table[list(rows)] = list(rows.values())
    logging.info("%d of %d words have a vector of %d numbers in %s", len(rows), total, dim, path)
    return table


def _floats(values):
    """f32 array of texts; empty if one is no number."""
    try:
        with np.errstate(over="ignore"):  # too large becomes infinite
            return np.array(values, np.float32)
    except ValueError:
        return np.empty(0)
