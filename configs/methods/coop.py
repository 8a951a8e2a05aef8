"""CoOp (Zhou et al., IJCV 2022): learned context vectors in front of the rank's name,
cross-entropy.

preset=tables (default): the "CoOp" rows of OrdinalCLIP, L2RCLIP and NumCLIP. Not vanilla CoOp:
context, rank vectors and the image tower are all trained, by OrdinalCLIP's recipe. Those rows used
VGG-16 pretrained on IMDB-WIKI and the text tower of RN50; here the backbone is the config's CLIP.
Their file of 101 rank names is not public: ours are the data set's, in digits. preset=vanilla: both
towers and the names frozen, 16 context vectors, SGD, as CoOp's program does for 16 shots. Momentum
and weight decay are the defaults of the library it calls, from memory.
"""

from configs.base import choose, entries, entry
from configs.methods import ordinalclip
from configs.texts import template as find


def apply(config, preset="tables", template="0"):
    config.preset = preset
    config.prompt.template = find(config.name, template)
    config.heads = entries({"name": "CosineLogits"})
    config.losses = entries({"name": "cross_entropy"})
    config.rules = entries({"name": "argmax"}, {"name": "expectation"})
    choose("preset", preset, {"tables": tables, "vanilla": vanilla})(config)


def tables(config):
    config.prompt.name = "ConceptPrompt"
    ordinalclip.recipe(config)


def vanilla(config):
    config.model.pretrained = True
    config.prompt.name = "ContextPrompt"
    config.prompt.template = "{}"
    config.prompt.context_tokens = 16
    config.data.resize = "shorter"
    config.data.train_crop = entry(name="random_resized_crop", scale=(0.08, 1.0))
    config.optim.update(
        {
            "name": "sgd",
            "momentum": 0.9,
            "schedule": "cosine",
            "warmup": "1 epochs",
            "warmup_start": 0.005,
            "warmup_shape": "constant",  # 1e-5 for one epoch
        }
    )
    config.optim.groups = entries(
        {"parameters": "prompt/context", "group": "prompt"}, {"parameters": ".*", "group": "frozen"}
    )
    config.optim.rates = entry(prompt={"lr": 2e-3, "weight_decay": 5e-4})
    config.train.duration = (
        "200 epochs"  # 16 or 8 shots; the program takes 100 for 4 and 2 shots, 50 for one
    )
