"""Quality of photographs on five data sets (ConOrd Table 3): medians over ten splits, FLIVE's own
split with three seeds.

python tools/sweep.py experiments/quality.py
"""

from experiments.grid import runs
from experiments.published import Table

CLAIMS = ()

SETS = ("bid", "clive", "koniq", "spaq", "flive")
PAPER = (
    Table(
        "ConOrd Table 3",
        " ".join(f"{name}:{metric}" for name in SETS for metric in ("srcc", "pcc")),
        {"conord": "0.913 0.925 0.900 0.921 0.947 0.958 0.927 0.931 0.651 0.752"},
        {
            "BMPRI": "0.515 0.458 0.487 0.523 0.658 0.655 0.750 0.754 0.274 0.315",
            "SFA": "0.826 0.840 0.812 0.833 0.888 0.897 0.906 0.907 0.542 0.626",
            "DB-CNN": "0.845 0.859 0.844 0.862 0.878 0.887 0.910 0.913 0.554 0.652",
            "PaQ-2-PiQ": "- - 0.840 0.850 0.870 0.880 - - 0.571 0.623",
            "HyperIQA": "0.869 0.878 0.859 0.882 0.906 0.917 0.916 0.919 0.535 0.623",
            "UNIQUE": "0.858 0.873 0.854 0.890 0.896 0.901 - - - -",
            "MUSIQ": "- - - - 0.905 0.919 0.917 0.920 0.640 0.721",
            "TReS": "- - 0.846 0.877 0.915 0.928 - - 0.554 0.625",
            "Madhusudana et al.": "- - 0.845 0.857 0.894 0.906 0.914 0.919 0.580 0.641",
            "Re-IQA": "- - 0.840 0.854 0.914 0.923 0.918 0.925 0.645 0.733",
            "QPT": "0.842 0.852 0.857 0.881 0.912 0.927 0.916 0.921 0.551 0.635",
            "LQMamba-B": "- - 0.837 0.875 0.895 0.913 0.912 0.914 - -",
            "LoDa": "- - 0.876 0.899 0.932 0.944 0.925 0.928 0.578 0.679",
            "QCN": "0.892 0.890 0.875 0.893 0.934 0.945 0.923 0.928 0.644 0.741",
        },
    ),
)


def sweep(add):
    runs(add, SETS[:4], ("conord",))
    runs(add, SETS[4:], ("conord",), seeds=range(3))
