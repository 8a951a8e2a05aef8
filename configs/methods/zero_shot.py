"""Zero-shot CLIP (Radford et al. 2021): the cosine of the image and of a sentence for each rank;
nothing is trained.

The papers' rows differ because their sentences differ (MORPH MAE 6.09 in RegCLIP and NumCLIP, 6.91
in L2RCLIP) and none prints them; `template=N` chooses one of configs/texts.py,
`--config.prompt.template=` any other.
"""

from configs.base import entries
from configs.texts import template as find


def apply(config, template="0"):
    config.prompt.name = "FixedPrompt"
    config.prompt.template = find(config.name, template)
    config.heads = entries({"name": "CosineLogits"})
    config.losses = ()
    config.rules = entries({"name": "argmax"}, {"name": "expectation"})
    config.optim.groups = entries({"parameters": ".*", "group": "frozen"})
    config.model.pretrained = True
    config.train.duration = "0 steps"
    config.data.flip = False
