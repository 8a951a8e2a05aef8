"""IMDB-WIKI-DIR (Rothe et al. 2018, split of Yang et al. 2021): age, imbalanced; 191,500 / 11,000 /
11,000.

Ages are computed from dates of birth and are noisy: a few in the list are impossible. Ranks end at
120. The papers' backbone is backbone=ResNet-50 from scratch."""

from configs.base import entry, finish, start

R50 = "ResNet-50 from scratch, Group-DIR Table 2"
PAPER = {
    "group_dir": "MAE 7.22 (many 6.71, median 11.42, few 20.25), "
    f"GM 3.88 (3.68, 5.74, 11.13) ({R50})",
    "l1": f"MAE 8.06 (7.23, 15.12, 26.33), GM 4.57 ({R50})",
    "rrt": f"with LDS: MAE 7.79 (7.08, 13.76, 24.64), GM 4.34 ({R50})",
    "lds": f"MAE 7.83 (7.31, 12.43, 22.51), GM 4.42 ({R50})",
    "bmc": f"MAE 8.08 (7.52, 12.47, 23.29) ({R50})",
    "gai": f"MAE 8.12 (7.58, 12.27, 23.05) ({R50})",
    "ranksim": f"MAE 7.50 (6.93, 12.09, 21.68), GM 4.19 ({R50})",
}


def get_config(argument=""):
    c, options = start("imdb_wiki", argument, method="group_dir")
    c.data.root = "data/imdb_wiki"
    c.data.reader = entry(name="faces.imdb_wiki")
    c.ranks.labels = tuple(float(age) for age in range(0, 121))
    c.groups.high = c.weights.high = 121.0
    c.shots.kind = "count"
    c.metrics = ("mae", "geometric_mean_error", "balanced_mae", "mse", "srcc", "pcc")
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
