"""Speed of a config's training step on this machine, and its share of what the machine can do.

    python tools/bench_step.py --config=configs/quickstart.py --synthetic=512
    python tools/bench_step.py --config=configs/morph.py:method=ce --synthetic=512 --set
    data.batch=4 --vs-torch --output=b.json

Times the step that training runs: the same assembly, jitted update and batches, and as many updates
a call (20 if the images are on the device, as with --set data.tier=resident; the header says it).
Pretrained weights are read if config.model.weights is a folder that exists; otherwise all are
drawn, which changes no speed, but then sentences are bytes, longer than with the checkpoint's own
tokenizer: the header prints K x T. --vs-torch runs the step of tools/benching/torch_step.py on the
same device in the same process, blocks of either in turn; torch gets the images already cropped and
on the device. On one core: taskset -c 0 python ...
"""

import functools
import itertools
import math
import os
import statistics
import sys
import time

import jax
import numpy as np

from jaxord import evaluate, shipped, trees
from jaxord.binding import needs
from jaxord.data.batches import eval_batches
from jaxord.models import ordinal
from jaxord.runtime import devices, flops
from jaxord.runtime.memory import program_bytes
from jaxord.step import make_forward, objective
from jaxord.task import configured_rules, make_task
from jaxord.workdir import files, layout
from jaxord.workdir.log import table

shipped.make_importable()
from tools.benching import drawn, measure, options, training

COLUMNS = ["side", "step ms", "fastest", "CPU ms", "steps/s", "img/s", "GFLOP/s", "MFU %"]
COLUMNS += ["compile s", "program MiB", "peak MiB", "data %"]
MATRIX = {"cpu": 2048}  # rows of the square matrix whose product is timed; 8192 on accelerators
SETTINGS = {
    "stage": ("", "of a config with stages; the first by default"),
    "synthetic": (0, "N random images in place of the data set"),
    "predict": (False, "time the forward pass of the evaluation, not the update"),
    "vs-torch": (False, "the same step in PyTorch beside it"),
    "eager": (False, "torch without torch.compile"),
    "seconds": (3.0, "length of a block; --rounds is their number"),
}
NOTES = """CPU ms: of all threads of this process, which other work on the machine changes least
data %: share of the time in which the loop stands waiting for a batch
"""

parse = options.benchmark(__doc__, SETTINGS, rounds=5, config="").parse_args


def starting_point(config, later):
    """(config, start, words): parameters from files if they exist; `later` stages draw them."""
    m = config.model
    sources = [source for source in (m.weights, m.image_weights) if source]
    if all(map(os.path.exists, sources)) and (sources or not m.pretrained) and not later:
        return config, None, f"read from {', '.join(sources)}" if sources else "drawn"
    with config.unlocked():
        m.weights, m.image_weights, m.pretrained, config.fresh = "", "", False, ".*"
    return config, {"params": {}, "stats": {}}, "drawn, in place of trained ones"


def task_of(config, count, start):
    """The assembled task, from the data set or from `count` synthetic images."""
    fold = layout.chosen_folds(config)[0]
    if count:
        return drawn.task_of(config, fold, drawn.images(config, count), start)
    return make_task(config, fold, start)


def count_flops(task, batch, labels, train):
    """(FLOPs of the step, of its forward pass), without crops and what remat computes again."""
    config, model = task.config, task.model
    if config.model.remat:
        with config.unlocked():
            config.model.remat = False
        words = task.trained.get("sentence/embedding", np.zeros((0, 0))).shape
        slots = task.constants.get("prompt_slots")
        model = ordinal.build(config, model.settings, model.dtype, slots, words)
    prepare, constants = task.prepare(train), task.constants
    arrays = {**constants, **jax.eval_shape(prepare, batch, labels, constants)}
    mutable = ["stats"] if train and config.train.statistics == "update" else []
    rngs, total = {"dropout": jax.random.key(0)}, objective(config)

    def loss(trained, frozen, stats, arrays):
        variables = trees.nested({"params": {**frozen, **trained}, "stats": stats})
        outputs, _ = model.apply(variables, arrays, rngs=rngs, mutable=mutable)
        return total({**arrays, **outputs})[0] if train else outputs

    inputs = task.trained, task.frozen, task.stats, arrays
    forward = flops.count(loss, *inputs)
    return flops.count(jax.value_and_grad(loss), *inputs) if train else forward, forward


def matrix_rate(dtype):
    """(rows, FLOP/s) of one device in square matrix products: the fastest of five runs of four."""
    size = MATRIX.get(jax.default_backend(), 8192)
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: functools.reduce(lambda y, _: (x @ y) / size, range(4), x))
    seconds = [measure.seconds(lambda: product(x).block_until_ready()) for _ in range(6)]
    # The first compiles.
    return size, 4 * 2 * size**3 / min(seconds[1:])


def forward_pass(task):
    """(variables, jitted forward pass, batches, labels, constants) of the evaluation."""
    config, replicated = task.config, devices.replicated(task.mesh)
    parameters = {**task.trained, **task.held(task.frozen)}
    variables = devices.put({"params": parameters, "stats": task.stats}, replicated)
    rules = configured_rules(config).values()
    names = {names.get(name, name) for rule, names in rules for name in sum(needs(rule), [])}
    step = make_forward(task.model, task.prepare(train=False), names, replicated)

    def batches():
        for _ in itertools.count():
            for batch in eval_batches(task.splits["test"], batch=config.data.eval_batch):
                yield {name: array for name, array in batch.items() if name != "valid"}

    return variables, step, batches(), task.labels["test"], evaluate.with_text(task, variables)


def ours(task, train):
    """(run, facts) of the task's compiled step.

    run(steps) returns (seconds, seconds of waiting for a batch, steps, in full calls).
    """
    constants, factors, per_call = task.constants, None, 1
    if train:
        batches, labels, per_call = training.batches(task, task.splits["train"])
        state, step, factor, total = training.begin(task, per_call > 1)
        factors = np.asarray(jax.vmap(factor)(np.arange(min(total, 10_000))))
    else:
        state, step, batches, labels, constants = forward_pass(task)
    first = one = next(batches)
    if per_call > 1:
        one = {name: array[0] for name, array in first.items() if name != "steps"}
    prepared = jax.jit(task.prepare(train))(one, labels, constants)
    names = ("image", "rank", "target") if train else ("image",)
    arrays = {name: np.asarray(prepared[name]) for name in names if name in prepared}
    work, forward = count_flops(task, one, labels, train)
    # Calls of the jitted step below use this very program.
    compiled, seconds, _ = measure.compiled(step, state, first, labels, constants)

    def call(state, *rest):
        return step(state, *rest) if train else (state, step(state, *rest))

    def run(steps):
        nonlocal state
        draw, calls = functools.partial(next, batches), -(-steps // per_call)
        state, spent, waited = training.run_calls(call, state, draw, calls, labels, constants)
        return spent, waited, calls * per_call

    # The first call is of one update.
    state, values = jax.block_until_ready(call(state, first, labels, constants))
    return run, {
        "loss": float(values["loss"]) if train else None,
        "compile_s": seconds,
        "program_bytes": program_bytes(compiled),
        "peak_bytes": measure.peak_bytes,
        "flops": work,
        "forward_flops": forward,
        "arrays": arrays,
        "factors": factors,
        "per_call": per_call,
    }


def theirs(task, facts, train, compile):
    """As `ours`, of the step in torch on the batch that `facts` holds."""
    from tools.benching import torch_step

    arrays, factors = facts["arrays"], facts["factors"]
    step, wait, torch_facts = torch_step.build(task, arrays, factors, train=train, compile=compile)

    def run(steps):
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        return time.perf_counter() - begun, 0.0, steps

    return run, torch_facts


def in_turns(sides, rounds, seconds):
    """{side: [(seconds a step, share of waiting, CPU seconds a step)]}, blocks in turn."""
    counts, blocks = {}, {name: [] for name in sides}
    for name, run in sides.items():
        run(1)
        spent, _, steps = run(3)
        counts[name] = max(1, round(seconds / spent * steps))
    for name, run in list(sides.items()) * rounds:
        begun = time.process_time()
        spent, waited, steps = run(counts[name])
        cpu = time.process_time() - begun
        blocks[name].append((spent / steps, waited / spent, cpu / steps))
    return blocks


def row_of(name, blocks, facts, images, work):
    """One line of the table."""
    seconds, share, cpu = (statistics.median(column) for column in zip(*blocks, strict=True))
    peak = facts["peak_bytes"]()
    return {
        "side": name,
        "step ms": 1e3 * seconds,
        "fastest": 1e3 * min(blocks)[0],
        "CPU ms": 1e3 * cpu,
        "steps/s": 1 / seconds,
        "img/s": images / seconds,
        "GFLOP/s": work / seconds / 1e9,
        "compile s": facts["compile_s"],
        "program MiB": facts.get("program_bytes", math.nan) / measure.MIB,
        "peak MiB": math.nan if peak is None else peak / measure.MIB,
        "data %": 100 * share if name == "jaxord" else math.nan,
    }


def header(task, flags, facts, parameters, images, rate):
    """{title: text}: config, machine, model and work of what was measured."""
    config, split = task.config, task.splits["test" if flags.predict else "train"]
    views = facts["arrays"]["image"].shape[1] if "image" in facts["arrays"] else 0
    trained, frozen = (sum(x.size for x in part.values()) for part in (task.trained, task.frozen))
    step, texts = f"update of the training, {facts['per_call']} a call", "none"
    if "prompt_tokens" in task.constants:
        once = "text_embeds" in task.constants or flags.predict
        ranks, tokens = task.constants["prompt_tokens"].shape
        texts = f"{ranks} sentences of {tokens} tokens, run {'once' if once else 'in every step'}"
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{task.mesh.size} x {jax.devices()[0].device_kind}, {cores} cores, load {load:.1f}"
    batch = f"{images} images, {views} views of {config.data.image_size} pixels"
    tower = config.model.image_tower or config.model.variant
    forward, (size, one) = facts["forward_flops"], rate
    work = f"{facts['flops'] / 1e9:,.4g} G a step = {facts['flops'] / forward:.2f} x the forward"
    work += f" pass of {forward / images / 1e9:,.4g} G an image; 2 a multiply-add of all products"
    products = f"products of {size} x {size} in {task.model.dtype}; 100 % of MFU"
    lines = {
        "config": f"{config.name}-{config.method} {' '.join(flags.set)}".strip(),
        "step": "forward pass of the evaluation" if flags.predict else step,
        "machine": f"{machine}, jax {jax.__version__}",
        "model": f"{tower}, activations {task.model.dtype}",
        "parameters": f"{trained:,} trained, {frozen:,} frozen; {parameters}",
        "batch": f"{batch}, {split.records.name}, tier {split.tier}",
        "texts": texts,
        "FLOPs": f"{work} and convolutions (jaxord/runtime/flops.py)",
        "matrix rate": f"{one / 1e9:,.4g} GFLOP/s a device: {products}",
    }
    if cache := jax.config.jax_compilation_cache_dir:
        lines["cache"] = f"programs compiled before are read from {cache}"
    return lines


def bench(flags):
    """Measures, prints, and returns what it prints."""
    train = not flags.predict
    config = training.config_of(flags.config, flags.set, flags.stage)
    config, start, parameters = starting_point(config, flags.stage)
    task = task_of(config, flags.synthetic, start)
    images = config.data.batch * config.data.copies if train else config.data.eval_batch
    run, facts = ours(task, train)
    sides, of_side, torch_line = {"jaxord": run}, {"jaxord": facts}, {}
    if flags.vs_torch:
        sides["torch"], torch_facts = theirs(task, facts, train, not flags.eager)
        of_side["torch"], torch_line = torch_facts, {"torch": torch_facts["form"]}
        if train:
            losses = f"{torch_facts['loss']:.7g}, ours {facts['loss']:.7g}"
            torch_line["torch"] += f"; loss at the start {losses}"
    blocks = in_turns(sides, flags.rounds, flags.seconds)
    rows = [row_of(name, blocks[name], of_side[name], images, facts["flops"]) for name in sides]
    # Last, because its memory would count in the peak.
    rate = matrix_rate(task.model.dtype)
    for row in rows:
        row["MFU %"] = 100 * row["GFLOP/s"] * 1e9 / (rate[1] * task.mesh.size)
    lines = header(task, flags, facts, parameters, images, rate) | torch_line
    print("\n".join(f"{name:<12}{text}" for name, text in lines.items()))
    blocks_are = f"{flags.rounds} blocks of {flags.seconds:g} s each"
    print(f"{blocks_are}; step ms and what follows from it: of the median block\n{NOTES}")
    known = files.json_value(rows)
    shown = [name for name in COLUMNS if any(row[name] is not None for row in known)]
    print(f"{table(rows, shown)}\n")
    figures = {"header": lines, "rows": known, "flops": facts["flops"]}
    figures |= {"forward_flops": facts["forward_flops"], "matrix_rate": rate[1], "blocks": blocks}
    if flags.vs_torch:
        for kind, column in (("time", 0), ("CPU time", 2)):
            columns = ([block[column] for block in blocks[side]] for side in ("torch", "jaxord"))
            median, least, most = measure.spread("", measure.ratios(*columns)).values()
            over = f"{median:.3f}, {least:.3f} to {most:.3f} over the pairs of blocks"
            print(f"torch's {kind} / ours: median {over}")
            figures[kind] = {"median": median, "least": least, "most": most}
        figures["losses"] = {name: side["loss"] for name, side in of_side.items()}
    if flags.output:
        files.write_json(flags.output, figures)
    return figures


def main(arguments=None):
    try:
        bench(parse(arguments))
    except ValueError as error:
        return f"error: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
