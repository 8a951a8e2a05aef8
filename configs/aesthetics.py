"""Image aesthetics (Schifanella et al. 2015): the grade of a photograph from Flickr, five grades,
four categories.

Each category is a fold and is trained on its own; the summary's mean over the categories is the
papers' "Overall". The public lists are one split of 80/20 a category, without a validation split:
the last parameters are taken. Targets 0-4. Answering the commonest grade scores 50-69 %: the
majority row says how far a method is from that."""

from configs.base import entry, finish, start
from configs.texts import concept_ranks

PAPER = {
    "zero_shot": "accuracy 55.68, MAE 0.502 overall (NumCLIP Table 3)",
    "coop": "accuracy 71.42, MAE 0.302 overall (NumCLIP Table 3)",
    "ordinalclip": "accuracy 73.05, MAE 0.280 overall (NumCLIP Table 3)",
    "l2rclip": "accuracy 76.07, MAE 0.245 overall (NumCLIP Table 3)",
    "numclip": "accuracy 76.53, MAE 0.236 overall (NumCLIP Table 3); "
    "RegCLIP 74.44, 0.264 on five folds",
}


def get_config(argument=""):
    c, options = start("aesthetics", argument, method="numclip", fold="all")
    c.data.root = "data/aesthetics"
    c.data.reader = entry(name="photos.aesthetics", protocol="fixed")
    c.data.folds = ("nature", "animals", "urban", "people")
    c.ranks.update(concept_ranks("grade"))
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
