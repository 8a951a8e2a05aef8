"""Sentences and rank texts by kind of label, with their sources."""

AGE, DECADE, GRADE, OTHER = "age", "decade", "grade", "other"

KINDS = {
    **dict.fromkeys(("morph", "clap2015", "agedb", "utk", "cacd", "adience"), AGE),
    "hci": DECADE,
    "aesthetics": GRADE,
}

# NumCLIP's context phrases; the rank follows them.
NUMCLIP_TEMPLATES = {
    AGE: "age estimation: the person is a {}",
    DECADE: "a photo taken in the {}",
    GRADE: "aesthetics assessment: the quality of the photo is {}",
    OTHER: "a photo of rank {}",  # our choice
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
    DECADE: (NUMCLIP_TEMPLATES[DECADE],),
    GRADE: (NUMCLIP_TEMPLATES[GRADE],),
    OTHER: (
        NUMCLIP_TEMPLATES[OTHER],
        "diabetic retinopathy assessment: this is a patient fundus image with {}",  # of NumCLIP's configs
    ),
}

# Coarse concepts of NumCLIP / RegCLIP: the left edges of the bins, the last label, the texts.
AGE_CONCEPTS = {
    "edges": (0.0, 13.0, 19.0, 35.0, 65.0),
    "last": 100.0,
    "names": ("child", "teenager", "young adult", "middle adult", "older adult"),
}

DECADES = ("1930s", "1940s", "1950s", "1960s", "1970s")
GRADES = ("unacceptable", "flawed", "ordinary", "professional", "exceptional")
# The classes of Adience; no paper's text file is public, these are the ranges of the data set.
ADIENCE = ("0-2", "4-6", "8-12", "15-20", "25-32", "38-43", "48-53", "60+")


def kind(name):
    """Kind of label of a data set."""
    return KINDS.get(name, OTHER)


def template(name, choice):
    """A template by its number in TEMPLATES, for a data set."""
    table = TEMPLATES[kind(name)]
    if not choice.isdigit() or int(choice) >= len(table):
        listing = "\n  ".join(f"{i}: {text}" for i, text in enumerate(table))
        raise ValueError(f"template is {choice!r}; {name} has\n  {listing}\nor set --config.prompt.template")
    return table[int(choice)]
