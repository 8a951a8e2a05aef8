"""The temperature of ConOrd's loss (ConOrd Table 10, Figure 10).

python tools/sweep.py experiments/conord_temperature.py
"""

from experiments import conord_settings
from experiments.published import Table

PAPER = (
    Table(
        "ConOrd Table 10",
        conord_settings.COLUMNS,
        {
            "conord,temperature=0.05": "2.475 0.910 0.925 0.904 0.904",
            "conord,temperature=0.06": "2.462 0.912 0.926 0.903 0.903",
            "conord,temperature=0.07": "2.461 0.913 0.925 0.904 0.904",
            "conord,temperature=0.08": "2.480 0.913 0.931 0.903 0.904",
            "conord,temperature=0.09": "2.466 0.911 0.921 0.903 0.903",
            "conord,temperature=0.10": "2.530 0.911 0.924 0.903 0.903",
            "conord,temperature=0.50": "2.576 0.901 0.913 0.897 0.893",
            "conord,temperature=1.00": "2.591 0.888 0.905 0.897 0.894",
            "conord,temperature=1.50": "2.589 0.883 0.901 0.895 0.892",
            "conord,temperature=2.00": "2.770 0.888 0.900 0.892 0.890",
        },
    ),
)
METHODS = tuple(PAPER[0].rows)
CLAIMS = ()


def sweep(add):
    conord_settings.runs(add, METHODS)
