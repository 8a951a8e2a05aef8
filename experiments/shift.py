"""Distribution shift on MORPH II: 10 to 40 ages lose 80 or 90 % of their training images (RegCLIP
Table 5, L2RCLIP Table 4).

    python tools/sweep.py experiments/shift.py

The ages are the most frequent ones, as in the public program; the papers say random ones, --set
data.shift.choice=random.
"""

import itertools

from experiments.grid import runs
from experiments.published import across

METHODS = ("coop", "ordinalclip", "l2rclip", "numclip")
ALL = "labels=0"  # with all training images
SHIFTS = {
    f"labels={labels},keep={keep}": (labels, keep)
    for labels, keep in itertools.product((10, 20, 30, 40), (0.2, 0.1))
}
CLAIMS = tuple(
    (f"{first},{shift}", f"ordinalclip,{shift}")
    for shift in SHIFTS
    for first in ("l2rclip", "numclip")
)

FULL = {f"{method},{shift}": f"{method},{ALL}" for method in METHODS for shift in SHIFTS}

SETTINGS = (ALL, *SHIFTS)  # the figures with all images are those of Table 1
SHARED = {
    "coop": "2.39 2.71 2.85 2.98 3.51 3.06 3.36 2.99 3.30",
    "ordinalclip": "2.32 2.61 2.67 2.77 3.06 2.86 3.21 2.84 3.12",
}
PAPER = (
    across(
        "RegCLIP Table 5",
        "morph:mae",
        SETTINGS,
        {**SHARED, "numclip": "2.08 2.43 2.50 2.66 2.92 2.78 3.00 2.75 2.97"},
    ),
    across(
        "L2RCLIP Table 4",
        "morph:mae",
        SETTINGS,
        {**SHARED, "l2rclip": "2.13 2.28 2.30 2.37 2.43 2.51 2.61 2.68 2.79"},
    ),
)


def sweep(add):
    for setting, (labels, keep) in {ALL: (0, 1.0), **SHIFTS}.items():
        runs(
            add,
            ("morph",),
            METHODS,
            fields={"data.shift.labels": labels, "data.shift.keep": keep},
            suffix=setting,
        )
