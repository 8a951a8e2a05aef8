"""STS-B-DIR: Group-DIR against the plain MSE baseline, three seeds, with 128 hidden units on a CPU:
30 epochs of 42 steps, about 15 minutes a run on one core.

    python tools/sweep.py experiments/stsb.py --set data.root=<folder of the three files> --option
    vectors=glove_twitter_25d.txt

With --option size=paper and another --output it is the encoder of the paper (1,500 units), for a
GPU.
"""

from experiments import dir_sentences, published

METHODS = ("mse", "group_dir", "group_dir,classifier=ce", "group_dir,classifier=la")
CLAIMS = (
    ("group_dir", "mse"),
    ("group_dir", "mse", "few"),
    ("group_dir", "group_dir,classifier=ce"),
    ("group_dir", "group_dir,classifier=la"),
)
PAPER = published.among(dir_sentences.PAPER, METHODS, "1,500 units")


def sweep(add):
    for method in METHODS:
        for seed in range(3):  # the curves of the training split are Figure 3's
            add(
                method,
                f"configs/stsb.py:method={method},size=small",
                {"seed": seed, "train.curves": ("train",)},
            )
