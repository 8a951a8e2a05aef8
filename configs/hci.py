"""Historical colour images (Palermo et al. 2012): the decade of a photograph, 1930s to 1970s.

265 images a decade; ten random splits of 210 / 5 / 50 a decade, drawn with the config's seed (no
split is public, and ten folds of 50 do not fit into 265). Targets 0-4. The command trains all ten
and prints mean and standard deviation."""

from configs.base import entry, finish, start
from configs.texts import concept_ranks

PAPER = {
    "zero_shot": "accuracy 26.08 +- 0.56, MAE 1.48 +- 0.03 (NumCLIP Table 2)",
    "coop": "accuracy 51.90 +- 2.60, MAE 0.76 +- 0.06 (NumCLIP Table 2)",
    "ordinalclip": "accuracy 56.44 +- 1.66, MAE 0.67 +- 0.03 (NumCLIP Table 2)",
    "l2rclip": "accuracy 67.22, MAE 0.43 (NumCLIP Table 2)",
    "numclip": "accuracy 69.61 +- 2.02, MAE 0.35 +- 0.03 (NumCLIP Table 2)",
}


def get_config(argument=""):
    c, options = start("hci", argument, method="numclip", fold="all")
    c.data.root = "data/hci"
    c.data.reader = entry(name="photos.hci")
    c.data.folds = tuple(str(k) for k in range(10))
    c.ranks.update(concept_ranks("decade"))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
