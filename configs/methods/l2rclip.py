"""L2RCLIP (Wang et al., NeurIPS 2023): RankFormer among the rank names, asymmetric contrastive
loss, and the cross-modal ordinal pairwise loss (COP); first the prompt is trained, then the image
tower against fixed texts.

The program that is public has losses and loaders only; unknown and our choice are alpha (.5), the
number of global context vectors (4), the attention's axis, width and heads, the prompt's rate
(1e-4), the batch (64; videos 16), Eq 6's lambda (.5, the program's ratio), CLIP's normalisation,
and which checkpoint of the first stage goes on (the last). The rate falls "in epoch 30": of the
second stage, since the first has 20. As in the program only the second stage flips images; the
paper flips "all".

  form=inner (default)   Eq 6, weights divided by the largest gap
  form=euclid            the program: distances for products, a form of its own for each stage

prompt=rankformer; interpolation is L2RCLIP-I (Table 7: OrdinalCLIP's base ranks), off trains the
rank vectors themselves (Table 5). cop=off and scop=off are rows of Table 5. template=8 is "a photo
of {} years old face", see configs/texts.py.
"""

from ml_collections import ConfigDict

from configs import recipes
from configs.base import IMAGE, choose, entries, entry, stage
from configs.texts import AGE, kind
from configs.texts import template as find

SWITCH = {"on": True, "off": False}
PROMPTS = {"rankformer": "RankFormer", "interpolation": "RankPrompt", "off": "ConceptPrompt"}
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def words(number):
    """A whole number below 200 in words, as the rank names of the program: 77 is "seventy
    seven"."""
    if number >= 100:
        return ("one hundred " + words(number - 100)).removesuffix(" zero")
    return (
        ONES[number]
        if number < 20
        else (TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else ""))
    )


def apply(config, prompt="rankformer", cop="on", scop="on", form="inner", template=""):
    config.preset = form
    is_age = kind(config.name) == AGE and config.name != "adience"
    if is_age:
        config.ranks.names = tuple(words(int(age)) for age in config.ranks.labels)
    config.prompt.name = choose("prompt", prompt, PROMPTS)
    config.prompt.template = find(config.name, template or ("8" if is_age else "0"))
    config.prompt.context_tokens = 4
    if prompt == "interpolation":
        config.prompt.rank_tokens = 1
    if prompt != "rankformer":
        config.prompt.settings = ConfigDict(type_safe=False)

    config.heads = entries({"name": "CosineLogits"})
    config.losses = entries({"name": "cross_entropy"}, *scop_terms(scop, form))
    config.rules = entries({"name": "argmax"}, {"name": "expectation"})
    asymmetric = {
        "name": "asymmetric_contrastive",
        "weight": 0.03 if config.name in ("morph", "clap2015") else 0.1,
    }
    recipes.batch(config, 64)
    if not recipes.own_crops(config):
        config.data.train_crop = config.data.eval_crop = entry(name="resize")
    config.optim.groups = entries(
        {"parameters": IMAGE, "group": "image"},
        {"parameters": "prompt/.*|text_model/.*|text_projection/.*|logit_scale", "group": "frozen"},
    )
    config.optim.update({"name": "adam", "schedule": "multi_step", "milestones": ("30 epochs",)})
    config.optim.rates = recipes.rates(image=(1e-5, 0.0))
    config.train.duration = "60 epochs"
    config.stages = (
        stage(
            "prompt",
            {
                "train.share": 1 / 3,
                "select": "last",
                "data.flip": False,
                "optim.schedule": "constant",
                "optim.milestones": (),
                "losses": entries(asymmetric, *cop_terms(cop, form)),
                "optim.groups": entries(
                    {"parameters": "prompt/.*", "group": "prompt"},
                    {
                        "parameters": IMAGE + "|text_model/.*|text_projection/.*|logit_scale",
                        "group": "frozen",
                    },
                ),
                "optim.rates": recipes.rates(prompt=(1e-4, 0.0)),
            },
        ),
        stage("image", {"train.share": 2 / 3, "optim.groups": config.optim.groups}),
    )


def cop_terms(switch, form):
    term = {
        "name": "ordinal_pairwise",
        "weight": 3.0,
        "strength": 0.5,
        "form": form,
        "weight_scale": scale(form),
    }
    return [term] if choose("cop", switch, SWITCH) else []


def scop_terms(switch, form):
    term = {
        "name": "ordinal_pairwise",
        "weight": 1.0,
        "strength": 0.0,
        "form": form,
        "weight_scale": scale(form),
    }
    return [term] if choose("scop", switch, SWITCH) else []


def scale(form):
    return choose("form", form, {"inner": "span", "euclid": "pairs"})
