"""The distance of labels in NumCLIP's ranking weights, on MORPH II (NumCLIP Table 6).

python tools/sweep.py experiments/numclip_distances.py
"""

from experiments.grid import runs
from experiments.published import Table

DISTANCES = ("numclip,distance=absolute", "numclip,distance=sqrt", "numclip,distance=square")
CLAIMS = tuple((DISTANCES[0], other) for other in DISTANCES[1:])

PAPER = (
    Table(
        "NumCLIP Table 6", "morph:mae", dict(zip(DISTANCES, ("2.08", "2.12", "2.11"), strict=True))
    ),
)


def sweep(add):
    runs(add, ("morph",), DISTANCES)
