"""FGrade (Das, Kar and Sekh 2020): how far tomatoes have gone, 1 (fresh) to 10 (rotten); 6,397
photographs, imbalanced.

github.com/skarifahmed/FGrade (MIT); here as a folder with labels.csv (path, label, split) and the
images it names, the shorter side 112 pixels. Grade 1 holds 46 % of the images. Near-duplicates may
cross the official split, so the nearest neighbour stands beside every figure. A tenth of the
training part is kept for validation. A small CLIP starts from scratch on 32-pixel inputs; every
other backbone from its weights."""

from configs.base import entry, finish, start


def get_config(argument=""):
    c, options = start("freshness", argument, method="ce_l1", backbone="tiny")
    c.data.reader = entry(name="sources.own", val_fraction=0.1)
    c.data.root, c.data.table = "data/freshness", "labels.csv"
    if c.model.variant == "tiny":
        c.data.image_size, c.data.stored_size = 32, 40
    c.ranks.labels = tuple(float(grade) for grade in range(1, 11))
    c.shots.kind = "count"
    c.shots.many, c.shots.few = 1000, 300
    c = finish(c, options).unlock()
    c.data.batch = 64
    c.train.duration = "20 epochs"
    c.train.evaluate_every = c.train.checkpoint_every = "5 epochs"
    return c.lock()
