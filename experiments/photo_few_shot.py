"""The quickstart's photographs with 4 to 256 tiles of each severity, as NumCLIP Table 4 has it for
ages: 500 steps of 32 tiles, about 20 s a run on two cores.
"""

from experiments import comparison
from experiments.photo_quality import CROPS

METHODS = ("ce", "focal_r", "numclip")
SHOTS = (4, 16, 64, 256)
CLAIMS = tuple((f"numclip,shots={n}", f"ce,shots={n}") for n in SHOTS)


def sweep(add):
    for n in SHOTS:
        comparison.runs(
            add, "quickstart", 16_000, *CROPS, METHODS, range(2), {"data.shots": n}, f"shots={n}"
        )
