"""The quickstart's photographs, 32-pixel crops: severity of degradation 0-4, scenes never seen in
training. About 40 s a run on two cores: 1,500 steps of 32 images. A test image is the mean of 4
crops. All labels are as frequent, so Group-DIR's claim on rare ones stands in
experiments/freshness.py.
"""

from experiments import comparison

CLAIMS = comparison.CLAIMS
CROPS = (
    {"name": "random_crop", "step": 8},
    {"name": "spread_crops", "views": 4, "step": 8},
)  # 8: whole blocks of JPEG


def sweep(add):
    comparison.runs(add, "quickstart", 48_000, *CROPS)
