"""How many groups? Group-DIR on STS-B-DIR with 5 to 40 groups and its three ways to classify them
(Group-DIR Figures 7 and 8).

    python tools/sweep.py experiments/group_counts.py --set data.root=<folder of the three files>
    --option vectors=<GloVe file>

Each run's groups.json has the histograms of true and predicted groups and the mean distance of each
(Figures 2, 4 and 5).
"""

METHODS = tuple(
    f"group_dir,classifier={classifier},count={count}"
    for classifier in ("soft", "ce", "la")
    for count in (5, 10, 20, 40)
)
CLAIMS = ()


def sweep(add):
    for method in METHODS:
        add(
            method,
            f"configs/stsb.py:method={method},size=small",
            {"seed": 0, "train.curves": ("train",)},
        )
