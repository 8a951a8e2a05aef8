"""AgeDB-DIR (Moschoglou et al. 2017, split of Yang et al. 2021): age, 1 to 101 years, imbalanced; 12,208 / 2,140 / 2,140."""

from ml_collections import ConfigDict

from configs.base import finish, start

PAPER = {
    "numclip": "MAE 5.42 (ConOrd Table 3)",
}


def get_config(argument=""):
    c, options = start("agedb", argument, method="numclip")
    c.data.root = "data/agedb"
    c.data.reader = ConfigDict({"name": "faces.agedb"}, type_safe=False)
    c.ranks.labels = tuple(float(age) for age in range(0, 102))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
