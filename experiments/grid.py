"""What the experiments on published data share: every label on every data set with every seed."""

import itertools

VIDEO = (
    "konvid",
    "live_vqc",
    "cvd2014",
    "youtube_ugc",
)  # sets on which models of LSVQ are evaluated


def runs(add, data_sets, labels, seeds=(0,), option="", fields=(), suffix=""):
    """Adds a run for each seed, data set and label, which is what stands behind "method=".

    Args:
      add: of the sweep.
      data_sets: names of config files.
      labels: such as "conord" or "conord,center=off".
      seeds: where a set has folds, each run trains all of them, and one seed will do.
      option: further options of the config's argument.
      fields: {field: value} set over the config.
      suffix: of the labels, for what `fields` change: "shots=4".
    """
    for seed, data_set, label in itertools.product(seeds, data_sets, labels):
        argument = ",".join(filter(None, [f"method={label}", option]))
        name = ",".join(filter(None, [label, suffix]))
        add(name, f"configs/{data_set}.py:{argument}", {**dict(fields), "seed": seed})


def high_resolution(add, labels):
    """Adds the evaluation of LSVQ's models on its videos of 1080p, the part "1080p" of the
    table."""
    for label in labels:
        add(
            "lsvq", label, "1080p", f"configs/lsvq.py:method={label}", {"data.reader.test": "1080p"}
        )
