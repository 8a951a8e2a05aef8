"""L2RCLIP without its parts on MORPH II and CLAP 2015 (L2RCLIP Table 5).

    python tools/sweep.py experiments/l2rclip_components.py

The check marks of the table are lost in its text; which column is which follows from the ordinality
scores, which SCOP leaves alone. Without RankFormer (prompt=off) the vectors of the ranks are
trained themselves.
"""

from experiments.grid import runs
from experiments.published import Table

PAPER = (
    Table(
        "L2RCLIP Table 5",
        "morph:mae morph:ordinality_score% clap2015:mae clap2015:ordinality_score%",
        {
            "l2rclip,prompt=off,cop=off,scop=off": "2.50 55.89 2.75 53.33",
            "l2rclip,cop=off,scop=off": "2.48 57.58 2.68 54.77",
            "l2rclip,prompt=off,scop=off": "2.37 66.15 2.71 57.33",
            "l2rclip,prompt=off,cop=off": "2.38 55.89 2.71 53.33",
            "l2rclip,prompt=off": "2.21 66.15 2.70 57.33",
            "l2rclip,scop=off": "2.29 71.87 2.65 67.55",
            "l2rclip,cop=off": "2.31 57.58 2.66 -",  # two figures run into each other: 55.267.55
            "l2rclip": "2.13 71.87 2.62 67.55",
        },
    ),
)
METHODS = tuple(PAPER[0].rows)
CLAIMS = tuple(("l2rclip", other) for other in METHODS[:-1])


def sweep(add):
    runs(add, ("morph",), METHODS)
    runs(add, ("clap2015",), METHODS, seeds=range(3))
