"""BID (Ciancio et al. 2011): the quality of 586 photographs with real blur, MOS 0 to 5.

Ten random splits of 80/20, median of SRCC and PCC. Without the lists of a fold it is drawn with the
config's seed. No validation part: the last parameters are taken."""

from configs.base import finish, start
from configs.quality_sets import rated

PAPER = {"conord": "SRCC 0.913, PCC 0.925 (ConOrd, median of ten splits)"}


def get_config(argument=""):
    c, options = start("bid", argument, method="conord", fold="all")
    rated(c)
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
