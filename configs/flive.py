"""FLIVE, also PaQ-2-PiQ or LIVE-FB (Ying et al. 2020): the quality of 39,810 photographs, MOS 0 to
100.

The official split, about 30,000 / 7,800 / 1,800; lists without the validation part give the last
parameters."""

from configs.base import finish, start
from configs.quality_sets import rated

PAPER = {"conord": "SRCC 0.651, PCC 0.752 (ConOrd)"}


def get_config(argument=""):
    c, options = start("flive", argument, method="conord")
    rated(c, folds=())
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
