"""Speed, memory and correctness of the exact search for nearest neighbours behind the rule `knn`.

    python tools/bench_knn.py [--queries=50000 --gallery=400000 --width=512 --k=10]
    [--output=knn.json]

Both sets are random and on the device before the clock starts. MiB are temporary memory beside
them; "all pairs MiB" is the size of the similarities of all pairs. Recall is the share of the k
neighbours of --sample queries that are among the k nearest of a brute-force search by numpy in
float64, where neighbours as near as the k-th to 1e-6 count.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxord import inference, shipped

shipped.make_importable()
from tools.benching import measure

TOLERANCE = 1e-6  # error of float32 inner products of unit vectors, about
SETTINGS = {
    "queries": (50_000, "images to predict"),
    "gallery": (400_000, "training images"),
    "width": (512, "D of them"),
    "k": (10, "neighbours"),
    "block": (8192, "rows of the gallery at once"),
    "sample": (64, "queries for numpy too"),
}
COLUMNS = ["queries", "gallery", "width", "k", "queries/s", "queries/s range", "s", "MiB"]
COLUMNS += ["all pairs MiB", "compile s", "recall"]


def recall(neighbours, queries, gallery, k):
    """Share of neighbours [Q, k] that are k different ones of the nearest, by brute force."""
    queries, gallery = (np.asarray(x, np.float64) for x in (queries, gallery))
    queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    right = 0
    for query, rows in zip(queries, neighbours, strict=True):
        similarities = gallery @ query
        least = np.partition(similarities, -k)[-k] - TOLERANCE
        right += (similarities[np.unique(rows)] >= least).sum()
    return right / (len(neighbours) * k)


def bench(flags):
    """Times the search and counts its recall."""
    if not 1 <= flags.k <= flags.gallery:
        raise ValueError(f"--k is {flags.k}; the gallery has {flags.gallery}")
    draw = jax.jit(jax.random.normal, static_argnums=1)
    shapes = [(rows, flags.width) for rows in (flags.queries, flags.gallery)]
    keys = jax.random.split(jax.random.key(0))
    queries, gallery = jax.block_until_ready(list(map(draw, keys, shapes)))

    # `knn` calls the same function.
    settings = {"k": flags.k, "block": min(flags.block, flags.gallery)}
    search = jax.jit(functools.partial(inference._nearest, **settings))
    run, seconds, temporary = measure.compiled(search, queries, gallery)
    calls = {"search": lambda: jax.block_until_ready(run(queries, gallery))}
    times = measure.alternate(calls, flags.rounds)["search"]
    sample = min(flags.sample, flags.queries)
    places = np.random.default_rng(0).choice(flags.queries, sample, replace=False)
    neighbours = np.asarray(run(queries, gallery))[places]
    row = {
        **{name: getattr(flags, name) for name in ("queries", "gallery", "width", "k")},
        **measure.spread("s", times),
        **measure.spread("queries/s", [flags.queries / time for time in times]),
        "MiB": temporary / measure.MIB,
        "all pairs MiB": 4 * flags.queries * flags.gallery / measure.MIB,
        "compile s": seconds,
        "recall": recall(neighbours, queries[jnp.asarray(places)], gallery, flags.k),
    }
    return "Nearest neighbours", {"Search": ([row], COLUMNS)}, ()


main = measure.command(__doc__, bench, SETTINGS, rounds=3)


if __name__ == "__main__":
    sys.exit(main())
