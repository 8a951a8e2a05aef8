"""Ages of faces: every method on six data sets (NumCLIP Table 1, L2RCLIP Tables 1 and 2 and Figure
3, ConOrd Table 2).

    python tools/sweep.py experiments/ages.py

MORPH II and Adience train all their folds; the others have three seeds. Rows of the papers under
"coop" and "ordinalclip" come from VGG-16 pretrained on IMDB-WIKI, which is not public: ours have
CLIP's tower. ResNets start from scratch; ConOrd does not say from what the rows that it quotes
start. numclip,preset=code is the public program, to which its author gives the figures.
"""

from experiments.grid import runs
from experiments.published import Table

LANGUAGE = ("zero_shot", "coop", "ordinalclip", "l2rclip", "numclip", "numclip,preset=code")
RESNETS = (
    "rnc,backbone=ResNet-18",
    "ranksim,backbone=ResNet-50",
    "ordinal_entropy,backbone=ResNet-50",
    "cloc,backbone=ResNet-50",
)
METHODS = (*LANGUAGE, "conord", *RESNETS)
CLAIMS = (
    ("coop", "zero_shot"),
    ("ordinalclip", "coop"),
    ("l2rclip", "ordinalclip"),
    ("numclip", "l2rclip"),
    ("conord", "numclip"),
)

PAPER = (
    Table(
        "NumCLIP Table 1",
        "morph:mae",
        {
            "zero_shot": "6.09",
            "coop": "2.39",
            "ordinalclip": "2.32",
            "l2rclip": "2.13",
            "numclip": "2.08",
        },
        {"AVDL": "2.37", "DRC-ORID": "2.26", "POE": "2.35", "PML": "2.31", "MWR": "2.13"},
    ),
    Table(
        "RegCLIP Table 1",
        "morph:mae",
        {"zero_shot": "6.09", "coop": "2.39", "ordinalclip": "2.32", "numclip": "2.08"},
        {"AVDL": "2.37", "DRC-ORID": "2.26", "POE": "2.35", "PML": "2.31", "MWR": "2.13"},
    ),
    Table(
        "L2RCLIP Table 1",
        "morph:mae clap2015:mae",
        {
            "zero_shot": "6.91 4.66",
            "coop": "2.39 2.75",
            "ordinalclip": "2.32 -",
            "l2rclip": "2.13 2.62",
        },
        {
            "AGEN": "2.52 2.94",
            "BridgeNet": "2.38 2.87",
            "AVDL": "2.37 -",
            "POE": "2.35 -",
            "DRC-ORID": "2.26 -",
            "PML": "2.15 2.91",
            "MWR": "2.13 2.77",
        },
    ),
    Table(
        "L2RCLIP Table 2",
        "adience:accuracy% adience:rank_mae",
        {
            "zero_shot": "43.3±3.6 0.80±0.02",
            "coop": "60.6±5.5 0.50±0.08",
            "ordinalclip": "61.2±4.2 0.47±0.06",
            "l2rclip": "66.2±4.4 0.36±0.05",
        },
        {
            "OR-CNN": "56.7 0.54",
            "CNNPOR": "57.4±5.8 0.55±0.08",
            "GP-DNNOR": "57.4±5.5 0.54±0.07",
            "SORD": "59.6±3.6 0.49±0.05",
            "POE": "60.5±4.4 0.47±0.06",
            "MWR": "62.6 0.45",
            "GOL": "62.5 0.43",
        },
    ),
    Table(
        "L2RCLIP Figure 3",
        "morph:ordinality_score%",
        {"zero_shot": "55.36", "coop": "59.92", "ordinalclip": "65.94", "l2rclip": "71.87"},
    ),
    Table(
        "ConOrd Table 2",
        "morph:mae clap2015:mae agedb:mae utk:mae cacd:mae adience:rank_mae",
        {
            "ordinalclip": "2.32 3.20 5.85 4.53 4.36 0.47",
            "rnc,backbone=ResNet-18": "2.47 4.72 6.14 4.74 5.14 0.40",
            "ranksim,backbone=ResNet-50": "3.10 5.55 6.51 4.93 4.68 0.60",
            "ordinal_entropy,backbone=ResNet-50": "3.08 5.66 6.47 4.95 4.73 0.53",
            "cloc,backbone=ResNet-50": "2.84 4.14 6.87 4.81 4.66 0.41",
            "l2rclip": "2.13 2.62 - - - 0.36",
            "numclip": "2.08 2.55 5.42 4.24 4.11 0.31",
            "conord": "1.96 2.46 5.15 3.92 4.18 0.26",
        },
        {
            "POE": "2.35 3.75 6.41 4.64 4.68 0.47",
            "PML": "2.15 2.91 6.78 4.63 4.87 0.47",
            "MWR-G": "2.24 2.82 6.18 4.49 4.76 0.46",
            "GOL": "2.17 3.38 6.21 4.35 4.52 0.43",
        },
    ),
)


def sweep(add):
    runs(add, ("morph", "adience"), METHODS)
    runs(add, ("clap2015", "agedb", "utk", "cacd"), METHODS, seeds=range(3))
