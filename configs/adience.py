"""Adience (Eidinger et al. 2014): age group of a face, eight classes, the five official folds.

One fold is the test split, the other four train; no validation split: the last parameters are taken. Targets 0-7. The lists
in use hold 17,470 images."""

from ml_collections import ConfigDict

from configs.base import finish, start
from configs.texts import ADIENCE

PAPER = {
    "zero_shot": "accuracy 43.3, MAE 0.80 (L2RCLIP Table 2)",
    "numclip": "MAE 0.31 (ConOrd Table 3)",
}


def get_config(argument=""):
    c, options = start("adience", argument, method="numclip", fold="all")
    c.data.root = "data/adience"
    c.data.reader = ConfigDict({"name": "faces.adience"}, type_safe=False)
    c.data.folds = ("0", "1", "2", "3", "4")
    c.ranks.labels = tuple(float(group) for group in range(8))
    c.ranks.names = ADIENCE
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
