"""Speed, memory and correctness of the exact search for nearest neighbours behind the rule `knn`.

    python tools/bench_knn.py [--queries=50000 --gallery=400000 --width=512 --k=10]
    [--output=knn.json]

Both sets are random and on the device before the clock starts. MiB are the temporary memory beside
them; "all pairs MiB" is what the similarities of all pairs would take. Recall: the share of the k
neighbours found for --sample queries that are among the k nearest of a brute-force search by numpy
in float64, where neighbours as near as the k-th to 1e-6 count as that.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tools/ is not installed

from jaxord import inference
from tools import measure

TOLERANCE = 1e-6  # float32 knows the inner product of unit vectors about so well


def recall(found, queries, gallery, k):
    """Share of found neighbours [Q, k] that are k different ones of the nearest, by brute force in
    float64."""
    queries, gallery = (np.asarray(x, np.float64) for x in (queries, gallery))
    queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    right = 0
    for query, neighbours in zip(queries, found, strict=True):
        similarities = gallery @ query
        least = np.partition(similarities, -k)[-k] - TOLERANCE
        right += (similarities[np.unique(neighbours)] >= least).sum()
    return right / (len(found) * k)


def bench(queries, gallery, width, k, block, rounds, sample):
    """The row of the table."""
    keys = jax.random.split(jax.random.key(0))
    draw = jax.jit(jax.random.normal, static_argnums=1)
    some, all_of = (
        jax.block_until_ready(draw(key, (rows, width)))
        for key, rows in zip(keys, (queries, gallery), strict=True)
    )
    search = jax.jit(
        lambda some, all_of: inference._nearest(some, all_of, k, min(block, gallery))
    )  # what `knn` calls
    run, seconds, temporary = measure.compiled(search, some, all_of)
    times = measure.alternate({"search": lambda: jax.block_until_ready(run(some, all_of))}, rounds)[
        "search"
    ]
    places = np.random.default_rng(0).choice(queries, min(sample, queries), replace=False)
    found = np.asarray(run(some, all_of))[places]
    return {
        "queries": queries,
        "gallery": gallery,
        "width": width,
        "k": k,
        **measure.spread("s", times),
        **measure.spread("queries/s", [queries / time for time in times]),
        "MiB": temporary / measure.MIB,
        "all pairs MiB": 4 * queries * gallery / measure.MIB,
        "compile s": seconds,
        "recall": recall(found, some[jnp.asarray(places)], all_of, k),
    }


def main(arguments=None):
    settings = {
        "queries": (50_000, "images to predict"),
        "gallery": (400_000, "training images"),
        "width": (512, "D of them"),
        "k": (10, "neighbours"),
        "block": (8192, "rows of the gallery at once"),
        "sample": (64, "queries for numpy too"),
    }
    given = measure.options(__doc__, 3, settings).parse_args(arguments)
    if not 1 <= given.k <= given.gallery:
        return f"error: --k is {given.k}; the gallery has {given.gallery}"
    facts = measure.header()
    row = bench(
        given.queries, given.gallery, given.width, given.k, given.block, given.rounds, given.sample
    )
    columns = [
        "queries",
        "gallery",
        "width",
        "k",
        "queries/s",
        "queries/s range",
        "s",
        "MiB",
        "all pairs MiB",
        "compile s",
        "recall",
    ]
    measure.report(
        "Nearest neighbours",
        facts,
        {"Search": (measure.ranged([row], "queries/s"), columns)},
        (),
        given.output,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
