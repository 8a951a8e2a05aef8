"""What sets of rated photographs share: ranks from mean opinion scores (MOS), metrics, ten random
splits."""

from configs.base import entry
from configs.texts import concept_ranks

FOLDS = tuple(str(k) for k in range(10))


def rated(c, folds=FOLDS):
    """Sets the data, ranks and metrics of a set of rated photographs.

    Methods that need ranks get five equal bins of the scale, bad to excellent (our choice: the
    papers regress). The shorter side of a photograph is resized and its aspect kept, because
    stretching changes the quality. Figures over the ten splits are medians, as in the papers; these
    splits have no validation part, so the last parameters are taken.
    """
    c.data.root = f"data/{c.name}"
    c.data.reader = entry(name=f"quality.{c.name}")
    c.data.folds = folds
    c.data.resize = "shorter"
    c.ranks.update(concept_ranks(c.name))
    c.metrics = ("srcc", "pcc", "mae")
    c.select, c.select_metric = "last" if folds else "val", "srcc"
    c.summary = "median" if folds else "mean"
