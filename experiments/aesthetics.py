"""Grades of photographs in four categories, each trained on its own (NumCLIP and RegCLIP Table 3,
L2RCLIP Table 8).

    python tools/sweep.py experiments/aesthetics.py

The mean over the categories is the papers' "Overall", and ± beside it is the spread between
categories. NumCLIP and L2RCLIP use one split of 80/20 a category, numclip,preset=regclip RegCLIP's
five folds. Answering the commonest grade comes to 50-69 %.
"""

from experiments.grid import runs
from experiments.published import Table

METHODS = (
    "zero_shot",
    "coop",
    "ordinalclip",
    "l2rclip",
    "numclip",
    "numclip,preset=code",
    "numclip,preset=regclip",
)
CLAIMS = (("ordinalclip", "coop"), ("l2rclip", "ordinalclip"), ("numclip", "l2rclip"))

COLUMNS = " ".join(
    f"aesthetics:{metric}{part}{unit}"
    for metric, unit in (("accuracy", "%"), ("mae", ""))
    for part in (",nature", ",animals", ",urban", ",people", "")
)
SHARED = {
    "zero_shot": "65.24 45.67 58.78 53.06 55.68 0.461 0.557 0.468 0.524 0.502",
    "coop": "72.74 71.46 72.14 69.34 71.42 0.285 0.298 0.294 0.330 0.302",
    "ordinalclip": "73.65 72.85 73.20 72.50 73.05 0.273 0.279 0.277 0.291 0.280",
}
L2RCLIP = {"l2rclip": "73.51 75.26 77.76 78.69 76.07 0.267 0.253 0.216 0.246 0.245"}
OTHERS = {
    "CNNPOR": "71.86 69.32 69.09 69.94 70.05 0.294 0.322 0.325 0.321 0.316",
    "SORD": "73.59 70.29 73.25 70.59 72.03 0.271 0.308 0.276 0.309 0.290",
    "POE": "73.62 71.14 72.78 72.22 72.44 0.273 0.299 0.281 0.293 0.287",
    "GOL": "73.8 72.4 74.2 69.6 72.7 0.27 0.28 0.26 0.31 0.28",
}
PAPER = (
    Table(
        "NumCLIP Table 3",
        COLUMNS,
        {
            **SHARED,
            **L2RCLIP,
            "numclip": "75.20 75.24 79.49 76.17 76.53 0.249 0.250 0.208 0.238 0.236",
        },
        OTHERS,
    ),
    Table(
        "RegCLIP Table 3",
        COLUMNS,
        {
            **SHARED,
            "numclip,preset=regclip": "75.76 71.59 76.21 74.19 74.44 0.249 0.292 0.243 0.273 0.264",
        },
        OTHERS,
    ),
    Table("L2RCLIP Table 8", COLUMNS, {**SHARED, **L2RCLIP}, OTHERS),
)


def sweep(add):
    runs(add, ("aesthetics",), METHODS)
