"""Decades of photographs, ten random splits (NumCLIP and RegCLIP Table 2, L2RCLIP Table 9, where
two rows cannot be read).

python tools/sweep.py experiments/hci.py
"""

from experiments.grid import runs
from experiments.published import Table

METHODS = ("zero_shot", "coop", "ordinalclip", "l2rclip", "numclip", "numclip,preset=code")
CLAIMS = (("ordinalclip", "coop"), ("l2rclip", "ordinalclip"), ("numclip", "l2rclip"))

COLUMNS = "hci:accuracy% hci:mae"
SHARED = {
    "zero_shot": "26.08±0.56 1.48±0.03",
    "coop": "51.90±2.60 0.76±0.06",
    "ordinalclip": "56.44±1.66 0.67±0.03",
}
OTHERS = {
    "CNNPOR": "50.12±2.65 0.82±0.05",
    "POE": "54.68±3.21 0.67±0.04",
    "MWR": "57.8 0.58",
    "GOL": "56.2 0.55",
    "Ord2Seq": "59.5 0.53",
}
PAPER = (
    Table(
        "NumCLIP Table 2",
        COLUMNS,
        {**SHARED, "l2rclip": "67.22±1.59 0.43±0.03", "numclip": "69.61±2.02 0.35±0.03"},
        OTHERS,
    ),
    Table("RegCLIP Table 2", COLUMNS, {**SHARED, "numclip": "69.61±2.02 0.35±0.03"}, OTHERS),
    Table(
        "L2RCLIP Table 9",
        COLUMNS,
        {
            "zero_shot": "30.41±3.32 1.01±0.03",
            "coop": "51.94±2.60 0.76±0.06",
            "ordinalclip": "56.44±1.66 0.67±0.03",
            "l2rclip": "67.22±1.59 0.43±0.02",
        },
        {
            "CNNPOR": "50.12±2.65 0.82±0.05",
            "GP-DNNOR": "46.60±2.98 0.76±0.05",
            "POE": "54.68±3.21 0.76±0.04",
        },
    ),
)


def sweep(add):
    runs(add, ("hci",), METHODS)
