"""Which rate and weight decay suit a method on the quickstart's photographs, by the MAE on the
validation scenes.

    python tools/sweep.py experiments/learning_rates.py --search=tpe --trials=20

Each method has its own twenty trials of about 40 s; those that are behind after an evaluation are
stopped. Without --search the same file runs each method once, with the rate that its config has.
"""

SPACE = {
    "optim.rates.all.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "optim.rates.all.weight_decay": [0.0, 0.05, 0.2],
}
CLAIMS = ()


def sweep(add):
    for method in ("ce", "l1", "numclip"):
        fields = {"seed": 0, "train.duration": "1000 steps", "train.evaluate_every": "100 steps"}
        add(method, f"configs/quickstart.py:method={method}", fields)
