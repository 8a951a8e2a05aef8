"""MORPH II (Ricanek and Tesafaye 2006), setting A: age of 5,492 faces, 16 to 77 years.

Five independent random splits of 80/20; whether the papers print one or their mean they do not say:
the command trains all five, and fold 0 stands in its own folder. No validation split: the last
parameters are taken."""

from configs.base import entry, finish, start

PAPER = {
    "zero_shot": "MAE 6.09 (NumCLIP Table 1), 6.91 (L2RCLIP Table 1)",
    "coop": "MAE 2.39 (NumCLIP Table 1)",
    "ordinalclip": "MAE 2.32 (NumCLIP Table 1)",
    "numclip": "MAE 2.08 (NumCLIP Table 1)",
    "l2rclip": "MAE 2.13 (L2RCLIP Table 1); L2RCLIP-I 2.19 (Table 7)",
    "conord": "MAE 1.96 (ConOrd)",
}


def get_config(argument=""):
    c, options = start("morph", argument, method="numclip", fold="all")
    c.data.root = "data/morph"
    c.data.reader = entry(name="faces.morph", setting="A")
    c.data.folds = ("0", "1", "2", "3", "4")
    c.ranks.labels = tuple(float(age) for age in range(16, 78))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
