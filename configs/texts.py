"""Sentences by kind of label, with their sources; and the concepts of configs/concepts, the texts
of ranges of labels.

A concept file holds the task in words, the scale (low, high, step; step 0: real numbers) and the
concepts in ascending order, each with its text, its range and its centre, and where they come from.
Both ends belong to a range; on a scale of real numbers, where one range ends at the number at which
the next starts, that number is the next one's. tools/make_concepts.py writes more.
"""

import json
import math
import pathlib
import unicodedata

CONCEPTS = pathlib.Path(__file__).parent / "concepts"
LONGEST = 40  # characters of a concept's text: sentences are short, and the text tower is

AGE, DECADE, GRADE, QUALITY, VIDEO, TEMPERATURE, OTHER = (
    "age",
    "decade",
    "grade",
    "quality",
    "video",
    "temperature",
    "other",
)

KINDS = {
    **dict.fromkeys(("morph", "clap2015", "agedb", "utk", "cacd", "imdb_wiki", "adience"), AGE),
    "hci": DECADE,
    "aesthetics": GRADE,
    **dict.fromkeys(("bid", "clive", "koniq", "spaq", "flive"), QUALITY),
    **dict.fromkeys(("lsvq", "konvid", "live_vqc", "cvd2014", "youtube_ugc"), VIDEO),
    "skyfinder": TEMPERATURE,
}

# NumCLIP's context phrases; the rank follows them.
NUMCLIP_TEMPLATES = {
    AGE: "age estimation: the person is a {}",
    DECADE: "a photo taken in the {}",
    GRADE: "aesthetics assessment: the quality of the photo is {}",
    # This and the rest but Adience's: our choice
    QUALITY: "image quality assessment: the quality of the photo is {}",
    VIDEO: "video quality assessment: the quality of the video is {}",
    TEMPERATURE: "a photo taken in {} weather",
    OTHER: "a photo of rank {}",
    "adience": "age estimation from facial image: the person is a {}",
}

# All templates of a kind of label; the first is the default of zero_shot, coop and ordinalclip.
TEMPLATES = {
    AGE: (
        # OrdinalCLIP's eight contexts
        "age estimation: the age of the person is {}",
        "age estimation: the age of the person in the portrait is {}",
        "age estimation: the age is {}",
        "age estimation: the age of the face is {}",
        "the age of the person is {}",
        "the age of the person in the portrait is {}",
        "the age is {}",
        "the age of the face is {}",
        # L2RCLIP's five
        "a photo of {} years old face",
        "age estimation: a person at the age of {}",
        "The age of the person in the portrait is {}",
        "The age of the person is {}",
        "The age of the face is {}",
        NUMCLIP_TEMPLATES[AGE],
        NUMCLIP_TEMPLATES["adience"],
    ),
    **{one: (NUMCLIP_TEMPLATES[one],) for one in (DECADE, GRADE, QUALITY, VIDEO, TEMPERATURE)},
    OTHER: (
        NUMCLIP_TEMPLATES[OTHER],
        # Of NumCLIP's configs
        "diabetic retinopathy assessment: this is a patient fundus image with {}",
    ),
}


def kind(name):
    """Kind of label of a data set."""
    return KINDS.get(name, OTHER)


def template(name, choice):
    """A template by its number in TEMPLATES, for a data set."""
    table = TEMPLATES[kind(name)]
    if not choice.isdigit() or int(choice) >= len(table):
        listing = "\n  ".join(f"{i}: {text}" for i, text in enumerate(table))
        raise ValueError(
            f"template is {choice!r}; {name} has\n  {listing}\nor set --config.prompt.template"
        )
    return table[int(choice)]


def concept_file(name):
    """Concept file of a data set: of its own name, else of its kind of label; "" where there is
    neither."""
    return next((file for file in (name, kind(name)) if (CONCEPTS / f"{file}.json").is_file()), "")


def read_concepts(choice):
    """A concept file, checked.

    Args:
      choice: name of a file in configs/concepts, or a path that ends in .json.

    Raises:
      ValueError: no such file, or one that `check_scale` or `check_concepts` refuses.
    """
    path = pathlib.Path(choice) if choice.endswith(".json") else CONCEPTS / f"{choice}.json"
    if not path.is_file():
        names = sorted(file.stem for file in CONCEPTS.glob("*.json"))
        raise ValueError(
            f"no concept file {str(path)!r}: give a path that ends in .json, or one of {names}"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        keys = ("task", "low", "high", "step", "concepts")
        if not isinstance(found, dict) or not set(keys) <= found.keys():
            raise ValueError(f"expected an object with {list(keys)}")
        scale = [found[key] for key in keys[1:4]]
        check_scale(found["task"], *scale)
        check_concepts(found["concepts"], *scale)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def concept_ranks(choice):
    """Entries of config.ranks that a concept file gives: bins, or labels where every range is one
    label."""
    found = read_concepts(choice)
    lows, highs, names = zip(
        *((float(c["low"]), float(c["high"]), c["text"]) for c in found["concepts"]), strict=True
    )
    if lows == highs:
        return {"labels": lows, "edges": (), "names": names}
    return {
        "labels": (),
        "edges": lows,
        "last": float(found["high"]),
        "step": float(found["step"]),
        "names": names,
    }


def check_scale(task, low, high, step):
    """Raises ValueError unless the task can stand in a sentence and low to high is a scale with
    that step."""
    if (
        not isinstance(task, str)
        or not task.strip()
        or not task.isprintable()
        or "{" in task
        or "}" in task
    ):
        raise ValueError(f"task is {shown(task)}; expected a printable text without braces")
    for title, value in (("low", low), ("high", high), ("step", step)):
        check_number(title, value)
    if low >= high or step < 0 or (step and not is_whole((high - low) / step)):
        raise ValueError(
            f"the scale goes from {low} to {high} by {step}; expected low < high, whole steps "
            "between them, 0 for real numbers"
        )


def check_concepts(concepts, low, high, step):
    """Raises ValueError unless distinct short texts have ranges that ascend from low to high
    without gap or overlap."""
    if not isinstance(concepts, list) or len(concepts) < 2:
        raise ValueError(f"expected a list of at least two concepts, found {shown(concepts)}")
    start, seen = low, set()
    for concept in concepts:
        if not isinstance(concept, dict) or not {"text", "low", "high"} <= concept.keys():
            raise ValueError(
                f"a concept is {shown(concept)}; expected an object with text, low and high"
            )
        text, bottom, top = concept["text"], concept["low"], concept["high"]
        if (
            not isinstance(text, str)
            or not text.isprintable()
            or not any(c.isalnum() for c in text)
            or len(text) > LONGEST
        ):
            raise ValueError(
                f"a text is {shown(text)}; expected words, at most {LONGEST} printable characters"
            )
        same = " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())
        if same in seen:
            raise ValueError(f"{shown(text)} stands twice; the texts must differ")
        seen.add(same)
        check_number(f"low of {shown(text)}", bottom)
        check_number(f"high of {shown(text)}", top)
        if not math.isclose(bottom, start, abs_tol=1e-9):
            raise ValueError(
                f"the range of {shown(text)} starts at {bottom}, expected {start}: "
                "no gap, no overlap, ascending"
            )
        if (
            top < bottom
            or (top == bottom and not step)
            or (step and not is_whole((top - bottom) / step))
        ):
            raise ValueError(
                f"the range of {shown(text)} is {bottom} to {top}, on a scale by {step}"
            )
        centre = (bottom + top) / 2
        check_number(f"centre of {shown(text)}", concept.get("centre", centre))
        if not math.isclose(concept.get("centre", centre), centre, abs_tol=1e-9):
            raise ValueError(
                f"the centre of {shown(text)} is {concept['centre']}, expected {centre}"
            )
        start = top + step
    if not math.isclose(top, high, abs_tol=1e-9):
        raise ValueError(f"the last range, of {shown(text)}, ends at {top}; expected {high}")


def check_number(title, value):
    if (
        isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e9
    ):  # NaN fails too
        raise ValueError(f"{title} is {shown(value)}; expected a number")


def is_whole(number):
    return abs(number - round(number)) < 1e-6


def shown(value):
    """What somebody else wrote, harmless on a terminal and not long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
