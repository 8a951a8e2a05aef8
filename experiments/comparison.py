"""Every method that can start without pretrained weights, three seeds each: what the two
comparisons share.

Tower, initial rate, optimizer and schedule are the same for all (a small CLIP from scratch under
AdamW), so are crop, flip and normalisation, and each run sees as many training images, in as many
steps of 32: where a method wants two augmentations of an image, 16 images stand in a step twice.
Its colour jitter is off, because colours are what grades a tomato. What differs is the loss, the
head, the rule, the prompt. The last step is evaluated, so no run chooses among checkpoints.
"""

import itertools

ROWS = ("I", "II", "III", "IV", "V", "VI", "VII")  # ConOrd's configurations but VIII, its own
METHODS = (
    "ce",
    "l1",
    "mse",
    "huber",
    "ce_l1",
    "coop",
    "ordinalclip",
    "l2rclip",
    "l2rclip,prompt=interpolation",
    "numclip",
    "numclip,concepts=off",
    "numclip,regularizer=off",
    "supcon",
    "rnc,protocol=knn",
    "rnc",
    "cloc",
    "conord",
    "conord,center=off",
    "conord,order=off",
    *(f"conord,center=off,weights={row}" for row in ROWS),
    "group_dir",
    "group_dir,classifier=ce",
    "group_dir,classifier=la",
    "inverse",
    "sqrt_inverse",
    "lds",
    "fds",
    "rrt",
    "focal_r",
    "bmc",
    "gai",
    "ranksim",
    "ordinal_entropy",
    "coral",
    "corn",
)
TWO_VIEWS = ("supcon", "rnc", "group_dir")
SEEDS = range(3)
# What the papers claim: the first is better than the second.
CLAIMS = (
    *(("conord,center=off", f"conord,center=off,weights={row}") for row in ROWS),
    ("conord", "conord,center=off"),
    ("conord", "conord,order=off"),
    ("conord", "rnc,protocol=knn"),
    ("rnc,protocol=knn", "supcon"),
    ("numclip", "ordinalclip"),
    ("ordinalclip", "coop"),
    ("group_dir", "group_dir,classifier=ce"),
    ("group_dir", "group_dir,classifier=la"),
)
FEW_SHOT = (("group_dir", "mse", "few"),)  # where labels are rare


def runs(
    add, data_set, images, train_crop, eval_crop, methods=METHODS, seeds=SEEDS, fields=(), suffix=""
):
    """Adds each method with each seed.

    Args:
      add: of the sweep.
      data_set: config file.
      images: training images of a run, with repetition.
      train_crop, eval_crop: entries of config.data.
      methods, seeds: that are run.
      fields: {field: value} set over the config.
      suffix: of the labels, for what `fields` change: "shots=4".
    """
    for seed, method in itertools.product(
        seeds, methods
    ):  # seeds outside: a method compiles once, a third is a table
        copies = 2 if method.split(",")[0] in TWO_VIEWS else 1
        shared = {
            "train.duration": f"{images // copies} examples",
            "train.checkpoint_every": f"{images // copies // 4} examples",
            "data.batch": 32 // copies,
            "data.train_crop": train_crop,
            "data.eval_crop": eval_crop,
            "data.normalize": "clip",
            "data.jitter.probability": 0.0,
            "data.grey": 0.0,
            "select": "last",
        }
        label = ",".join(filter(None, [method, suffix]))
        add(
            label,
            f"configs/{data_set}.py:method={method}",
            {**shared, **dict(fields), "seed": seed},
        )
