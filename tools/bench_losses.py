"""Time and memory of the contrastive losses, value and gradient, against the batch size.

    python tools/bench_losses.py [--losses=rnc,conord] [--sizes=32,1024] [--vs-torch]
    [--output=losses.json]

"plain" is the equation with all pairs in memory, or all triples for rnc, group_contrastive and
cloc. It runs while the temporary memory that the compiler lays out for it is below --limit.
Features of --width are normal, labels 0..K-1. Times are of compiled functions on arrays that are on
the device already; MiB are temporary memory beyond arguments and results. A loss is timed with
larger batches until the next would take longer than --seconds, and then compiled only, for its
memory.

--vs-torch adds ConOrd at B = 128 against its equation in PyTorch, and RnC at n = 1,024 against its
published form, a loop over the partners of each anchor, on the same device in turns. Without a GPU
in torch both run on the CPU.
"""

import sys
import time

import jax

from jaxord import losses, shipped
from jaxord.binding import bind, needs
from jaxord.data import storage

shipped.make_importable()
from tools.benching import drawn, measure, plain_losses

SIZES = (32, 128, 512, 1024, 4096, 16384, 65536)
LEARNED = {"image_embeds", "text_embeds", "logits", "reference_points", "margins"}
# a+b is a sum.
LOSSES = (
    *("supcon", "rnc", "conord", "conord+center", "expected_error", "group_contrastive", "fcrc"),
    *("info_nce", "ordinal_pairwise", "asymmetric_contrastive", "cloc"),
)
# Plain forms over triples; the work of the others grows with the square of the batch.
CUBIC = ("rnc", "group_contrastive", "cloc")
OURS = ["ours ms", "ours ms range", "ours MiB"]
COLUMNS = ["loss", "n", *OURS, "ours compile s", "plain ms", "plain ms range", "plain MiB"]
COLUMNS += ["ratio", "ratio range", "difference"]
TORCH_COLUMNS = ["loss", "n", "device", *OURS, "torch ms", "torch ms range", "torch MiB"]
TORCH_COLUMNS += ["ratio", "ratio range", "memory ratio", "difference"]
TORCH_NOTE = (
    "torch MiB: what a call adds to this process at its highest, on a GPU what it allocates; "
    "ours MiB: what the compiler has laid out."
)
SETTINGS = {
    "losses": (",".join(LOSSES), "names, by commas; a+b is a sum"),
    "sizes": (",".join(map(str, SIZES)), "batch sizes, by commas, or none"),
    "width": (512, "D of the embeddings"),
    "ranks": (64, "K"),
    "seconds": (20.0, "of a loss, about; then no larger batches"),
    "limit": (0.0, "MiB of temporary memory; 0: half of what is free"),
    "vs-torch": (False, "compare with PyTorch too"),
    "largest": (max(SIZES), "no batch is larger, nor beside torch"),
}


def total_of(name, plain):
    """(a loss or a sum of losses as a function of {name: array}, the names of its arrays)."""
    module = plain_losses if plain else losses
    parts = [getattr(module, part) for part in name.split("+")]
    names = {array for part in parts for array in needs(part)[0]}
    return lambda arrays: sum(bind(part, arrays) for part in parts), names


def built(name, plain, arrays):
    """(place, bytes of temporary memory, seconds of compiling) of a form's value and gradient.

    place() puts the arrays on the device and returns the call without arguments.
    """
    total, names = total_of(name, plain)
    parts = names & LEARNED, names - LEARNED
    host = [{array: arrays[array] for array in sorted(part)} for part in parts]
    gradient = jax.value_and_grad(lambda learned, others: total({**learned, **others}))
    run, seconds, temporary = measure.compiled(jax.jit(gradient), *host)

    def place():
        arguments = jax.block_until_ready(jax.device_put(host))
        return lambda: jax.block_until_ready(run(*arguments))

    return place, temporary, seconds


def follow(name, flags, limit, notes):
    """Rows of a loss over the sizes; each form goes as far as time and memory allow."""
    growth = {"ours": 2, "plain": 3 if name in CUBIC else 2}
    kinds, rows, last, spent = list(growth), [], {}, 0.0
    for size in flags.sizes:
        arrays = drawn.loss_arrays(size, flags.width, flags.ranks)
        forms, row = {}, {"loss": name, "n": size}
        for kind in list(kinds):
            place, temporary, row[f"{kind} compile s"] = built(name, kind == "plain", arrays)
            row[f"{kind} MiB"] = temporary / measure.MIB
            before, took = last.get(kind, (size, 0.0))
            turns = (flags.rounds + 2) * took * (size / before) ** growth[kind]
            too_large, too_slow = temporary > limit, spent + turns > flags.seconds
            if too_large:
                held = f"n = {size:,} would hold {row[f'{kind} MiB']:,.0f} MiB"
                notes.append(f"{name}, {kind}: {held}, more than --limit.")
            elif too_slow:
                needed = f"with n = {size:,} about {spent + turns:,.0f} s"
                notes.append(f"{name}, {kind}: {needed}, more than --seconds.")
            else:
                forms[kind] = place()
            # A slow form of ours is compiled on, for its memory.
            if too_large or (too_slow and kind == "plain"):
                kinds.remove(kind)
        begun = time.perf_counter()
        samples = measure.alternate(forms, flags.rounds)
        row |= times_of(samples)
        last |= {kind: (size, row[f"{kind} ms"] / 1000) for kind in samples}
        if len(forms) == 2:
            row |= measure.spread("ratio", measure.ratios(samples["plain"], samples["ours"]))
            row["difference"] = difference(*(call()[0] for call in forms.values()))
        spent += time.perf_counter() - begun
        rows.append(row)
        if "ours" not in kinds:
            break
    return rows


def times_of(samples):
    """Columns of the milliseconds of each form."""
    columns = {}
    for kind, times in samples.items():
        columns |= measure.spread(f"{kind} ms", times, 1000)
    return columns


def difference(ours, other):
    """The difference of two values relative to the larger."""
    ours, other = float(ours), float(other)
    return abs(ours - other) / max(abs(ours), abs(other), 1e-30)


def versus_torch(flags, limit, notes):
    """Rows of the losses beside torch."""
    import torch

    from tools.benching.torch_losses import BATCH, BYTES

    sizes = {name: min(n, flags.largest) for name, n in BATCH.items() if name in flags.losses}
    held = {name: BYTES[name](size, flags.width) for name, size in sizes.items()}
    for name in sizes:
        if held[name] > limit:
            mib = f"{held[name] / measure.MIB:,.0f} MiB"
            notes.append(f"{name} in torch would hold {mib}, more than --limit.")
    threads = torch.get_num_threads()
    notes.append(f"torch {torch.__version__}, {threads} threads. {TORCH_NOTE}")
    return [torch_row(name, size, flags) for name, size in sizes.items() if held[name] <= limit]


def torch_row(name, size, flags):
    """The row of one loss beside torch."""
    import torch

    from tools.benching import torch_losses

    accelerated = torch.cuda.is_available() and jax.default_backend() != "cpu"
    place = torch.device("cuda" if accelerated else "cpu")
    arrays = drawn.loss_arrays(size, flags.width, flags.ranks)
    x = torch.tensor(arrays["image_embeds"], device=place, requires_grad=True)
    y = torch.tensor(arrays["target"], device=place)
    form = getattr(torch_losses, name)

    def theirs():
        x.grad = None
        value = form(x, y)
        value.backward()
        if accelerated:
            torch.cuda.synchronize()
        return value.detach()

    with jax.default_device(jax.devices(None if accelerated else "cpu")[0]):
        put, temporary, _ = built(name, False, arrays)
        ours = put()
    samples = measure.alternate({"ours": ours, "torch": theirs}, flags.rounds)
    if accelerated:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        theirs()
        memory = torch.cuda.max_memory_allocated() - before
    else:
        memory = measure.grown(theirs)
    row = {"loss": name, "n": size, "device": str(place)}
    row |= {"difference": difference(ours()[0], theirs()), "ours MiB": temporary / measure.MIB}
    row |= {"torch MiB": memory / measure.MIB, "memory ratio": memory / temporary}
    ratios = measure.ratios(samples["torch"], samples["ours"])
    return row | times_of(samples) | measure.spread("ratio", ratios)


def bench(flags):
    """Times the losses, alone and beside torch."""
    flags.losses = flags.losses.split(",")
    sizes = sorted(map(int, filter(None, flags.sizes.split(","))))
    flags.sizes = [size for size in sizes if size <= flags.largest]
    if unknown := sorted(set(flags.losses) - set(LOSSES)):
        raise ValueError(f"--losses has {unknown}; known are {', '.join(LOSSES)}")
    on_cpu = jax.default_backend() == "cpu"
    free = storage.host_memory() if on_cpu else storage.device_memory()[1]
    limit = flags.limit * measure.MIB or free / 2
    notes, tables = [], {}
    if flags.sizes:
        rows = [row for name in flags.losses for row in follow(name, flags, limit, notes)]
        tables["Value and gradient; ratio: plain / ours"] = rows, COLUMNS
    if flags.vs_torch:
        rows = versus_torch(flags, limit, notes)
        tables["Against torch; ratio: torch / ours"] = rows, TORCH_COLUMNS
    return f"Losses, D = {flags.width}, K = {flags.ranks}", tables, notes


main = measure.command(__doc__, bench, SETTINGS, rounds=7)


if __name__ == "__main__":
    sys.exit(main())
