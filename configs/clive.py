"""CLIVE, LIVE In the Wild Challenge (Ghadiyaram and Bovik 2016): the quality of 1,162 photographs,
MOS 0 to 100.

Ten random splits of 80/20, median of SRCC and PCC. Without the lists of a fold it is drawn with the
config's seed. No validation part: the last parameters are taken."""

from configs.base import finish, start
from configs.quality_sets import rated

PAPER = {"conord": "SRCC 0.900, PCC 0.921 (ConOrd, median of ten splits)"}


def get_config(argument=""):
    c, options = start("clive", argument, method="conord", fold="all")
    rated(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
