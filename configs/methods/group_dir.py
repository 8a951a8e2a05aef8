"""Group-DIR (Pu et al., AAAI 2025): imbalanced regression by groups: contrast of groups, a
classifier of groups under descending soft labels, and an expert regressor for each group (the true
group's in training, the predicted one's at test).

The paper has no public program, and these readings are ours: Eq 2's similarity is -L2 at
temperature 2 (RnC's pair; similarity=cosine,temperature=0.1 is the other); Eq 4 gets the minus sign
that it lacks; sums over the batch are means; lambda_1 = lambda_2 = 1 (expert_weight=,
group_weight=); one stage, RnC's two augmentations (one view of sentences, whose pair feature is
contrasted). Batch 128 and ResNet-50 (backbone=ResNet-50) are the paper's; with it the schedule is
that of the benchmark's program (Adam 1e-3, x0.1 at 60 and 80 of 90 epochs), not RnC's SGD 0.5,
which an MSE in years does not survive. Groups: 20 on AgeDB and IMDB-WIKI, 10 on STS-B, else 10 or
as many as ranks up to 20; count= and mapping=range|divide change it ("g = floor(y / |G|)" read
literally is divide). classifier=soft|ce|la: descending soft labels, cross-entropy, logit-adjusted
cross-entropy (Figures 2 to 7). lds=on weights the experts' errors by LDS inside the groups.
contrast=off: ablation.
"""

from configs import recipes
from configs.base import choose, entries

COUNTS = {"agedb": 20, "imdb_wiki": 20, "stsb": 10}
SWITCH = {"on": True, "off": False}


def apply(
    config,
    classifier="soft",
    count="",
    mapping="range",
    similarity="l2",
    temperature="2",
    beta="1",
    lds="off",
    contrast="on",
    contrast_weight="1",
    expert_weight="1",
    group_weight="1",
):
    ranks = len(config.ranks.labels)
    config.groups.count = int(count or COUNTS.get(config.name, min(ranks, 20) if ranks else 10))
    config.groups.mapping = mapping
    if choose("lds", lds, SWITCH):
        recipes.lds(config)
        config.weights.within_groups = True
    of_groups = {"arrays": {"logits": "group_logits", "rank": "group"}}
    terms = {
        "soft": {"name": "descending_soft_label", "beta": float(beta)},
        "ce": {"name": "cross_entropy", **of_groups},
        "la": {"name": "logit_adjusted", "tau": 1.0},
    }
    pull = {
        "name": "group_contrastive",
        "similarity": similarity,
        "temperature": float(temperature),
    }
    config.heads = entries({"name": "Experts"})
    config.losses = entries(
        *(
            [{**pull, "weight": float(contrast_weight)}]
            if choose("contrast", contrast, SWITCH)
            else []
        ),
        {**choose("classifier", classifier, terms), "weight": float(group_weight)},
        {"name": "expert", "weight": float(expert_weight)},
    )
    config.rules = entries({"name": "experts"}, {"name": "true_expert"})
    config.metrics = (*config.metrics, "group_accuracy", "group_distance")
    recipes.finetune(config)
    if config.model.image_tower != "BiLSTM":
        recipes.two_views(config)
        recipes.batch(config, 128)


def from_scratch(config):
    recipes.dir_program(config, images=128)
