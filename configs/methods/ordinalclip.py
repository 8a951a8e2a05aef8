"""OrdinalCLIP (Li et al., NeurIPS 2022): each rank's vectors are a fixed mixture of a few learned
base ranks.

Loss: cross-entropy plus the text-to-image KL term; prediction: the expected rank value. The recipe
  is that of the program's
`morph_compare.yaml`: RAdam that changes nothing in its first five steps, cosine, 100 epochs. Its
  image tower was VGG-16
pretrained on IMDB-WIKI and its text tower RN50's; here the backbone is the config's CLIP. It has
101 ranks on MORPH, here the data set's labels are the ranks. interpolation=linear (the tables'),
inv_prop or normal; base_ranks=3. base_names=young+middle_aged+old starts the base ranks from these
words, as a name file does in the program.
"""

from configs.base import IMAGE, entries, entry
from configs.texts import template as find


def apply(config, template="0", interpolation="linear", base_ranks="3", base_names=""):
    config.prompt.name = "RankPrompt"
    config.prompt.template = find(config.name, template)
    config.prompt.base_names = tuple(filter(None, base_names.split("+")))
    config.prompt.rank_tokens = 0 if base_names else 1
    count = len(config.prompt.base_names) or int(base_ranks)
    config.prompt.settings = entry(base_ranks=count, interpolation=interpolation)
    config.heads = entries({"name": "CosineLogits"})
    config.losses = entries({"name": "cross_entropy"}, {"name": "text_image_kl"})
    config.rules = entries({"name": "expectation"}, {"name": "argmax"})
    recipe(config)


def recipe(config):
    """How OrdinalCLIP's tables train: prompt and image tower, text tower and scale frozen."""
    config.data.normalize = "imagenet"
    config.optim.update({"name": "radam", "idle_steps": 5, "schedule": "cosine"})
    config.optim.groups = entries(
        {"parameters": "prompt/.*", "group": "prompt"},
        {"parameters": IMAGE, "group": "image"},
        {"parameters": "text_model/.*|text_projection/.*|logit_scale", "group": "frozen"},
    )
    rate = {"lr": 1e-4, "weight_decay": 5e-4}
    config.optim.rates = entry(prompt=rate, image=rate)
    config.train.duration = "100 epochs"
