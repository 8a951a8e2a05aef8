"""SPAQ (Fang et al. 2020): the quality of 11,125 photographs of smartphones, MOS 0 to 100.

Ten random splits of 80/20, median of SRCC and PCC. Without the lists of a fold it is drawn with the
config's seed. No validation part: the last parameters are taken. Brightness, Colorfulness,
Contrast, Noisiness and Sharpness are kept as columns."""

from configs.base import finish, start
from configs.quality_sets import rated

PAPER = {"conord": "SRCC 0.927, PCC 0.931 (ConOrd, median of ten splits)"}


def get_config(argument=""):
    c, options = start("spaq", argument, method="conord", fold="all")
    rated(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
