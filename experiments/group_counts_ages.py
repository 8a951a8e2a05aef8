"""How many groups of ages? Group-DIR's three ways to classify them on AgeDB-DIR (Group-DIR Figures
2 to 5, 7 and 8).

    python tools/sweep.py experiments/group_counts_ages.py

The figures print no numbers; their text names 15, 20, 25 and 40 groups. Each run's groups.json has
the histograms and distances of Figures 2, 4 and 5; curves of both splits, of the regression alone
and of the true and the predicted expert, are Figure 3.
"""

from experiments.grid import runs

COUNTS = (10, 15, 20, 25, 40)
METHODS = tuple(
    f"group_dir,classifier={classifier},count={count}"
    for classifier in ("soft", "ce", "la")
    for count in COUNTS
)
CLAIMS = tuple(
    (f"group_dir,classifier=soft,count={count}", f"group_dir,classifier={other},count={count}")
    for count in COUNTS
    for other in ("ce", "la")
)


def sweep(add):
    runs(
        add,
        ("agedb",),
        ("mse", *METHODS),
        option="backbone=ResNet-50",
        fields={"train.curves": ("train",)},
    )
