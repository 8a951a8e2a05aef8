"""NumCLIP without its parts on MORPH II, with all images (NumCLIP Table 5) and with one of each age
(RegCLIP Table 6).

python tools/sweep.py experiments/numclip_components.py
"""

from experiments.grid import runs
from experiments.published import Table

PARTS = (
    "numclip,concepts=off,regularizer=off",
    "numclip,concepts=off",
    "numclip,regularizer=off",
    "numclip",
)
ONE = "shots=1"
CLAIMS = (
    *(("numclip", part) for part in PARTS[:3]),
    *((f"numclip,{ONE}", f"{part},{ONE}") for part in PARTS[:3]),
)

PAPER = (
    Table(
        "NumCLIP Table 5",
        "morph:mae",
        dict(zip(PARTS, ("2.25", "2.15", "2.16", "2.08"), strict=True)),
    ),
    Table(
        "RegCLIP Table 6",
        "morph:mae",
        {
            f"{part},{ONE}": figure
            for part, figure in zip(PARTS, ("4.46", "4.23", "3.87", "3.61"), strict=True)
        },
    ),
)


def sweep(add):
    runs(add, ("morph",), PARTS)
    runs(add, ("morph",), PARTS, fields={"data.shots": 1}, suffix=ONE)
