"""SkyFinder (Mihail et al. 2016): the temperature in degrees Celsius when a webcam took the
picture.

The published sizes are 28,373 / 3,522 (and 3,522 for validation); the list is not public. Default:
the pictures taken at 11 o'clock, of each camera a tenth for validation and a tenth for testing,
drawn with the config's seed, which gives about these sizes (our reading); data.reader.by=camera
keeps the cameras apart instead. Methods that need ranks get bins from freezing cold to hot (our
choice)."""

from configs.base import entry, finish, start
from configs.texts import concept_ranks

PAPER = {
    "conord": "MAE 2.65 (ResNet-18, ConOrd Table 9)",
    "rnc": "MAE 2.86 (ResNet-18, ConOrd Table 9)",
    "corn": "MAE 3.24 (ResNet-18, ConOrd Table 9)",
}


def get_config(argument=""):
    c, options = start("skyfinder", argument, method="conord", backbone="ResNet-18")
    c.data.root = "data/skyfinder"
    c.data.reader = entry(name="outdoor.skyfinder", by="image", hours=(11,))
    c.ranks.update(concept_ranks("skyfinder"))
    c.metrics = ("mae", "srcc", "pcc")
    c.paper = PAPER.get(c.method, "")
    return finish(c, options)
