"""What the tables of ConOrd's settings share: three data sets, three seeds on ages, ten splits of
BID, one run on LSVQ."""

from experiments import grid

COLUMNS = "clap2015:mae bid:srcc bid:pcc lsvq:srcc lsvq:pcc"


def runs(add, labels):
    """Adds the runs of these labels."""
    grid.runs(add, ("clap2015",), labels, seeds=range(3))
    grid.runs(add, ("bid", "lsvq"), labels)
