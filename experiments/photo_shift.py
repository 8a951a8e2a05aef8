"""The quickstart's photographs where two of the five severities, random ones, lose 80 or 90 % of
their training tiles, as RegCLIP Table 5 has it for ages: 500 steps of 32 tiles, about 20 s a run on
two cores.
"""

from experiments import comparison
from experiments.photo_quality import CROPS

METHODS = ("ce", "focal_r", "numclip")
KEPT = (1.0, 0.2, 0.1)
CLAIMS = tuple((f"numclip,keep={keep}", f"ce,keep={keep}") for keep in KEPT)
FULL = {f"{method},keep={keep}": f"{method},keep=1.0" for keep in KEPT[1:] for method in METHODS}


def sweep(add):
    for keep in KEPT:
        fields = {
            "data.shift.labels": 2 if keep < 1 else 0,
            "data.shift.keep": keep,
            "data.shift.choice": "random",
        }
        comparison.runs(
            add, "quickstart", 16_000, *CROPS, METHODS, range(2), fields, f"keep={keep}"
        )
