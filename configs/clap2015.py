"""CLAP 2015 (ChaLearn, Escalera et al. 2015): apparent age, 3 to 85 years; trained on train and
validation, tested on test."""

from configs.base import entry, finish, start

PAPER = {
    "zero_shot": "MAE 4.66 (L2RCLIP Table 2)",
    "l2rclip": "MAE 2.62 (L2RCLIP Table 2); L2RCLIP-I 2.78",
    "conord": "MAE 2.46 (ConOrd)",
    "numclip": "MAE 2.55 (ConOrd Table 2)",
}


def get_config(argument=""):
    c, options = start("clap2015", argument, method="numclip")
    c.data.root = "data/clap2015"
    c.data.reader = entry(name="faces.clap2015")
    c.ranks.labels = tuple(float(age) for age in range(3, 86))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
