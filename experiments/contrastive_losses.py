"""Contrastive losses, each with and without reference points, on ages, photographs and videos
(ConOrd Tables 5, 6, 15, 20).

    python tools/sweep.py experiments/contrastive_losses.py --slots=1

Five seeds on CLAP 2015, and on LSVQ of the three losses of Table 20; BID's ten splits are Table
20's ten seeds (our reading). On LSVQ ConOrd alone sees motion beside the frames, and the other
losses the frames only.
"""

from experiments.grid import high_resolution, runs
from experiments.published import Table

SUPCON, RNC = ("supcon", "supcon,center=on"), ("rnc,protocol=knn", "rnc,protocol=knn,center=on")
CONORD = ("conord,center=off", "conord,order=off", "conord")
SEEDED = ("supcon", "rnc,protocol=knn", "conord")
ONCE = (
    "supcon,center=on",
    "rnc,protocol=knn,center=on",
    "cloc",
    "conord,center=off",
    "conord,order=off",
)
CLAIMS = (
    ("conord", "supcon"),
    ("conord", "rnc,protocol=knn"),
    ("conord", "cloc"),
    ("rnc,protocol=knn", "supcon"),
    ("conord", "conord,center=off"),
    ("conord", "conord,order=off"),
    ("supcon,center=on", "supcon"),
)

ON_1080P = "lsvq:srcc,1080p lsvq:pcc,1080p"
PAPER = (
    Table(
        "ConOrd Table 5",
        f"clap2015:mae {ON_1080P}",
        {
            "supcon": "2.625 0.614 0.682",
            "cloc": "2.777 0.716 0.727",
            "rnc,protocol=knn": "2.531 0.812 0.843",
            "conord": "2.461 0.818 0.851",
        },
        {"OC": "2.597 0.697 0.687"},
    ),
    Table(
        "ConOrd Table 6",
        f"clap2015:mae {ON_1080P}",
        {
            "conord,center=off": "2.509 0.815 0.848",
            "conord,order=off": "2.842 0.753 0.793",
            "conord": "2.461 0.818 0.851",
        },
    ),
    Table(
        "ConOrd Table 15",
        f"clap2015:mae bid:srcc bid:pcc {ON_1080P}",
        {
            "supcon": "2.625 0.819 0.876 0.614 0.682",
            "supcon,center=on": "2.610 0.815 0.875 0.622 0.689",
            "rnc,protocol=knn": "2.531 0.892 0.906 0.812 0.843",
            "rnc,protocol=knn,center=on": "2.745 0.892 0.906 0.808 0.839",
            "conord,center=off": "2.509 0.909 0.925 0.815 0.848",
            "conord": "2.461 0.913 0.925 0.818 0.851",
        },
    ),
    Table(
        "ConOrd Table 20",
        "clap2015:mae bid:srcc bid:pcc lsvq:srcc lsvq:pcc",
        {
            "supcon": "2.6058±0.0121 0.8182±0.0052 0.8754±0.0035 0.7576±0.0034 0.7660±0.0032",
            "rnc,protocol=knn": "2.5324±0.0202 0.8901±0.0260 0.9041±0.0237 0.9024±0.0006 0.9004±0.0011",  # noqa: E501
            "conord": "2.4698±0.0122 0.9118±0.0243 0.9255±0.0183 0.9040±0.0007 0.9036±0.0009",
        },
    ),
)


def sweep(add):
    runs(add, ("clap2015",), (*SUPCON, *RNC, "cloc", *CONORD), seeds=range(5))
    runs(add, ("bid",), (*SUPCON, *RNC, "cloc", *CONORD))
    runs(add, ("lsvq",), SEEDED, seeds=range(5))
    runs(add, ("lsvq",), ONCE)


def evaluations(add):
    high_resolution(add, (*SEEDED, *ONCE))
