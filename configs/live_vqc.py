"""LIVE-VQC (Sinno and Bovik 2018): the quality of 585 videos from phones, MOS 0 to 100.

No public split: ten random ones of 80/20 are drawn with the seed, median of SRCC and PCC. The paper
  trains on LSVQ instead."""

from configs.base import finish, start
from configs.video_sets import filmed

PAPER = {"conord": "SRCC 0.836, PCC 0.865, trained on LSVQ (ConOrd Table 4)"}


def get_config(argument=""):
    c, options = start("live_vqc", argument, method="conord", fold="all")
    filmed(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
