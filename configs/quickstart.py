"""The first run: how degraded is a photograph? Real photographs, no downloads, minutes on a CPU.

The photographs that scikit-image and scikit-learn carry, cut into tiles, each blurred,
JPEG-compressed or made noisy at severity 0-4. The rank is the severity. Splits are by scene:
nothing of a test photograph is ever trained on. A small CLIP starts from scratch on 32-pixel crops;
a test image is the mean over 20 crops spread over it.
"""

from configs.base import entry, finish, start
from configs.texts import concept_ranks


def get_config(argument=""):
    c, options = start("quickstart", argument, method="ce", backbone="tiny")
    c.data.reader = entry(name="demo.photo_quality")
    c.data.root = "data/photo_quality"
    c.data.stored_size, c.data.image_size = 96, 32
    c.data.train_crop = entry(name="random_crop", step=8)  # a patch shows a whole block of JPEG
    c.data.eval_crop = entry(name="spread_crops", views=20, step=8)
    c.data.batch, c.data.eval_batch = 64, 32
    c.ranks.update(concept_ranks("quickstart"))
    c = finish(c, options).unlock()
    c.train.duration = "2800 steps"
    c.train.evaluate_every = c.train.checkpoint_every = "700 steps"
    return c.lock()
