"""ConOrd's loss against the expected error itself, Eq 2 (ConOrd Figure 6, which prints no figures
but curves).

python tools/sweep.py experiments/conord_expected_error.py
"""

from experiments.grid import runs

METHODS = ("conord,center=off,loss=expected_error", "conord,center=off")
CLAIMS = (METHODS[::-1],)


def sweep(add):
    runs(add, ("clap2015", "agedb"), METHODS, seeds=range(3), fields={"train.curves": ("train",)})
