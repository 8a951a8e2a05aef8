"""FDS (Yang et al., ICML 2021): features are calibrated to statistics smoothed over neighbouring
labels; L1 (sentences: MSE).

Buckets are those of the program: ages 3 to 99 on AgeDB, 0 to 99 on IMDB-WIKI, 0.1 of the score on
  STS-B; on other data the
scale of its concept file, or as low=, high= (exclusive) and width= say. Momentum 0.9, window
gaussian, size 5 and sigma 2, as the README's commands (AgeDB's defaults in the program: 9 and 1),
smoothing from the second epoch. What differs from the program stands in jaxord.models.fds. lds=on
adds LDS's weights.
"""

from configs import recipes
from configs.base import choose

from_scratch = recipes.dir_program

BUCKETS = {"agedb": (3.0, 100.0, 1.0), "imdb_wiki": (0.0, 100.0, 1.0)}


def apply(config, lds="off", low="", high="", width=""):
    if choose("lds", lds, {"on": True, "off": False}):
        recipes.lds(config)
    w = config.weights
    known = BUCKETS.get(config.name, (w.low, w.high, w.width))
    given = [float(x or y) for x, y in zip((low, high, width), known, strict=True)]
    if not given[0] < given[1]:
        example = "method=fds,low=0,high=10,width=1 (high exclusive)"
        raise ValueError(f"fds needs the range of the labels on {config.name}: {example}")
    low, high, width = (x / config.data.target_scale for x in given)
    clip = (0.5, 2.0) if config.name == "stsb" else (0.1, 10.0)
    fds = {"name": "FDS", "low": low, "high": high, "width": width, "clip": clip}
    recipes.regression(config, recipes.plain(config), heads=(fds,))
