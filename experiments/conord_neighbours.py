"""How many neighbours predict: finished ConOrd runs evaluated with other k, without training again
(ConOrd Table 12).

python tools/sweep.py experiments/conord_neighbours.py
"""

from experiments.grid import runs
from experiments.published import Table

CLAIMS = ()

METRICS = {"clap2015": ("mae",), "agedb": ("mae",), "bid": ("srcc", "pcc"), "lsvq": ("srcc", "pcc")}
COUNTS = {  # k -> the figures of each of these metrics
    4: "2.461 5.232 0.910 0.924 0.894 0.892",
    10: "2.483 5.159 0.913 0.925 0.901 0.900",
    20: "2.496 5.158 0.909 0.923 0.903 0.903",
    30: "2.503 5.158 0.910 0.924 0.904 0.904",
    40: "2.496 5.154 0.910 0.923 0.904 0.904",
    50: "2.487 5.158 0.910 0.923 0.904 0.904",
    60: "2.486 5.145 0.910 0.923 0.904 0.904",
}
PAPER = tuple(
    Table(
        "ConOrd Table 12",
        " ".join(f"{name}:{metric},k={k}" for name, some in METRICS.items() for metric in some),
        {"conord": figures},
    )
    for k, figures in COUNTS.items()
)


def sweep(add):
    runs(add, ("clap2015", "agedb"), ("conord",), seeds=range(3))
    runs(add, ("bid", "lsvq"), ("conord",))


def evaluations(add):
    for name in METRICS:
        for k in COUNTS:
            add(name, "conord", f"k={k}", f"configs/{name}.py:method=conord,k={k}", {})
