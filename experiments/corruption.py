"""Trained on clean faces, evaluated on damaged ones: 19 kinds of damage, five severities (ConOrd
Table 19, Figure 12b).

    pip install -e ".[corruptions]" && python tools/sweep.py experiments/corruption.py

A figure of a severity is the mean over the kinds; severity 0 is the clean test split.
"""

from experiments.grid import runs
from experiments.published import Table
from jaxord.data.corrupt import NAMES

METHODS = ("supcon", "rnc,protocol=knn", "conord")
SEVERITIES = range(1, 6)
CLAIMS = tuple(
    ("conord", other, *part)
    for other in METHODS[:2]
    for part in ((), *((f"severity={s}",) for s in SEVERITIES))
)

PAPER = (
    Table(
        "ConOrd Table 19",
        " ".join(["agedb:mae", *(f"agedb:mae,severity={severity}" for severity in SEVERITIES)]),
        {
            "supcon": "5.361 6.454 7.273 8.196 9.648 11.577",
            "rnc,protocol=knn": "5.192 6.253 7.127 7.957 9.311 11.165",
            "conord": "5.145 5.993 6.718 7.430 8.589 10.187",
        },
    ),
)


def sweep(add):
    runs(add, ("agedb",), METHODS, seeds=range(3))


def evaluations(add):
    for method in METHODS:
        for severity in SEVERITIES:
            for kind in NAMES:
                fields = {"data.corruption.name": kind, "data.corruption.severity": severity}
                add(
                    "agedb",
                    method,
                    f"severity={severity}/{kind}",
                    f"configs/agedb.py:method={method}",
                    fields,
                )
