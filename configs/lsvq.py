"""LSVQ (Ying et al. 2021): the quality of 39,000 videos from the web, MOS 0 to 100; trained on
28,000.

The test list has 7,220 videos; --config.data.reader.test=1080p takes the 3,561 of high resolution
instead. ConOrd needs the weights of SlowFast: without --config.data.reader.extract.motion_weights
the run says how to get them. The paper: five seeds."""

from configs.base import finish, start
from configs.video_sets import filmed

PAPER = {"conord": "SRCC 0.904, PCC 0.904; 1080p 0.818, 0.851 (ConOrd Table 4)"}


def get_config(argument=""):
    c, options = start("lsvq", argument, method="conord")
    filmed(c, folds=())
    c.data.reader.update({"lists": "patchvq", "test": "test"})
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
