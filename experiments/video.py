"""Quality of videos: trained on LSVQ, evaluated there and on four other sets without training
(ConOrd Table 4).

    python tools/sweep.py experiments/video.py --set data.reader.extract.motion_weights=<SlowFast>

The other sets are split in ten random ways as for training, and a figure is the mean over the ten
test parts, a fifth each.
"""

from experiments.grid import VIDEO, high_resolution, runs
from experiments.published import Table

CLAIMS = ()

PARTS = ("", ",1080p", *(f",{name}" for name in VIDEO))
PAPER = (
    Table(
        "ConOrd Table 4",
        " ".join(f"lsvq:{metric}{part}" for part in PARTS for metric in ("srcc", "pcc")),
        {"conord": "0.904 0.904 0.818 0.851 0.889 0.892 0.836 0.865 0.839 0.845 0.805 0.828"},
        {
            "TVLQM": "0.772 0.774 0.589 0.616 0.732 0.724 0.670 0.691 - - - -",
            "VSFA": "0.801 0.796 0.675 0.704 0.810 0.811 0.753 0.795 0.756 0.760 0.718 0.721",
            "VIDEVAL": "0.794 0.783 0.545 0.554 0.751 0.741 0.630 0.640 - - - -",
            "PVQ": "0.827 0.828 0.711 0.739 0.791 0.795 0.770 0.807 - - - -",
            "Li22": "0.852 0.854 0.772 0.788 0.843 0.835 0.793 0.811 0.817 0.811 0.802 0.792",
            "SimpleVQA": "0.866 0.863 0.750 0.793 0.826 0.820 0.749 0.789 0.780 0.802 0.802 0.806",
            "FastVQA": "0.876 0.877 0.779 0.814 0.859 0.855 0.823 0.844 0.805 0.814 0.730 0.747",
            "DOVER": "0.888 0.889 0.795 0.830 0.884 0.883 0.832 0.855 0.829 0.832 - -",
            "KSVQE": "0.886 0.888 0.790 0.823 - - - - - - - -",
            "ModularBVQA": "0.895 0.895 0.809 0.844 0.878 0.884 0.806 0.844 0.823 0.839 0.788 0.804",  # noqa: E501
        },
    ),
)


def sweep(add):
    runs(add, ("lsvq",), ("conord",), seeds=range(5))


def evaluations(add):
    high_resolution(add, ("conord",))
    for name in VIDEO:
        add("lsvq", "conord", name, f"configs/{name}.py:method=conord", {})
