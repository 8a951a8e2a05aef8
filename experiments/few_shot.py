"""MORPH II with 1 to 64 images of each age (NumCLIP and RegCLIP Table 4, L2RCLIP Table 3).

    python tools/sweep.py experiments/few_shot.py

NumCLIP's last column, all images, is that of its Table 1 but for 2.11 where that has 2.08, a typing
error (its author).
"""

from experiments.grid import runs
from experiments.published import across

METHODS = ("coop", "ordinalclip", "l2rclip", "numclip")
SHOTS = (1, 2, 4, 8, 16, 32, 64)
SETTINGS = tuple(f"shots={n}" for n in SHOTS)
CLAIMS = tuple(
    (f"numclip,{few}", f"{other},{few}") for few in SETTINGS for other in ("l2rclip", "ordinalclip")
)

SHARED = {
    "coop": "5.09 4.50 3.81 3.57 3.23 2.87 2.61",
    "ordinalclip": "4.94 4.36 3.55 3.31 3.07 2.76 2.57",
}
L2RCLIP = {"l2rclip": "4.54 3.92 3.40 3.28 2.81 2.55 2.38"}
NUMCLIP = {"numclip": "3.61 3.17 3.20 2.96 2.79 2.60 2.38"}
PAPER = (
    across("NumCLIP Table 4", "morph:mae", SETTINGS, {**SHARED, **L2RCLIP, **NUMCLIP}),
    across("RegCLIP Table 4", "morph:mae", SETTINGS, {**SHARED, **NUMCLIP}),
    across("L2RCLIP Table 3", "morph:mae", SETTINGS, {**SHARED, **L2RCLIP}),
)


def sweep(add):
    for shots, setting in zip(SHOTS, SETTINGS, strict=True):
        runs(add, ("morph",), METHODS, fields={"data.shots": shots}, suffix=setting)
