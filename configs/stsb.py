"""STS-B-DIR (Cer et al. 2017, split of Yang et al. 2021): how alike two sentences are, 0 to 5;
5,249 / 1,000 / 1,000 pairs.

    python -m jaxord.main --config=configs/stsb.py:method=group_dir,vectors=glove.840B.300d.txt

Sentence encoder and schedule of the benchmark's program: two-layer BiLSTM of 1,500 units each way
over frozen GloVe vectors, Adam 1e-4, weight decay 1e-5, gradient norm 5, batch 128; it validates
every 400 batches and stops after ten without gain or 100 in all: here all 100 (two stages share
them), the best of them on validation. Trained on score / 5. Without a file of vectors (a word and
its numbers a line, found under data.root or by its own path) they are learned with the rest; where
a file has small letters only, add --config.data.reader.lower=True. size=small has 128 units,
batches sorted by length and 30 epochs, for a CPU, and ten times the rate, since it makes a
thirtieth of the steps; the vectors' width comes from their file.
"""

from configs import recipes
from configs.base import choose, entries, entry, finish, start

PAPER = {  # Group-DIR Table 3
    "group_dir": "MSE 0.887 (many 0.897, median 0.891, few 0.779), Pearson 77.4 (74.9, 70.7, 85.8)",
    "mse": "MSE 0.974 (0.851, 1.520, 0.984), Pearson 74.2",
    "rrt": "MSE 0.964 (0.842, 1.503, 0.978), Pearson 74.5; "
    "with LDS 0.916 (0.817, 1.344, 0.945), 75.7",
    "focal_r": "MSE 0.951 (0.843, 1.425, 0.957), Pearson 74.6",
    "inverse": "MSE 1.005 (0.894, 1.482, 1.046), Pearson 72.8",
    "lds": "MSE 0.914 (0.819, 1.31, 0.95), Pearson 75.6",
    "fds": "with LDS: MSE 0.907 (0.802, 1.363, 0.942), Pearson 76.0",
    "ranksim": "MSE 0.903 (0.908, 0.911, 0.804), Pearson 75.8",
}
# hidden units, duration, how often validated, bucket, learning rate
SIZES = {
    "paper": (1500, "40000 steps", "400 steps", 0, 1e-4),
    "small": (128, "30 epochs", "1 epochs", 16, 1e-3),
}


def get_config(argument=""):
    c, options = start("stsb", argument, method="group_dir", backbone="BiLSTM")
    size, c.model.vectors = options.pop("size", "paper"), options.pop("vectors", "")
    c.data.root = "data/stsb"
    c.data.reader = entry(name="sentences.stsb", lower=False)
    c.data.target_scale = 5.0
    c.ranks.edges, c.ranks.last, c.ranks.step = tuple(k / 10 for k in range(50)), 5.0, 0.0
    c.groups.low, c.groups.high = c.weights.low, c.weights.high = 0.0, 5.0
    c.weights.width, c.weights.least, c.weights.most = 0.1, 0.0, 1e9  # its program does not clip
    c.shots.kind = "stsb"
    c.metrics = ("mse", "pcc", "mae", "geometric_mean_error")
    c.select_metric = "mse"
    c.paper = PAPER.get(c.method, "")
    c = finish(c, options).unlock()
    c.model.sentence.hidden, c.train.duration, every, c.data.bucket, rate = choose(
        "size", size, SIZES
    )
    c.train.evaluate_every = c.train.checkpoint_every = every
    c.data.batch, c.data.eval_batch, c.data.flip = 128, 128, False
    c.optim.update({"name": "adam", "schedule": "constant", "clip": 5.0})
    c.optim.groups = entries(
        {"parameters": "sentence/embedding", "group": "frozen" if c.model.vectors else "all"},
        {"parameters": ".*", "group": "all"},
    )
    c.optim.rates = recipes.rates(all=(rate, 1e-5))
    c.stages = tuple(recipes.at_rate(part, heads=(rate, 1e-5)) for part in c.stages)
    return c.lock()
