"""YouTube-UGC (Wang et al. 2019): the quality of 1,140 videos of 20 seconds, MOS 1 to 5.

No public split: ten random ones of 80/20 are drawn with the seed, median of SRCC and PCC. The paper
  trains on LSVQ instead."""

from configs.base import finish, start
from configs.video_sets import filmed

PAPER = {"conord": "SRCC 0.805, PCC 0.828, trained on LSVQ (ConOrd Table 4)"}


def get_config(argument=""):
    c, options = start("youtube_ugc", argument, method="conord", fold="all")
    filmed(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
