"""The order of ranks that have names: folders of images, labels that are texts.

It comes from the names that the config or the run has for its ranks, else from a number in each
name, else from a known scale that the names are the whole of. Other names are refused.
"""

import dataclasses
import re

from jaxord.data.tables import number

SHOWN = 12  # names that a message lists
SCALES = """
low medium high; low mid high; low moderate high; low middle high; low normal high
very low, low, medium, high, very high; lowest, low, medium, high, highest
none mild moderate severe; no mild moderate severe; normal mild moderate severe
mild moderate severe; none minimal mild moderate severe; healthy mild moderate severe
none mild moderate severe proliferative; normal mild moderate severe proliferative
no dr, mild, moderate, severe, proliferate dr; no dr, mild, moderate, severe, proliferative dr
no dr, mild dr, moderate dr, severe dr, proliferative dr
poor fair good excellent; poor fair good; poor average good; poor good excellent; bad good
bad fair good; bad medium good; bad average good; bad poor fair good excellent
poor, fair, good, very good, excellent
very bad, bad, fair, good, very good
very poor, poor, fair, good, very good; very poor, poor, fair, good, excellent
small medium large; extra small, small, medium, large, extra large; xs s m l xl
s m l; tiny small medium large; small large; low high; short medium long; slow medium fast
light medium heavy; easy medium hard; cold warm hot; cold cool warm hot; weak medium strong
negative neutral positive; never rarely sometimes often always; unripe ripe overripe
beginner intermediate advanced; beginner intermediate advanced expert; mild severe
strongly disagree, disagree, neutral, agree, strongly agree
"""
# The first of these, as many as the names are, in any order.
COUNTS = (
    "i ii iii iv v vi vii viii ix x xi xii",
    "zero one two three four five six seven eight nine ten",
    "one two three four five six seven eight nine ten",
    "first second third fourth fifth sixth seventh eighth ninth tenth",
)
# A prefix, a number or a range of them, a suffix: grade2, 0_2, 25-32, (60, 100), 60+, 1930s.
NUMBERED = re.compile(
    r"([^0-9]*?)([0-9]+(?:\.[0-9]+)?)(?:\s*(?:[-_–—]|,\s*|\s+to\s+)\s*([0-9]+(?:\.[0-9]+)?))?([^0-9]*)"
)
OPEN = ("+", " +", "_plus", " plus", "plus", "_and_over", " and over")  # after the last number


@dataclasses.dataclass(frozen=True)
class KnownRanks:
    """Names that ranks have -> their labels; `closed` are those of a trained run, which has no
    others."""

    labels: dict = dataclasses.field(default_factory=dict)
    closed: bool = False


def known_ranks(ranks):
    """The KnownRanks of a config's `ranks`, or of the Ranks of a run."""
    if ranks is None:
        return KnownRanks()
    closed = not hasattr(ranks, "bins")
    labels = ranks.values.tolist() if closed else ranks.labels or range(len(ranks.names))
    pairs = zip(ranks.names, labels, strict=False)
    return KnownRanks({name: float(label) for name, label in pairs}, closed)


def labels_of(names, known, where):
    """({name: label}, note on their order or "") of the distinct names of ranks.

    Numbers are the labels; of other names they are the known ones or 0, 1, 2, ... ValueError with
    `where` for names without an order, or that a run does not know.
    """
    labels = {name: number(name) for name in names}
    # Case and marks between words do not count, unless names differ in nothing else.
    alike = any(len({_plain(x) for x in some}) < len(some) for some in (names, known.labels))
    key = str if alike else _plain
    given = {key(name): label for name, label in known.labels.items()}
    own = {name: given.get(key(name)) for name in names}
    unknown = sorted(name for name in names if own[name] is None)
    if None not in labels.values():
        # The config may turn the order of numbers around; a run knows numbers as labels.
        if known.closed or len(given) != len(names) or unknown or _same_order(labels, own):
            return _distinct(labels, where), ""
        return own, _note("by ranks.names", own)
    if known.closed and unknown:
        ranks = f"the run's ranks are {list(known.labels)[:SHOWN]}"
        raise ValueError(f"{where}: unknown ranks {unknown[:SHOWN]}; {ranks}")
    if not unknown:
        return own, _note("by the run's ranks" if known.closed else "by ranks.names", own)
    if len(unknown) < len(names):
        message = f"{where}: ranks.names lacks {unknown[:SHOWN]}"
        raise ValueError(f"{message}; it must name all or none of {sorted(names)[:SHOWN]}")
    order, reason = _by_numbers(names), "by the numbers in their names"
    if order is None:
        order, reason = _by_scale(names), "by a known scale"
    if order is None:
        raise ValueError(f"{where}: {no_order(names)}")
    labels = {name: float(place) for place, name in enumerate(order)}
    return labels, f"{_note(reason, labels)}; another order: {command(order)}"


def no_order(names):
    """The message on names without an order: the command that gives one, filled in."""
    order = _by_numbers(names) or _by_scale(names) or sorted(names)
    shown = ", ".join(map(repr, order[:SHOWN])) + (", ..." if len(order) > SHOWN else "")
    return (
        f"the order of the ranks {shown} is unknown; list them from low to high: {command(order)}"
    )


def command(names):
    """The flag that gives the ranks this order."""
    text = repr(tuple(names))
    return f"--config.ranks.names={text!r}" if '"' in text else f'--config.ranks.names="{text}"'


def _note(reason, labels):
    order = sorted(labels, key=labels.get)
    shown = " < ".join(order[:SHOWN]) + (" < ..." if len(order) > SHOWN else "")
    return f"ranks ordered {reason}: {shown}"


def _plain(name):
    """A name without case and marks between words."""
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))


def _same_order(labels, others):
    return sorted(labels, key=labels.get) == sorted(others, key=others.get)


def _distinct(labels, where):
    """The labels; ValueError if two names are the same number."""
    names = {label: name for name, label in labels.items()}
    for name, label in labels.items():
        if names[label] != name:
            raise ValueError(f"{where}: {name!r} and {names[label]!r} are the same number")
    return labels


def _by_numbers(names):
    """The names in the order of the one number or range in each; None without such an order."""
    parts = [NUMBERED.fullmatch(name) for name in names]
    if None in parts or len(names) < 2:
        return None
    ranges = [(float(part[2]), float(part[3] or part[2])) for part in parts]
    order = sorted(range(len(names)), key=ranges.__getitem__)
    last = parts[order[-1]]
    prefixes = {part[1].casefold() for part in parts}
    suffixes = {part[4].casefold() for part in parts}
    if last[4].casefold() in OPEN:
        suffixes = {part[4].casefold() for part in parts if part is not last} | {""}
    # A lone minus may be the sign of the number.
    signed = any(re.search(r"(^|[^\w])[-–−]$", prefix) for prefix in prefixes)
    if len(prefixes) > 1 or len(suffixes) > 1 or signed:
        return None
    ranges = [ranges[i] for i in order]
    ascending = all(low <= high for low, high in ranges)
    apart = all(
        one[1] <= other[0] and one[0] < other[0]
        for one, other in zip(ranges, ranges[1:], strict=False)
    )
    return [names[i] for i in order] if ascending and apart else None


def _by_scale(names):
    """The names in the order of the known scale that they are the whole of; None without one."""
    plain = {_plain(name): name for name in names}
    # Stage I, Stage II: the words that all begin with are no part of the scale.
    words = [name.split() for name in plain]
    while len(words) > 1 and all(len(word) > 1 and word[0] == words[0][0] for word in words):
        words = [word[1:] for word in words]
    short = dict(zip(map(" ".join, words), plain.values(), strict=True))
    texts = [text for line in SCALES.strip().splitlines() for text in line.split(";")]
    scales = [text.split("," if "," in text else None) for text in texts]
    scales = [[_plain(step) for step in scale] for scale in scales]
    scales += [count.split()[: len(names)] for count in COUNTS]
    for steps in scales:
        for named in (plain, short):
            if len(named) == len(names) > 1 and set(steps) == set(named):
                return [named[step] for step in steps]
    return None
