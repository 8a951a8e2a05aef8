"""ConOrd ("Contrastive order learning for ordinal regression", under review 2025): contrastive
order learning over all pairs, reference points, k-NN.

weights=I..XIII chooses the configuration of Tables 1, 7 and 14 (X: a learned table); center=off
leaves the reference points out, order=off the contrastive term. Where the paper is silent or
contradicts itself:

                         reading=recommended (default)            reading=literal
  Eq 3's factor 1/|A|    left out                                 as printed
  Eq 8                   mean over the batch                      sum, as printed

Literally the centre term is about 1,000 times the stronger one, which Table 6 and Table 13
contradict. There is no public program. Our choice: learning rate of the reference points (1e-3),
100 epochs, images resized without a crop, AdamW and eight frames of videos, Table 8's row of LSVQ
for other videos and a row of our own for other sets. Ages: unique labels index the points; quality:
rounded MOS (references=round), or references=interpolate; two angles have none.
initial=random|zeros|truncated_normal|kaiming|mean (Tables 16, 17). loss=expected_error is Eq 2.
temperature=, epsilon=, k= and center_weight= are those of Tables 10 to 13; without k it is Table
8's.

Ages are flipped at random and nothing else. Images of quality sets are three crops whose features
are averaged, in training too, and nothing else; their rate rises to five times Table 8's in five
epochs (rate=peak takes Table 8's as the peak).
"""

from configs import recipes
from configs.base import IMAGE, choose, entries, entry
from configs.texts import QUALITY, VIDEO, kind

SWITCH = {"on": True, "off": False}
TABLE_8 = {  # learning rate, batch, neighbours
    "morph": (5e-6, 128, 4),
    "clap2015": (5e-6, 128, 4),
    "agedb": (5e-6, 128, 60),
    "utk": (5e-7, 128, 60),
    "cacd": (5e-7, 128, 60),
    "adience": (2e-6, 128, 60),
    "bid": (2e-6, 32, 10),
    "clive": (2e-6, 32, 10),
    "koniq": (2e-6, 64, 10),
    "spaq": (2e-6, 64, 10),
    "flive": (1e-6, 64, 10),
    "lsvq": (5e-6, 16, 30),
}
OTHER_SETS = (5e-6, 128, 10)  # our choice


def row(config):
    return TABLE_8["lsvq"] if kind(config.name) == VIDEO else TABLE_8.get(config.name, OTHER_SETS)


def neighbours(config, embeds="image_embeds", k=""):
    """Prediction by k-NN, with k and where there is one the batch of Table 8."""
    _, batch, known = row(config)
    if config.name in TABLE_8:
        config.data.batch = batch
    config.rules = entries(
        {"name": "knn", "k": int(k or known), "arrays": {"image_embeds": embeds}}
    )


def centers(config, references="", initial="random", **settings):
    """Entries of the head and of the loss of reference points (Eq 8), which quality sets index by
    rounded MOS."""
    config.references.index = references or (
        "round" if kind(config.name) in (QUALITY, VIDEO) else "unique"
    )
    return {"name": "ReferencePoints", "initial": initial}, {"name": "center", **settings}


def apply(
    config,
    weights="VIII",
    center="",
    order="on",
    loss="conord",
    reading="recommended",
    references="",
    initial="random",
    rate="start",
    temperature="0.07",
    epsilon="1e-7",
    k="",
    center_weight="1",
):
    literal = choose("reading", reading, {"recommended": False, "literal": True})
    config.preset = reading
    lr, config.data.batch, _ = row(config)
    heads, losses = [], []
    if choose("order", order, SWITCH):
        term = {"name": loss, "temperature": float(temperature), "anchor_norm": literal}
        losses.append(
            {**term, "weights": weights, "epsilon": float(epsilon)} if loss == "conord" else term
        )
        if weights == "X":
            heads.append(
                {
                    "name": "PairWeights",
                    "size": round(config.weights.high - config.weights.low) or 10,
                }
            )
    if choose("center", center or ("off" if config.name == "mpiifacegaze" else "on"), SWITCH):
        weight = {} if center_weight == "1" else {"weight": float(center_weight)}
        head, term = centers(
            config, references, initial, reduction="sum" if literal else "mean", **weight
        )
        heads.append(head)
        losses.append(term)
    config.heads, config.losses = entries(*heads), entries(*losses)
    neighbours(config, k=k)
    config.train.duration = "100 epochs"
    recipe = {QUALITY: quality, VIDEO: video}.get(kind(config.name), age)
    recipe(config, lr, choose("rate", rate, {"start": 5.0, "peak": 1.0}))


def age(config, lr, peak):
    if not recipes.own_crops(config):
        config.data.train_crop = config.data.eval_crop = entry(name="resize")
    config.optim.update({"name": "adam", "schedule": "cosine", "final": 1e-3})
    groups(config, lr, 5e-4)


def quality(config, lr, peak):
    config.data.resize, config.data.flip = "shorter", False
    config.data.train_crop = config.data.eval_crop = entry(name="diagonal_crops", views=3)
    config.optim.update(
        {"name": "adamw", "schedule": "cosine", "warmup": "5 epochs", "warmup_start": 0.2}
    )
    groups(config, lr * peak, 2e-3)


def video(config, lr, peak):
    config.heads = (*entries({"name": "MotionFusion"}), *config.heads)
    config.optim.update({"name": "adamw", "schedule": "cosine"})
    groups(config, lr, 2e-3)


def groups(config, lr, decay):
    own = {  # our choice: what starts at random needs larger steps than a pretrained tower
        "ReferencePoints": ("reference_points", (1e-3, 0.0)),
        "PairWeights": ("pair_weights", (1e-3, 0.0)),
        "MotionFusion": ("motion_fusion", (1e-4, decay)),
    }
    there = [own[entry.name] for entry in config.heads]
    config.optim.groups = entries(
        {"parameters": IMAGE, "group": "image"},
        *({"parameters": f"{head}/.*", "group": head} for head, _ in there),
    )
    config.optim.rates = recipes.rates(image=(lr, decay), **dict(there))


def from_scratch(config):
    """The paper's ResNet-18 (gaze, temperature) has no stated recipe: Adam 1e-3, cosine (our
    choice)."""
    config.optim.groups = entries({"parameters": ".*", "group": "all"})
    config.optim.update({"name": "adam", "schedule": "cosine", "final": 1e-3, "warmup": "0 steps"})
    config.optim.rates = recipes.rates(all=(1e-3, 5e-4))
