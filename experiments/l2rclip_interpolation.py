"""RankFormer against OrdinalCLIP's interpolation, all else the same (L2RCLIP Table 7).

    python tools/sweep.py experiments/l2rclip_interpolation.py

The table has 68.2 ± 7.2 for the accuracy of L2RCLIP on Adience, where its Table 2 has 66.2 ± 4.4.
"""

from experiments.grid import runs
from experiments.published import Table

METHODS = ("l2rclip,prompt=interpolation", "l2rclip")
CLAIMS = (METHODS[::-1],)

PAPER = (
    Table(
        "L2RCLIP Table 7",
        "morph:mae clap2015:mae adience:accuracy% adience:rank_mae",
        {
            "l2rclip,prompt=interpolation": "2.19 2.78 62.9±5.5 0.42±0.06",
            "l2rclip": "2.13 2.62 68.2±7.2 0.36±0.05",
        },
    ),
)


def sweep(add):
    runs(add, ("morph", "adience"), METHODS)
    runs(add, ("clap2015",), METHODS, seeds=range(3))
