"""Temperature of outdoor pictures and direction of the gaze, ResNet-18 from scratch (ConOrd Table
9).

    python tools/sweep.py experiments/outdoor_gaze.py

DEX is cross-entropy whose expectation predicts, method=ce. Of two angles only ConOrd can be trained
here.
"""

from experiments.grid import runs
from experiments.published import Table

METHODS = ("ce", "corn", "rnc", "conord")
CLAIMS = (("conord", "rnc"),)

PAPER = (
    Table(
        "ConOrd Table 9",
        "skyfinder:mae",
        {"ce": "3.58", "corn": "3.24", "rnc": "2.86", "conord": "2.65"},
        {"OR": "2.92", "DLDL-v2": "2.99"},
    ),
    Table(
        "ConOrd Table 9",
        "mpiifacegaze:angular_error",
        {"conord": "4.98"},
        {"DEX": "5.72", "OR": "5.86", "DLDL-v2": "5.47", "CORN": "5.88", "RnC": "5.27"},
    ),
)


def sweep(add):
    runs(add, ("skyfinder",), METHODS, seeds=range(3))
    runs(add, ("mpiifacegaze",), ("conord",))
