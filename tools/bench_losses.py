"""Time and memory of the contrastive losses, value and gradient, against the batch size; beside
them the plain equations.

    python tools/bench_losses.py [--losses=rnc,conord] [--sizes=32,1024] [--vs-torch]
    [--output=losses.json]

"plain" is the equation written down at once, with all pairs, or for rnc, group_contrastive and cloc
all triples, in memory. It is run while the memory that the compiler lays out for it is below
--limit. Random unit-variance features of --width, labels 0..K-1. Times are those of compiled
functions on arrays that are on the device already; MiB are the temporary memory beyond arguments
and results. A loss is timed with larger batches until the next would take longer than --seconds,
and then compiled alone, for its memory.

--vs-torch adds ConOrd at B = 128 against its equation in PyTorch, and RnC at n = 1,024 against the
form in which it was published, a loop over the partners of each anchor, on the same device in
turns. Without a GPU in torch both run on the CPU.
"""

import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tools/ is not installed

from jaxord import losses, vectors
from jaxord.binding import bind, needs
from tools import measure

SIZES = (32, 128, 512, 1024, 4096, 16384, 65536)
LEARNED = {"image_embeds", "text_embeds", "logits", "reference_points", "margins"}


def arrays(size, width, ranks, seed=0):
    """Every array that a contrastive loss names, as numpy arrays."""
    draw = np.random.default_rng(seed)

    def normal(*shape):
        return draw.standard_normal(shape, dtype=np.float32)

    rank = draw.integers(0, ranks, size, dtype=np.int32)
    return {
        "image_embeds": normal(size, width),
        "text_embeds": normal(ranks, width),
        "logits": 3 * normal(size, ranks),
        "rank": rank,
        "target": rank.astype(np.float32),
        "group": rank // 5,
        "rank_values": np.arange(ranks, dtype=np.float32),
        "reference": rank,
        "reference_points": normal(ranks, width),
        "margins": np.full(ranks - 1, 0.1, np.float32),
    }


# The equations as they stand. B batch, K ranks, D embedding.


def plain_supcon(image_embeds, rank):
    z, others = vectors.unit(image_embeds), 1.0 - jnp.eye(rank.size)
    scores = z @ z.T / 0.07  # [B, B]
    shares = scores - jnp.log((others * jnp.exp(scores)).sum(1, keepdims=True))
    positives = others * (rank[:, None] == rank)
    return -((positives * shares).sum(1) / jnp.maximum(positives.sum(1), 1)).mean()


def plain_rnc(image_embeds, target):
    scores, gap = (
        -vectors.distances(image_embeds, image_embeds) / 2,
        jnp.abs(target[:, None] - target),
    )  # [B, B]
    others = 1.0 - jnp.eye(target.size)
    farther = others[:, None] * (
        gap[:, None] >= gap[:, :, None]
    )  # [B, B, B]: anchor, partner, candidate
    shares = scores - jnp.log((farther * jnp.exp(scores)[:, None]).sum(2))
    return -(others * shares).sum() / others.sum()


def plain_group_contrastive(image_embeds, group):
    return plain_rnc(image_embeds, group.astype(jnp.float32))


def plain_conord(image_embeds, target):
    similarities, gap, others = _geometry(image_embeds, target)
    attracting, repelling = (
        (others * w * similarities).sum(1) for w in (1 / (gap**2 + 1e-7), gap**2)
    )
    return -jnp.log(attracting / repelling).mean()


def plain_expected_error(image_embeds, target):
    similarities, gap, others = _geometry(image_embeds, target)
    return jnp.log((others * gap * similarities).sum(1) / (others * similarities).sum(1)).mean()


def _geometry(image_embeds, target):
    z = vectors.unit(image_embeds)
    return (
        jnp.exp((2 * z @ z.T - 2) / 0.07),
        jnp.abs(target[:, None] - target),
        1.0 - jnp.eye(target.size),
    )


def plain_center(image_embeds, reference_points, reference):
    return jnp.linalg.norm(vectors.unit(image_embeds) - reference_points[reference], axis=1).mean()


def plain_info_nce(logits, rank):
    return _both_ways(logits, rank, jnp.ones((rank.size, rank.size)))


def plain_fcrc(logits, rank):
    gap = jnp.abs(rank[:, None] - rank).astype(jnp.float32)
    return _both_ways(logits, rank, gap * (rank.size - 1) / gap.sum(1, keepdims=True))


def _both_ways(logits, rank, weights):
    scores, own = jnp.exp(logits[:, rank]), jnp.eye(rank.size)  # [B, B]
    candidates = jnp.where(own > 0, 1.0, weights)
    return sum(-jnp.log(s.diagonal() / (candidates * s).sum(1)).mean() for s in (scores, scores.T))


def plain_asymmetric_contrastive(logits, rank):
    scores, same = logits[:, rank], (rank[:, None] == rank).astype(jnp.float32)  # [B, B]
    return sum(
        -((same * jax.nn.log_softmax(s)).sum(1) / same.sum(1)).mean() for s in (scores, scores.T)
    )


def plain_ordinal_pairwise(image_embeds, text_embeds, rank, rank_values):
    images, own = vectors.unit(image_embeds), vectors.unit(text_embeds)[rank]
    span = rank_values.max() - rank_values.min()
    weights = (
        (1.0 - jnp.eye(rank.size)) * jnp.abs(rank_values[rank][:, None] - rank_values[rank]) / span
    )
    pairs = (weights * ((images + 0.5 * own) @ own.T)).sum() / float(rank.size * (rank.size - 1))
    return pairs - (images * own).sum(1).mean()


def plain_cloc(image_embeds, rank, margins):
    z, position = vectors.unit(image_embeds), jnp.pad(jnp.cumsum(margins), (1, 0))[rank]
    near, same = z @ z.T, rank[:, None] == rank
    positives, negatives = same & ~jnp.eye(rank.size, dtype=bool), ~same
    far = near + jnp.abs(position[:, None] - position)
    triples = jax.nn.relu(far[:, None] - near[:, :, None])  # [B, B, B]: anchor, positive, negative
    p, q = positives.sum(1), negatives.sum(1)
    return (
        (triples * positives[:, :, None] * negatives[:, None]).sum((1, 2))
        / jnp.maximum(p * q * q, 1)
    ).mean()


LOSSES = {  # name, or names of a sum -> growth of its plain form's work with B
    "supcon": 2,
    "rnc": 3,
    "conord": 2,
    "conord+center": 2,
    "expected_error": 2,
    "group_contrastive": 3,
    "fcrc": 2,
    "info_nce": 2,
    "ordinal_pairwise": 2,
    "asymmetric_contrastive": 2,
    "cloc": 3,
}


def total_of(name, plain):
    """The function of {name: array} that a loss, or a sum of some, is, and the names of its
    arrays."""
    parts = [
        globals()[f"plain_{part}"] if plain else getattr(losses, part) for part in name.split("+")
    ]
    return lambda arrays: sum(bind(part, arrays) for part in parts), {
        array for part in parts for array in needs(part)[0]
    }


def built(name, plain, found):
    """A form of a loss, compiled for some arrays and not run.

    Returns:
      (function that puts the arrays on the device and returns a call without arguments, bytes of
      temporary memory, seconds of the compiler).
    """
    total, names = total_of(name, plain)
    host = [
        {array: found[array] for array in sorted(some)}
        for some in (names & LEARNED, names - LEARNED)
    ]
    value_and_gradient = jax.value_and_grad(lambda learned, given: total({**learned, **given}))
    run, seconds, temporary = measure.compiled(value_and_gradient, *measure.shapes(host))

    def placed():
        arguments = jax.block_until_ready(jax.device_put(host))
        return lambda: jax.block_until_ready(run(*arguments))

    return placed, temporary, seconds


def follow(name, given, limit, notes):
    """Rows of one loss over the sizes; each form, ours and plain, goes as far as time and memory
    allow."""
    growth, left, rows, last, spent = (
        {"ours": 2, "plain": LOSSES[name]},
        ["ours", "plain"],
        [],
        {},
        0.0,
    )
    for size in given.sizes:
        found, forms, row = arrays(size, given.width, given.ranks), {}, {"loss": name, "n": size}
        for kind in list(left):
            placed, temporary, row[f"{kind} compile s"] = built(name, kind == "plain", found)
            row[f"{kind} MiB"] = temporary / measure.MIB
            before, took = last.get(kind, (size, 0.0))
            expected = spent + (given.rounds + 2) * took * (size / before) ** growth[kind]
            if temporary > limit:
                left.remove(kind)
                notes.append(
                    f"{name}, {kind}: n = {size:,} would hold {temporary / measure.MIB:,.0f} MiB, more than --limit."
                )
            elif expected > given.seconds:
                notes.append(
                    f"{name}, {kind}: with n = {size:,} about {expected:,.0f} s, more than --seconds."
                )
                if kind == "plain":  # ours is compiled on, for its memory
                    left.remove(kind)
            else:
                forms[kind] = placed()
        begun = time.perf_counter()
        samples = measure.alternate(forms, given.rounds)
        for kind, times in samples.items():
            row |= measure.spread(f"{kind} ms", times, 1000)
            last[kind] = size, row[f"{kind} ms"] / 1000
        if len(forms) == 2:
            row |= measure.spread("ratio", measure.ratios(samples["plain"], samples["ours"]))
            row["difference"] = difference(*(call()[0] for call in forms.values()))
        spent += time.perf_counter() - begun
        rows += [row] if len(row) > 2 else []
        if "ours" not in left:
            break
    return rows


def difference(ours, other):
    """Of two values, relative to the larger."""
    ours, other = float(ours), float(other)
    return abs(ours - other) / max(abs(ours), abs(other), 1e-30)


# Against torch.


def torch_conord(x, y):
    """ConOrd's equation (weights VIII) in PyTorch."""
    import torch

    z = torch.nn.functional.normalize(x)
    scores = -torch.cdist(z, z).square() / 0.07
    gap = (y[:, None] - y).abs()
    others = ~torch.eye(len(y), dtype=torch.bool, device=x.device)
    similarities = scores.exp() * others
    attracting, repelling = (
        (1 / (gap**2 + 1e-7) * similarities).sum(1),
        (gap**2 * similarities).sum(1),
    )
    return -(attracting / repelling).log().mean()


def torch_rnc(x, y):
    """RnC in PyTorch as a loop over the other samples: for the j-th of every anchor, all that are
    at least as far."""
    import torch

    size = len(y)
    others = ~torch.eye(size, dtype=torch.bool, device=x.device)
    scores = (-(x[:, None] - x).norm(dim=-1) / 2)[others].view(size, size - 1)
    gap = (y[:, None] - y).abs()[others].view(size, size - 1)
    powers, total = scores.exp(), 0.0
    for j in range(size - 1):
        farther = (gap >= gap[:, j : j + 1]).float()
        total = total - (scores[:, j] - (farther * powers).sum(1).log()).sum()
    return total / (size * (size - 1))


TORCH = {  # loss: B, form, and (B, D) -> bytes that it about holds
    "conord": (128, torch_conord, lambda size, width: 4 * size * size),
    # A mask for each step of the loop; the differences of all features and, going back, two arrays
    # as large.
    "rnc": (1024, torch_rnc, lambda size, width: 4 * size * size * (size + 3 * width)),
}


def versus_torch(given, limit, notes):
    """Rows of the comparison with torch."""
    import torch

    accelerated = torch.cuda.is_available() and jax.default_backend() != "cpu"
    place, device = (
        torch.device("cuda" if accelerated else "cpu"),
        jax.devices(None if accelerated else "cpu")[0],
    )
    rows = []
    for name, (size, form, held) in TORCH.items():
        if name not in given.losses:
            continue
        size = min(size, given.largest)
        if held(size, given.width) > limit:
            notes.append(
                f"{name} in torch would hold {held(size, given.width) / measure.MIB:,.0f} MiB, more than --limit."
            )
            continue
        found = arrays(size, given.width, given.ranks)
        x = torch.tensor(found["image_embeds"], device=place, requires_grad=True)
        y = torch.tensor(found["target"], device=place)

        def theirs(x=x, y=y, form=form):
            x.grad = None
            value = form(x, y)
            value.backward()
            if accelerated:
                torch.cuda.synchronize()
            return value.detach()

        with jax.default_device(device):
            placed, temporary, _ = built(name, False, found)
            ours = placed()
        samples = measure.alternate({"ours": ours, "torch": theirs}, given.rounds)
        if accelerated:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            theirs()
            memory = torch.cuda.max_memory_allocated() - before
        else:
            memory = measure.grown(theirs)
        row = {
            "loss": name,
            "n": size,
            "device": str(place),
            "difference": difference(ours()[0], theirs()),
        }
        row |= {"ours MiB": temporary / measure.MIB, "torch MiB": memory / measure.MIB}
        row |= {"memory ratio": memory / temporary}
        for kind, times in samples.items():
            row |= measure.spread(f"{kind} ms", times, 1000)
        rows.append(
            row | measure.spread("ratio", measure.ratios(samples["torch"], samples["ours"]))
        )
    notes.append(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. torch MiB: what a call adds to this process at its "
        "highest, on a GPU what it allocates; ours MiB: what the compiler has laid out."
    )
    return rows


def main(arguments=None):
    parser = measure.options(__doc__, rounds=7)
    parser.add_argument(
        "--losses", default=",".join(LOSSES), help="names, by commas; a+b is a sum (default: all)"
    )
    parser.add_argument(
        "--sizes",
        default=",".join(map(str, SIZES)),
        help="batch sizes, by commas, or none (%(default)s)",
    )
    parser.add_argument("--width", type=int, default=512, help="D of the embeddings (%(default)s)")
    parser.add_argument("--ranks", type=int, default=64, help="K (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="of a loss, about; then no larger batches (%(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=0.0,
        help="MiB of temporary memory (default: half of what is free)",
    )
    parser.add_argument("--vs-torch", action="store_true", help="compare with PyTorch too")
    parser.add_argument(
        "--largest",
        type=int,
        default=max(SIZES),
        help="no batch is larger, nor beside torch (%(default)s)",
    )
    given = parser.parse_args(arguments)
    given.sizes, given.losses = (
        sorted(map(int, filter(None, given.sizes.split(",")))),
        given.losses.split(","),
    )
    given.sizes = [size for size in given.sizes if size <= given.largest]
    if not set(given.losses) <= set(LOSSES):
        return f"error: --losses has {sorted(set(given.losses) - set(LOSSES))}; there are {', '.join(LOSSES)}"
    notes, facts = [], measure.header()
    limit = given.limit * measure.MIB or measure.free_memory() / 2
    rows = [row for name in given.losses for row in follow(name, given, limit, notes)]
    columns = [
        "loss",
        "n",
        "ours ms",
        "ours ms range",
        "ours MiB",
        "ours compile s",
        "plain ms",
        "plain ms range",
        "plain MiB",
        "ratio",
        "ratio range",
        "difference",
    ]
    tables = {}
    if given.sizes:
        tables["Value and gradient; ratio: plain / ours"] = (
            measure.ranged(rows, "ours ms", "plain ms", "ratio"),
            columns,
        )
    if given.vs_torch:
        columns = [
            "loss",
            "n",
            "device",
            "ours ms",
            "ours ms range",
            "ours MiB",
            "torch ms",
            "torch ms range",
            "torch MiB",
            "ratio",
            "ratio range",
            "memory ratio",
            "difference",
        ]
        rows = versus_torch(given, limit, notes)
        tables["Against torch; ratio: torch / ours"] = (
            measure.ranged(rows, "ours ms", "torch ms", "ratio"),
            columns,
        )
    title = f"Losses, D = {given.width}, K = {given.ranks}"
    measure.report(title, facts, tables, notes, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
