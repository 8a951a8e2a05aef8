"""ConOrd's thirteen choices of similarity, attraction and repulsion (ConOrd Tables 1, 7 and 14;
Figure 15 are their curves).

python tools/sweep.py experiments/conord_weights.py
"""

from experiments import conord_settings
from experiments.published import Table

ROWS = {
    "conord,weights=I": "2.516 0.9095 0.9263 0.902 0.901",
    "conord,weights=II": "2.494 0.9044 0.9180 0.904 0.904",
    "conord,weights=III": "2.483 0.9078 0.9235 0.903 0.903",
    "conord,weights=IV": "2.518 0.9088 0.9241 0.904 0.903",
    "conord,weights=V": "2.497 0.9086 0.9246 0.903 0.902",
    "conord,weights=VI": "2.490 0.9096 0.9257 0.903 0.902",
    "conord,weights=VII": "2.472 0.9105 0.9242 0.902 0.902",
    "conord,weights=VIII": "2.461 0.9128 0.9250 0.904 0.904",
    "conord,weights=IX": "2.536 0.6951 0.6948 0.834 0.830",
    "conord,weights=X": "2.880 0.6679 0.6854 0.882 0.881",
    "conord,weights=XI": "2.473 0.9099 0.9240 0.901 0.900",
    "conord,weights=XII": "2.500 0.9038 0.9199 0.901 0.900",
    "conord,weights=XIII": "2.500 0.8958 0.9143 0.900 0.899",
}
PAPER = (
    Table("ConOrd Table 14", conord_settings.COLUMNS, ROWS),
    Table(
        "ConOrd Table 7",
        "clap2015:mae",
        {label: row.split()[0] for label, row in list(ROWS.items())[:10]},
    ),
)
CLAIMS = tuple(("conord,weights=VIII", other) for other in ROWS if other != "conord,weights=VIII")


def sweep(add):
    conord_settings.runs(add, ROWS)
