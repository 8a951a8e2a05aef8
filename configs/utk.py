"""UTKFace (Zhang et al. 2017), the split of coral: age, 21 to 60 years; 13,146 / 3,287."""

from configs.base import entry, finish, start

PAPER = {"conord": "MAE 3.92 (ConOrd)", "numclip": "MAE 4.24 (ConOrd Table 2)"}


def get_config(argument=""):
    c, options = start("utk", argument, method="numclip")
    c.data.root = "data/utk"
    c.data.reader = entry(name="faces.utk")
    c.ranks.labels = tuple(float(age) for age in range(21, 61))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
