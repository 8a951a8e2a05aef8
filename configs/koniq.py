"""KonIQ-10k (Hosu et al. 2020): the quality of 10,073 photographs, MOS 0 to 100.

Ten random splits of 80/20, median of SRCC and PCC. Without the lists of a fold it is drawn with the
config's seed. No validation part: the last parameters are taken. `:fold=official` is the data set's
own split of 7,058 / 1,000 / 2,015."""

from configs.base import finish, start
from configs.quality_sets import FOLDS, rated

PAPER = {"conord": "SRCC 0.947, PCC 0.958 (ConOrd, median of ten splits)"}


def get_config(argument=""):
    c, options = start("koniq", argument, method="conord", fold="all")
    official = c.fold == "official"
    rated(c, folds=() if official else FOLDS)
    c.data.reader.protocol = "official" if official else "random"
    c.fold = "" if official else c.fold
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
