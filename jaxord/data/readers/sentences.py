"""Reader of sentence pairs and their words; N pairs, T tokens."""

import collections
import pathlib
import re

import numpy as np

from jaxord import binding
from jaxord.data import readers
from jaxord.data.data_sets import published
from jaxord.data.inputs import InputKind
from jaxord.data.records import Records
from jaxord.data.tables import read_table

PADDING, UNKNOWN = "<padding>", "<unknown>"  # ids 0 and 1; tokenize separates brackets from words
COLUMNS = ("sentence1", "sentence2")
FILES = {"train": "train", "val": "dev", "test": "test"}
TITLES = (
    "Mr|Mrs|Ms|Dr|St|Sen|Gov|Rep|Gen|Lt|Col|Capt|Sgt|Prof|Rev|Inc|Corp|Co|Ltd|Jr|Sr|vs|No"
    "|Jan|Feb|Aug|Sept|Oct|Nov|Dec"
)
CONTRACTED = r"can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|gim(?=me\b)|lem(?=me\b)"
# (pattern, replacement), applied in this order; then blanks separate the tokens.
SPLITTING = (
    (r'(^|[\s(\[{<])"', r"\1 `` "),  # an opening quote
    (r'"', " '' "),
    (r"[\[\](){}<>;@#$%&?!*“”„«»‘’]|`+|\.{2,}|--", r" \g<0> "),
    (r"[,:](?!\d)", r" \g<0> "),  # not in 3,000 and 10:30
    # A full stop ends a sentence inside the text and at its end; others belong to abbreviations.
    (rf"\b(?!(?:{TITLES})\.)(\w\w+)\.(?=\s+[\"'`(]*[A-Z])", r"\1 . "),
    (r"(?<=[^.\s])\.(?=[\s)\]}>\"'”’]*$)", " . "),
    (r"(?i)(?<!\w)'(?!(?:s|m|d|ll|re|ve|t|n)\b)(?=\w)", "' "),
    (r"(?i)(?<=\w)(?:n't|'(?:s|m|d|ll|re|ve))(?!\w)", r" \g<0>"),  # ca n't, it 's
    (r"(?<=[^\s'])'(?=\s|$)", " '"),
    (rf"(?i)\b(?:{CONTRACTED})", r"\g<0> "),
)
COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in SPLITTING)


def tokenize(text):
    """Words and punctuation of a text in the manner of NLTK's word_tokenize, as word vectors use.

    Contractions are split ("ca", "n't"), double quotes become `` and ''. NLTK finds sentence ends
    by a trained model; here a full stop before a capital ends one, unless it follows a title or a
    single letter.
    """
    for pattern, replacement in COMPILED:
        text = pattern.sub(replacement, text)
    return text.split()


def stsb(root, *, fold, seed, tokens=40, words=30_000, lower=False):
    """STS-B-DIR (Yang et al. 2021): 5,249 / 1,000 / 1,000 sentence pairs of similarity 0 to 5.

    Inputs: sentences i32[N, 2, T] and sentence_mask bool[N, 2, T]; ids index `vocabulary`, 0 is
    padding, 1 unknown. Columns: sentence1 and sentence2. `tokens` is T, where sentences are cut;
    `words` the size of the vocabulary, the most frequent of all splits; `lower` lower-cases the
    text, for such vectors (GloVe's of Twitter, Wikipedia and the 42B set).
    """
    files = [f"{name}_new.tsv" for name in FILES.values()]
    tables = dict(zip(FILES, published(root, "stsb").tables(files), strict=True))
    pairs = {split: _pairs(table, tokens, lower) for split, table in tables.items()}
    sentences = (sentence for part in pairs.values() for pair in part for sentence in pair)
    counts = collections.Counter(word for sentence in sentences for word in sentence)
    vocabulary = (PADDING, UNKNOWN, *(word for word, _ in counts.most_common(words)))
    return {name: _records(name, tables[name], pairs[name], vocabulary, tokens) for name in FILES}


def input_kind(data, vocabulary):
    """A run on sentence pairs takes pairs of texts, or tables with sentence1 and sentence2.

    The column `path` names a row, else <file without extension>/<row>, rows from 0. ValueError
    without a vocabulary.
    """
    if not vocabulary:
        hint = "--mode=evaluate writes it on a machine with its data"
        raise ValueError(f"the run has no vocabulary.json; {hint}")
    # Words are split as in training, which the reader of the config decides.
    settings = binding.settings_of(readers.reader(data.reader))
    tokens, lower = settings["tokens"], settings["lower"]
    ids = {word: i for i, word in enumerate(vocabulary)}

    def listed(source, root):
        if root:
            raise ValueError("--root means nothing to pairs of sentences; the table holds them")
        table = read_table(source)
        pairs = list(zip(*map(table.texts, COLUMNS), strict=True))
        stem = pathlib.PurePath(source).stem
        names = [f"{stem}/{row}" for row in range(len(pairs))]
        return table.texts("path") if "path" in table.names else names, pairs

    def one_row(pairs):
        return {name: array[0] for name, array in _arrays(pairs, ids, tokens).items()}

    def read(pair):
        is_pair = not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            raise ValueError(f"{pair!r} is no pair of sentences; expected two texts")
        words = _words(pair, tokens, lower)
        if not all(words):
            raise ValueError("a sentence is empty")
        return one_row([words])

    return InputKind("pairs of sentences", listed, read, one_row([[]]))


def _pairs(table, tokens, lower):
    """[[tokens of sentence1, tokens of sentence2], ...] of a table."""
    pairs = [_words(pair, tokens, lower) for pair in zip(*map(table.texts, COLUMNS), strict=True)]
    empty = [line for line, pair in zip(table.lines, pairs, strict=True) if not all(pair)]
    if empty:
        raise ValueError(f"{table.path}, line {empty[0]}: a sentence is empty")
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


def _records(split, table, pairs, vocabulary, tokens):
    scores = table.numbers("score")
    wrong = np.flatnonzero((scores < 0) | (scores > 5))
    if len(wrong):
        where = f"{table.path}, line {table.lines[wrong[0]]}"
        raise ValueError(f"{where}: score {scores[wrong[0]]:g}, expected 0 to 5")
    ids = {word: i for i, word in enumerate(vocabulary)}
    paths = tuple(f"{FILES[split]}/{row}" for row in range(len(pairs)))
    columns = {name: np.array(table.texts(name)) for name in COLUMNS}
    words = {"inputs": _arrays(pairs, ids, tokens), "vocabulary": vocabulary}
    return Records(paths, scores, None, columns, f"stsb {split}", **words)
