"""The weight of ConOrd's reference points beside its contrastive loss (ConOrd Table 13).

    python tools/sweep.py experiments/conord_balance.py

The table's default, 1.0, has 0.9025 and 0.9165 on BID, where the other tables have 0.913 and 0.925.
"""

from experiments import conord_settings
from experiments.published import Table

PAPER = (
    Table(
        "ConOrd Table 13",
        conord_settings.COLUMNS,
        {
            "conord,center_weight=0.5": "2.484 0.9127 0.9182 0.903 0.904",
            "conord,center_weight=0.8": "2.488 0.9023 0.9170 0.903 0.903",
            "conord,center_weight=1.0": "2.461 0.9025 0.9165 0.904 0.904",
            "conord,center_weight=1.2": "2.487 0.9005 0.9158 0.904 0.904",
            "conord,center_weight=1.5": "2.485 0.9036 0.9173 0.902 0.903",
        },
    ),
)
METHODS = tuple(PAPER[0].rows)
CLAIMS = ()


def sweep(add):
    conord_settings.runs(add, METHODS)
