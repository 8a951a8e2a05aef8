"""STS-B-DIR with the encoder of the paper, 1,500 units each way, for a GPU (Group-DIR Table 3).

    python tools/sweep.py experiments/dir_sentences.py --set data.root=<folder of the three files>
    --option vectors=<GloVe file>

experiments/stsb.py is the same with a small encoder, for a CPU.
"""

from experiments.grid import runs
from experiments.published import Table

METHODS = (
    "mse",
    "rrt",
    "rrt,lds=on",
    "focal_r",
    "inverse",
    "lds",
    "fds,lds=on",
    "ranksim",
    "group_dir",
)
CLAIMS = (("group_dir", "mse"), ("group_dir", "mse", "few"), ("group_dir", "ranksim"))

SHOTS = ("", ",many", ",median", ",few")
PAPER = (
    Table(
        "Group-DIR Table 3",
        " ".join([*(f"stsb:mse{part}" for part in SHOTS), *(f"stsb:pcc{part}%" for part in SHOTS)]),
        {
            "mse": "0.974 0.851 1.520 0.984 74.2 72.0 62.7 75.2",
            "rrt": "0.964 0.842 1.503 0.978 74.5 72.4 62.3 75.4",
            "rrt,lds=on": "0.916 0.817 1.344 0.945 75.7 73.5 64.1 76.6",
            "focal_r": "0.951 0.843 1.425 0.957 74.6 72.3 61.8 76.4",
            "inverse": "1.005 0.894 1.482 1.046 72.8 70.3 62.5 73.2",
            "lds": "0.914 0.819 1.31 0.95 75.6 73.4 63.8 76.2",
            "fds,lds=on": "0.907 0.802 1.363 0.942 76.0 74.0 65.2 76.6",
            "ranksim": "0.903 0.908 0.911 0.804 75.8 70.6 69.0 82.7",
            "group_dir": "0.887 0.897 0.891 0.779 77.4 74.9 70.7 85.8",
        },
        {
            "SMOTER": "1.046 0.924 1.542 1.154 72.6 69.3 65.3 70.6",
            "SMOBN": "0.990 0.896 1.327 1.175 73.2 70.4 65.5 69.2",
            "SMOBN + LDS": "0.962 0.880 1.242 1.155 74.0 71.5 65.2 69.8",
            "VAE": "0.968 0.833 1.511 1.102 75.1 72.4 62.1 74.0",
            "DER": "1.001 0.912 1.368 1.055 73.2 71.1 64.6 74.0",
            "VIR": "0.892 0.795 0.899 0.781 77.6 75.2 69.6 84.5",
            "LDS + FDS + DER": "1.007 0.880 1.535 1.086 72.9 71.4 63.5 73.1",
        },
    ),
)


def sweep(add):
    runs(add, ("stsb",), METHODS, seeds=range(3))
