"""The first run's method: those that lead experiments/photo_quality.py beside cross-entropy plus
L1, at the length of configs/quickstart.py. About 3 minutes a run on one core. The best on the
validation scenes is the default.
"""

METHODS = ("ce_l1", "ce", "corn")
CLAIMS = ()


def sweep(add):
    for seed in range(2):
        for method in METHODS:
            add(method, f"configs/quickstart.py:method={method}", {"seed": seed})
