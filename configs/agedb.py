"""AgeDB-DIR (Moschoglou et al. 2017, split of Yang et al. 2021): age, 1 to 101 years, imbalanced;
12,208 / 2,140 / 2,140.

The backbone of the papers on imbalance is backbone=ResNet-50 from scratch."""

from configs.base import entry, finish, start

R50 = "ResNet-50 from scratch, Group-DIR Table 1"
PAPER = {
    "conord": "MAE 5.15 (ConOrd Table 2)",
    "numclip": "MAE 5.42 (ConOrd Table 2)",
    "ordinalclip": "MAE 5.85 (VGG-16, ConOrd Table 2)",
    "rnc": "MAE 6.14 (ResNet-18, ConOrd Table 2)",
    "cloc": "MAE 6.87 (ResNet-50, ConOrd Table 2)",
    "ordinal_entropy": "MAE 6.47 (ResNet-50, ConOrd Table 2)",
    "group_dir": f"MAE 6.87 (many 6.54, median 6.96, few 9.83), GM 4.30 (4.10, 4.39, 6.45) ({R50})",
    "l1": f"MAE 7.77 (6.62, 9.55, 13.67), GM 5.05 ({R50})",
    "rrt": "MAE 7.74 (6.98, 8.79, 11.99), GM 5.00; "
    f"with LDS 7.72 (7.00, 8.75, 11.62), GM 4.98 ({R50})",
    "focal_r": f"MAE 7.64 (6.68, 9.22, 13.00), GM 4.90 ({R50})",
    "sqrt_inverse": f"MAE 7.81 (7.16, 8.80, 11.20), GM 4.99 ({R50})",
    "lds": f"MAE 7.67 (6.98, 8.86, 10.89), GM 4.85 ({R50})",
    "fds": f"with LDS: MAE 7.55 (7.01, 8.24, 10.79), GM 4.72 ({R50})",
    "ranksim": f"MAE 7.02 (6.49, 7.84, 9.68), GM 4.53 ({R50}); 6.51 (ConOrd Table 2)",
}


def get_config(argument=""):
    c, options = start("agedb", argument, method="numclip")
    c.data.root = "data/agedb"
    c.data.reader = entry(name="faces.agedb")
    c.ranks.labels = tuple(float(age) for age in range(0, 102))
    c.groups.high = 102.0  # groups over 0..101
    c.weights.high = 121.0  # the program counts ages 0..120
    c.shots.kind = "count"
    c.metrics = ("mae", "geometric_mean_error", "balanced_mae", "mse", "srcc", "pcc")
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
