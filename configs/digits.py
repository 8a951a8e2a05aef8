"""The one-minute run: scikit-learn's 1,797 handwritten digits, read as ordinal numbers 0-9. A toy,
but a complete run."""

from configs.base import entry, finish, start


def get_config(argument=""):
    c, options = start("digits", argument, method="ce_l1", backbone="tiny")
    c.data.reader = entry(name="demo.digits")
    c.data.root = "data/digits"
    c.data.stored_size, c.data.image_size = 36, 32
    c.data.flip = False
    c.data.batch, c.data.eval_batch = 64, 64
    c.ranks.labels = tuple(float(digit) for digit in range(10))
    c = finish(c, options).unlock()
    c.train.duration = "30 epochs"
    c.train.evaluate_every = c.train.checkpoint_every = "5 epochs"
    return c.lock()
