"""MPIIFaceGaze (Zhang et al. 2017): where a face looks, pitch and yaw in radians; the metric is the
angular error in degrees.

15 participants, none in two splits: fold k tests on the participants k and k + 1 and validates on
  the two after them,
which gives the published sizes of 33,000 / 6,000 (and 6,000 for validation). Which participants are
tested on is not published; the command trains all fifteen folds. data.reader.test=1,
data.reader.val=0 leaves one participant out. Images are not mirrored: the targets would have to be,
too."""

from configs.base import entry, finish, start

PAPER = {"conord": "angular error 4.98 degrees (ResNet-18, ConOrd Table 9)"}


def get_config(argument=""):
    c, options = start("mpiifacegaze", argument, method="conord", fold="all", backbone="ResNet-18")
    c.data.root = "data/mpiifacegaze"
    c.data.reader = entry(name="gaze.mpiifacegaze", test=2, val=2)
    c.data.folds = tuple(str(k) for k in range(15))
    c.data.flip = False
    c.metrics = ("angular_error",)
    c.select_metric = "angular_error"
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
