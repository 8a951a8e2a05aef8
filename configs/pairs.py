"""Which methods go with which data set."""

LANGUAGE = ("coop", "l2rclip", "numclip", "ordinalclip")
REGRESSION = (
    "bmc",
    "fds",
    "focal_r",
    "gai",
    "group_dir",
    "huber",
    "inverse",
    "l1",
    "lds",
    "mse",
    "ordinal_entropy",
    "ranksim",
    "rrt",
    "sqrt_inverse",
)
RANKING = ("ce", "ce_l1", "cloc", "conord", "coral", "corn", "rnc", "supcon")
FROM_SCRATCH = tuple(sorted((*LANGUAGE, *REGRESSION, *RANKING)))
ALL = tuple(sorted((*FROM_SCRATCH, "zero_shot")))
VISION = tuple(sorted((*REGRESSION, *RANKING)))

PAIRS = {
    "quickstart": FROM_SCRATCH,  # no pretrained weights: zero_shot would guess
    "digits": FROM_SCRATCH,
    "freshness": FROM_SCRATCH,
    **dict.fromkeys(
        (
            "folder",
            "hci",
            "aesthetics",
            "morph",
            "adience",
            "clap2015",
            "agedb",
            "imdb_wiki",
            "utk",
            "cacd",
        ),
        ALL,
    ),
    **dict.fromkeys(("bid", "clive", "koniq", "spaq", "flive", "skyfinder"), ALL),
    **dict.fromkeys(("lsvq", "konvid", "live_vqc", "cvd2014", "youtube_ugc"), ALL),
    "mpiifacegaze": ("conord",),  # two angles: nothing else compares them
    "stsb": tuple(
        method for method in VISION if method not in ("supcon", "rnc", "cloc")
    ),  # no augmented sentences
}
