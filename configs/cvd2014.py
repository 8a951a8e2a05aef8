"""CVD2014 (Nuutinen et al. 2016): the quality of 234 videos from 78 cameras, realigned MOS -6.5 to
93.4.

No public split: ten random ones of 80/20 are drawn with the seed, median of SRCC and PCC; scenes
  are in both parts. The paper
trains on LSVQ instead."""

from configs.base import finish, start
from configs.video_sets import filmed

PAPER = {"conord": "SRCC 0.839, PCC 0.845, trained on LSVQ (ConOrd Table 4)"}


def get_config(argument=""):
    c, options = start("cvd2014", argument, method="conord", fold="all")
    filmed(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
