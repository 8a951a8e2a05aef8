"""AgeDB with a part of its training images (ConOrd Table 18, Figure 12a).

    python tools/sweep.py experiments/reduced_data.py

Each age keeps the same share, rounded down, and one image at least; the paper may have drawn from
all of them together.
"""

from experiments.grid import runs
from experiments.published import across

METHODS = ("supcon", "rnc,protocol=knn", "conord")
RATIOS = (0.1, 0.3, 0.5, 0.8, 1.0)
SETTINGS = tuple(f"ratio={ratio}" for ratio in RATIOS)
CLAIMS = tuple(
    (f"conord,{setting}", f"{other},{setting}") for setting in SETTINGS for other in METHODS[:2]
)

PAPER = (
    across(
        "ConOrd Table 18",
        "agedb:mae",
        SETTINGS,
        {
            "supcon": "6.948 6.022 5.855 5.457 5.361",
            "rnc,protocol=knn": "6.953 6.009 5.655 5.287 5.192",
            "conord": "6.690 5.881 5.574 5.261 5.145",
        },
    ),
)


def sweep(add):
    for ratio, setting in zip(
        RATIOS, SETTINGS, strict=True
    ):  # the shift of data.shift, of every age
        fields = {"data.shift.labels": 1000, "data.shift.keep": ratio} if ratio < 1 else {}
        runs(add, ("agedb",), METHODS, seeds=range(3), fields=fields, suffix=setting)
