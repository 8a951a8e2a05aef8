"""Adience (Eidinger et al. 2014): age group of a face, eight classes, the five official folds.

One fold is the test split, the other four train; no validation split: the last parameters are
taken. Targets 0-7. The lists in use hold 17,470 images."""

from configs.base import entry, finish, start
from configs.texts import concept_ranks

PAPER = {
    "zero_shot": "accuracy 43.3, MAE 0.80 (L2RCLIP Table 2)",
    "l2rclip": "accuracy 66.2 +- 4.4 (L2RCLIP Table 2; Table 7 has 68.2 +- 7.2)",
    "conord": "MAE 0.26 (ConOrd)",
    "numclip": "MAE 0.31 (ConOrd Table 2)",
}


def get_config(argument=""):
    c, options = start("adience", argument, method="numclip", fold="all")
    c.data.root = "data/adience"
    c.data.reader = entry(name="faces.adience")
    c.data.folds = ("0", "1", "2", "3", "4")
    c.ranks.update(concept_ranks("adience"))
    c.metrics = (
        "mae",
        "rank_mae",
        "accuracy",
        "accuracy_within",
    )  # published MAE: of the rounded class
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
