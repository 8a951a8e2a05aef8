"""What L2RCLIP's rank templates start from, on MORPH II (L2RCLIP Table 6: 2.14 ± 0.01 and 71.57 ±
0.40 over the five).

    python tools/sweep.py experiments/l2rclip_templates.py

The numbers are those of configs/texts.py: "a photo of {} years old face" is 8, "the age of the face
is {}" 12.
"""

from experiments.grid import runs
from experiments.published import Table

PAPER = (
    Table(
        "L2RCLIP Table 6",
        "morph:mae morph:ordinality_score%",
        {
            "l2rclip,template=8": "2.13 71.87",
            "l2rclip,template=9": "2.14 72.07",
            "l2rclip,template=10": "2.12 71.32",
            "l2rclip,template=11": "2.16 71.52",
            "l2rclip,template=12": "2.14 71.08",
        },
    ),
)
CLAIMS = ()


def sweep(add):
    runs(add, ("morph",), PAPER[0].rows)
