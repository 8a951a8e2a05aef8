"""CACD (Chen et al. 2014), the split of MWR: age of celebrities, 14 to 62 years."""

from configs.base import entry, finish, start

PAPER = {"conord": "MAE 4.18 (ConOrd)", "numclip": "MAE 4.11 (ConOrd Table 2)"}


def get_config(argument=""):
    c, options = start("cacd", argument, method="numclip")
    c.data.root = "data/cacd"
    c.data.reader = entry(name="faces.cacd")
    c.ranks.labels = tuple(float(age) for age in range(14, 63))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
