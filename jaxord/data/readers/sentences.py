"""Reader of sentence pairs, their words, and pretrained word vectors.

N pairs, T tokens.
"""

import collections
import pathlib
import re

import numpy as np

from jaxord import binding
from jaxord.data import readers
from jaxord.data.inputs import Given
from jaxord.data.records import Records, require
from jaxord.data.tables import read_table

PADDING, UNKNOWN = (
    "<padding>",
    "<unknown>",
)  # ids 0 and 1; no token looks so, since brackets stand alone
COLUMNS = ("sentence1", "sentence2")
FILES = {"train": "train", "val": "dev", "test": "test"}
TITLES = "Mr|Mrs|Ms|Dr|St|Sen|Gov|Rep|Gen|Lt|Col|Capt|Sgt|Prof|Rev|Inc|Corp|Co|Ltd|Jr|Sr|vs|No|Jan|Feb|Aug|Sept|Oct|Nov|Dec"
SPLITTING = (  # (pattern, what it becomes), one after the other; then blanks part the tokens
    (r'(^|[\s(\[{<])"', r"\1 `` "),  # an opening quote
    (r'"', " '' "),
    (r"[\[\](){}<>;@#$%&?!*“”„«»‘’]|`+|\.{2,}|--", r" \g<0> "),
    (r"[,:](?!\d)", r" \g<0> "),  # not in 3,000 and 10:30
    (
        rf"\b(?!(?:{TITLES})\.)(\w\w+)\.(?=\s+[\"'`(]*[A-Z])",
        r"\1 . ",
    ),  # a sentence ends inside the text
    (
        r"(?<=[^.\s])\.(?=[\s)\]}>\"'”’]*$)",
        " . ",
    ),  # and at its end; other full stops belong to abbreviations
    (r"(?i)(?<!\w)'(?!(?:s|m|d|ll|re|ve|t|n)\b)(?=\w)", "' "),
    (r"(?i)(?<=\w)(?:n't|'(?:s|m|d|ll|re|ve))(?!\w)", r" \g<0>"),  # ca n't, it 's
    (r"(?<=[^\s'])'(?=\s|$)", " '"),
    (
        r"(?i)\b(?:can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|gim(?=me\b)|lem(?=me\b))",
        r"\g<0> ",
    ),
)
COMPILED = tuple((re.compile(pattern), text) for pattern, text in SPLITTING)


def tokenize(text):
    """Words and punctuation of a text, in the manner of NLTK's word_tokenize, whose conventions
    word vectors share.

    Contractions are split ("ca", "n't"), double quotes become `` and ''. NLTK finds the ends of
    sentences inside the text by a trained model; here a full stop before a capital ends one, unless
    it follows a title or a single letter.
    """
    for pattern, replacement in COMPILED:
        text = pattern.sub(replacement, text)
    return text.split()


def stsb(root, *, fold, seed, tokens=40, words=30_000, lower=False):
    """STS-B-DIR: 5,249 / 1,000 / 1,000 pairs of sentences with a similarity of 0 to 5 (Yang et al.
    2021).

    Inputs: sentences i32[N, 2, T] and sentence_mask bool[N, 2, T]; ids are places in `vocabulary`,
      0 is padding, 1 unknown.
    Columns: sentence1 and sentence2.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        tokens: T; what a sentence has beyond is cut off.
        words: size of the vocabulary without padding and unknown: the most frequent words of all
          three splits.
        lower: take all letters as small ones, for vectors of such words (GloVe's of Twitter,
          Wikipedia and the 42B set).
    """
    about = (
        "lists: YyzHarry/imbalanced-regression on GitHub, sts-b-dir/glue_data/STS-B.\n"
        "layout: <root>/{train,dev,test}_new.tsv, tab-separated with the columns sentence1, sentence2 and score"
    )
    files = require(root, [f"{name}_new.tsv" for name in FILES.values()], about)
    tables = dict(zip(FILES, map(read_table, files), strict=True))
    pairs = {split: _pairs(table, tokens, lower) for split, table in tables.items()}
    counts = collections.Counter(
        word for part in pairs.values() for pair in part for sentence in pair for word in sentence
    )
    vocabulary = (PADDING, UNKNOWN, *(word for word, _ in counts.most_common(words)))
    ids = {word: i for i, word in enumerate(vocabulary)}
    return {
        split: _records(split, tables[split], pairs[split], ids, tokens, vocabulary)
        for split in FILES
    }


def given(data, vocabulary):
    """How a run on sentence pairs takes others: pairs of texts, in files as tables with the columns
    sentence1 and sentence2.

    A row is called by its column `path` where there is one, else <file without extension>/<row>,
    rows from 0.

    Args:
        data: config.data.
        vocabulary: of the training.

    Returns:
        jaxord.data.inputs.Given.

    Raises:
        ValueError: a run without vocabulary.
    """
    if not vocabulary:
        raise ValueError(
            "the run has no vocabulary.json; --mode=evaluate, where its data are, writes it"
        )
    settings = binding.settings_of(readers.reader(data.reader))
    tokens, lower, ids = (
        settings["tokens"],
        settings["lower"],
        {word: i for i, word in enumerate(vocabulary)},
    )

    def listed(source, root):
        if root:
            raise ValueError("--root means nothing to pairs of sentences; the table holds them")
        table = read_table(source)
        pairs = list(zip(*(table.texts(name) for name in COLUMNS), strict=True))
        stem = pathlib.PurePath(source).stem
        return table.texts("path") if "path" in table.names else [
            f"{stem}/{row}" for row in range(len(pairs))
        ], pairs

    def read(pair):
        if (
            isinstance(pair, str)
            or len(pair) != 2
            or not all(isinstance(text, str) for text in pair)
        ):
            raise ValueError(f"{pair!r} is no pair of sentences; expected two texts")
        words = _words(pair, tokens, lower)
        if not all(words):
            raise ValueError("a sentence is empty")
        return {name: array[0] for name, array in _arrays([words], ids, tokens).items()}

    return Given(
        "pairs of sentences",
        listed,
        read,
        {k: array[0] for k, array in _arrays([[]], ids, tokens).items()},
    )


def _pairs(table, tokens, lower):
    """[[tokens of sentence1, tokens of sentence2], ...] of a table."""
    pairs = [_words(pair, tokens, lower) for pair in zip(*map(table.texts, COLUMNS), strict=True)]
    for line, pair in zip(table.lines, pairs, strict=True):
        if not all(pair):
            raise ValueError(f"{table.path}, line {line}: a sentence is empty")
    return pairs


def _words(pair, tokens, lower):
    """[tokens of the one text, tokens of the other]."""
    return [tokenize(text.lower() if lower else text)[:tokens] for text in pair]


def _arrays(pairs, ids, tokens):
    """{"sentences": i32[N, 2, T], "sentence_mask": bool[N, 2, T]} of N pairs of lists of words."""
    sentences = np.zeros((len(pairs), 2, tokens), np.int32)
    mask = np.zeros(sentences.shape, bool)
    for row, pair in enumerate(pairs):
        for side, sentence in enumerate(pair):
            sentences[row, side, : len(sentence)] = [ids.get(word, 1) for word in sentence]
            mask[row, side, : len(sentence)] = True
    return {"sentences": sentences, "sentence_mask": mask}


def _records(split, table, pairs, ids, tokens, vocabulary):
    scores = table.numbers("score")
    wrong = np.flatnonzero((scores < 0) | (scores > 5))
    if len(wrong):
        raise ValueError(
            f"{table.path}, line {table.lines[wrong[0]]}: score {scores[wrong[0]]:g}, expected 0 to 5"
        )
    return Records(
        paths=tuple(f"{FILES[split]}/{row}" for row in range(len(pairs))),
        targets=scores,
        read=None,
        columns={name: np.array(table.texts(name)) for name in COLUMNS},
        name=f"stsb {split}",
        inputs=_arrays(pairs, ids, tokens),
        vocabulary=vocabulary,
    )
