"""KoNViD-1k (Hosu et al. 2017): the quality of 1,200 videos of everyday life, MOS 1 to 5.

No public split: ten random ones of 80/20 are drawn with the seed, median of SRCC and PCC. The paper
  trains on LSVQ instead."""

from configs.base import finish, start
from configs.video_sets import filmed

PAPER = {"conord": "SRCC 0.889, PCC 0.892, trained on LSVQ (ConOrd Table 4)"}


def get_config(argument=""):
    c, options = start("konvid", argument, method="conord", fold="all")
    filmed(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
