"""FGrade: how far tomatoes have gone, 1-10, imbalanced; 32-pixel inputs. About 40 s a run on two
cores: 1,500 steps of 32.

python tools/sweep.py experiments/freshness.py --set data.root=<folder of FGrade>
"""

from experiments import comparison

CLAIMS = comparison.CLAIMS + comparison.FEW_SHOT


def sweep(add):
    comparison.runs(add, "freshness", 48_000, {"name": "random_crop"}, {"name": "center_crop"})
