"""How fast is the training step of a config on this machine, and how much of what the machine can
do is that?

    python tools/bench_step.py --config=configs/quickstart.py --synthetic=512
    python tools/bench_step.py --config=configs/morph.py:method=ce --synthetic=512 --set
    data.batch=4 --vs-torch --output=b.json

It times the step that training runs: the same assembly, the same jitted update, the same batches,
  and as many updates a call
(20 where the images are on the device, as with --set data.tier=resident; the header says it).
Pretrained weights are read where config.model.weights is a folder that is there; else all are
drawn, which changes no speed, but then sentences are bytes, longer than with the checkpoint's own
tokenizer: the header prints K x T. --vs-torch runs the step of tools/torch_step.py on the same
device in the same process, blocks of either in turn; torch gets the images already cropped and on
the device. jax does not take the device's memory in advance (XLA_PYTHON_CLIENT_PREALLOCATE=false).
On one core: taskset -c 0 python ...
"""

import argparse
import functools
import io
import itertools
import json
import math
import os
import pathlib
import statistics
import sys
import time
from unittest import mock

# Before jax is imported: it would take three quarters of a GPU's memory, and torch wants some of it
# too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ lies beside tools/ and is not installed

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxord import evaluate, trees
from jaxord.binding import needs
from jaxord.data import readers
from jaxord.data.batches import eval_batches
from jaxord.data.records import Records
from jaxord.models import ordinal
from jaxord.runtime import devices, flops
from jaxord.runtime.memory import program_bytes
from jaxord.step import make_forward, objective
from jaxord.task import configured_rules, make_task
from jaxord.workdir import layout, run_config
from jaxord.workdir.log import table
from tools import measure

COLUMNS = (
    "side",
    "step ms",
    "fastest",
    "CPU ms",
    "steps/s",
    "img/s",
    "GFLOP/s",
    "MFU %",
    "compile s",
    "program MiB",
    "peak MiB",
    "data %",
)
DISTINCT = 16  # synthetic images; the others repeat them, what they show changes no speed
MATRIX = {"cpu": 2048}  # rows of the square matrix whose product is timed; 8192 on accelerators


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, help="config file, with its argument: configs/hci.py:method=coop"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="field of the config: data.batch=4",
    )
    parser.add_argument("--stage", default="", help="of a config with stages; the first by default")
    parser.add_argument(
        "--synthetic",
        type=int,
        default=0,
        metavar="N",
        help="N random images in place of the data set",
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="time the forward pass of the evaluation, not the update",
    )
    parser.add_argument(
        "--vs-torch", action="store_true", help="the same step in PyTorch beside it"
    )
    parser.add_argument("--eager", action="store_true", help="torch without torch.compile")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each side, in turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a block")
    parser.add_argument("--output", default="", help="JSON file of all that is printed")
    return parser.parse_args(arguments)


def config_of(text, fields, stage=""):
    """The finished config that the command's --config and --set make, of one stage."""
    config = measure.config_of(text, fields)
    stages = {entry.name: entry for entry in config.stages}
    if stage and stage not in stages:
        raise ValueError(f"{text} has no stage {stage!r}; its stages are {list(stages)}")
    return (
        run_config.staged(config, stages[stage] if stage else config.stages[0])
        if stages
        else config
    )


def drawn(config, later):
    """(config, start, what the parameters are): from the config's files where they are here, else
    all of them anew.

    `later` stages go on from parameters of the stage before, so theirs are drawn too.
    """
    m = config.model
    sources = [source for source in (m.weights, m.image_weights) if source]
    if all(map(os.path.exists, sources)) and (sources or not m.pretrained) and not later:
        return config, None, f"read from {', '.join(sources)}" if sources else "drawn"
    with config.unlocked():
        m.weights, m.image_weights, m.pretrained, config.fresh = "", "", False, ".*"
    return config, {"params": {}, "stats": {}}, "drawn, in place of trained ones"


def synthetic(config, count):
    """`count` records with smooth random images as JPEG, and labels that go through all ranks, as
    both splits."""
    kind, side = config.data.reader["name"].partition(".")[0], config.data.stored_size
    if kind in ("sentences", "videos", "gaze"):
        raise ValueError(
            f"--synthetic makes single images with one number each; the reader of {config.name} is of {kind}"
        )
    labels, groups = config.ranks.labels or config.ranks.edges, config.groups
    if not labels:
        labels = np.arange(groups.low, groups.high) if groups.high > groups.low else np.arange(10)
    generator, files = np.random.default_rng(0), []
    for _ in range(min(count, DISTINCT)):
        noise = Image.fromarray(
            generator.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
        )
        noise.resize((side, side), Image.Resampling.BICUBIC).save(
            file := io.BytesIO(), "JPEG", quality=90
        )
        files.append(file.getvalue())
    records = Records(
        paths=tuple(f"{row}.jpg" for row in range(count)),
        targets=np.resize(np.asarray(labels, np.float32), count),
        read=lambda row: files[row % len(files)],
        columns={},
        name=f"{count} synthetic images",
    )
    return {"train": records, "test": records}


def task_of(config, count, start):
    """The assembled task, from the data set or from synthetic images."""
    fold = layout.chosen_folds(config)[0]
    if not count:
        return make_task(config, fold, start)
    with mock.patch.object(readers, "load", lambda data, fold, seed: synthetic(config, count)):
        return make_task(config, fold, start)


def training(task, several=False):
    """The update as train.fit builds it: (jitted step, State, the schedule's factor at each
    step)."""
    state, step, factor, total = measure.begin(task, several)
    return step, state, np.asarray(jax.vmap(factor)(jnp.arange(min(total, 10_000))))


def wanted(config):
    """Names of the outputs that the config's rules take."""
    return {
        names.get(name, name)
        for rule, names in configured_rules(config).values()
        for name in sum(needs(rule), [])
    }


def count_flops(task, batch, labels, train):
    """(FLOPs of the step, FLOPs of its forward pass), without those of crops and without what remat
    computes again."""
    config, model = task.config, task.model
    if config.model.remat:
        with config.unlocked():
            config.model.remat = False
        table_of_words = task.trained.get("sentence/embedding", np.zeros((0, 0)))
        model = ordinal.build(
            config,
            model.settings,
            model.dtype,
            task.constants.get("prompt_slots"),
            table_of_words.shape,
        )
    prepare, constants = task.prepare(train), task.constants
    arrays = {**constants, **jax.eval_shape(prepare, batch, labels, constants)}
    mutable = ["stats"] if train and config.train.statistics == "update" else []
    total = objective(config)

    def loss(trained, frozen, stats, arrays):
        variables = trees.nested({"params": {**frozen, **trained}, "stats": stats})
        outputs, _ = model.apply(
            variables, arrays, rngs={"dropout": jax.random.key(0)}, mutable=mutable
        )
        return total({**arrays, **outputs})[0] if train else outputs

    inputs = task.trained, task.frozen, task.stats, arrays
    forward = flops.count(loss, *inputs)
    return flops.count(jax.value_and_grad(loss), *inputs) if train else forward, forward


def matrix_rate(dtype):
    """FLOP/s of one device in square matrix products of a dtype: the fastest of five runs of four
    products."""
    size = MATRIX.get(jax.default_backend(), 8192)
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: functools.reduce(lambda y, _: (x @ y) / size, range(4), x))
    seconds = []
    for _ in range(6):  # the first compiles
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return size, 4 * 2 * size**3 / min(seconds[1:])


def peak_bytes():
    """The most that jax has held on the fullest local device; None where the backend does not
    say."""
    found = [device.memory_stats() for device in jax.local_devices()]
    return max(stats["peak_bytes_in_use"] for stats in found) if all(found) else None


def ours(task, train):
    """The step of the task, compiled.

    Returns:
      (run(steps) -> (seconds, seconds in which it stood waiting for a batch, steps: at least so
      many, in whole calls), facts).
    """
    config, constants = task.config, task.constants
    if train:
        batches, labels, most = measure.batches(task, task.splits["train"])
        (step, state, factors), first = training(task, most > 1), next(batches)
    else:
        state, factors = (
            devices.put(
                {"params": {**task.trained, **task.held(task.frozen)}, "stats": task.stats},
                devices.replicated(task.mesh),
            ),
            None,
        )
        step = make_forward(
            task.model, task.prepare(train=False), wanted(config), devices.replicated(task.mesh)
        )
        passes = (
            eval_batches(task.splits["test"], batch=config.data.eval_batch)
            for _ in itertools.count()
        )
        batches = (
            {k: v for k, v in batch.items() if k != "valid"}
            for batch in itertools.chain.from_iterable(passes)
        )
        labels, constants, first, most = (
            task.labels["test"],
            evaluate.with_text(task, state),
            next(batches),
            1,
        )
    one = (
        {name: array[0] for name, array in first.items() if name != "steps"} if most > 1 else first
    )
    prepared = jax.jit(task.prepare(train))(one, labels, constants)
    arrays = {
        name: np.asarray(prepared[name])
        for name in ("image", "rank", "target")[: 3 if train else 1]
        if name in prepared
    }
    work, forward = count_flops(task, one, labels, train)
    start = time.perf_counter()
    compiled = step.lower(
        state, first, labels, constants
    ).compile()  # the calls below use this very program
    seconds = time.perf_counter() - start
    crowded = jax.default_backend() == "cpu" and task.mesh.size > 1  # see train.fit

    def once(batch):
        nonlocal state
        result = step(state, batch, labels, constants)
        if train:
            state, result = result
        if crowded:
            jax.block_until_ready(result)
        return result

    def run(steps):
        waited, calls, start = 0.0, -(-steps // most), time.perf_counter()
        for _ in range(calls):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            result = once(batch)
        jax.block_until_ready((result, state))
        return time.perf_counter() - start, waited, calls * most

    value = once(first)  # of one update
    loss = float(value["loss"]) if train else None
    return run, {
        "loss": loss,
        "compile_s": seconds,
        "program_bytes": program_bytes(compiled),
        "peak_bytes": peak_bytes,
        "flops": work,
        "forward_flops": forward,
        "arrays": arrays,
        "factors": factors,
        "a_call": most,
    }


def theirs(task, facts, train, compile):
    """As `ours`, of the step in torch on the batch that `facts` holds."""
    from tools import torch_step

    step, wait, found = torch_step.build(
        task, facts["arrays"], facts["factors"], train=train, compile=compile
    )

    def run(steps):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        return time.perf_counter() - start, 0.0, steps

    return run, found


def in_turns(sides, rounds, seconds):
    """{side: [(seconds a step, share of waiting, CPU seconds a step)] of each block}, blocks of the
    sides in turn."""
    counts = {}
    for name, run in sides.items():
        run(1)
        spent, _, steps = run(3)
        counts[name] = max(1, round(seconds / spent * steps))
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            cpu = time.process_time()
            spent, waited, steps = run(counts[name])
            found[name].append((spent / steps, waited / spent, (time.process_time() - cpu) / steps))
    return found


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
        "program MiB": facts.get("program_bytes", math.nan) / 2**20,
        "peak MiB": math.nan if peak is None else peak / 2**20,
        "data %": 100 * share if name == "jaxord" else math.nan,
    }


def header(task, options, facts, parameters, images, rate):
    """Lines that say what was measured."""
    d, train = task.config.data, not options.predict
    split = task.splits["train" if train else "test"]
    views = facts["arrays"]["image"].shape[1] if "image" in facts["arrays"] else 0
    devices = f"{task.mesh.size} x {jax.devices()[0].device_kind}"
    count = {
        name: sum(array.size for array in part.values())
        for name, part in (("trained", task.trained), ("frozen", task.frozen))
    }
    prompt = "none"
    if "prompt_tokens" in task.constants:
        often = "once" if "text_embeds" in task.constants or not train else "in every step"
        prompt = "{} sentences of {} tokens, run {}".format(
            *task.constants["prompt_tokens"].shape, often
        )
    forward, work, products = (
        facts["forward_flops"],
        facts["flops"],
        "2 a multiply-add of all products and convolutions",
    )
    size, one = rate
    lines = [
        ("config", f"{task.config.name}-{task.config.method} {' '.join(options.set)}".strip()),
        (
            "step",
            f"update of the training, {facts['a_call']} a call"
            if train
            else "forward pass of the evaluation",
        ),
        (
            "machine",
            f"{devices}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}",
        ),
        (
            "model",
            f"{task.config.model.image_tower or task.config.model.variant}, activations {task.model.dtype}",
        ),
        ("parameters", f"{count['trained']:,} trained, {count['frozen']:,} frozen; {parameters}"),
        (
            "batch",
            f"{images} images, {views} views of {d.image_size} pixels, {split.records.name}, tier {split.tier}",
        ),
        ("texts", prompt),
        (
            "FLOPs",
            f"{work / 1e9:,.4g} G a step = {work / forward:.2f} x the forward pass of {forward / images / 1e9:,.4g} G "
            f"an image; {products} (jaxord/runtime/flops.py)",
        ),
        (
            "matrix rate",
            f"{one / 1e9:,.4g} GFLOP/s a device: products of {size} x {size} in {task.model.dtype}; 100 % of MFU",
        ),
    ]
    cache = jax.config.jax_compilation_cache_dir
    return lines + ([("cache", f"programs compiled before are read from {cache}")] if cache else [])


def bench(options):
    """Measures, prints, and returns what it printed."""
    train = not options.predict
    config, start, parameters = drawn(
        config_of(options.config, options.set, options.stage), options.stage
    )
    task = task_of(config, options.synthetic, start)
    images = config.data.batch * config.data.copies if train else config.data.eval_batch
    run, facts = ours(task, train)
    sides, of_side, torch_lines = {"jaxord": run}, {"jaxord": facts}, []
    if options.vs_torch:
        import torch

        if jax.default_backend() == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
        sides["torch"], of_side["torch"] = theirs(task, facts, train, not options.eager)
        same = (
            f"; loss at the start {of_side['torch']['loss']:.7g}, ours {facts['loss']:.7g}"
            if train
            else ""
        )
        torch_lines = [
            (
                "torch",
                f"{torch.__version__}, {of_side['torch']['form']}, {torch.get_num_threads()} threads{same}",
            )
        ]
    blocks = in_turns(sides, options.rounds, options.seconds)
    rows = [row_of(name, blocks[name], of_side[name], images, facts["flops"]) for name in sides]
    size, one = matrix_rate(task.model.dtype)  # last: it would count in the peak of memory
    for row in rows:
        row["MFU %"] = 100 * row["GFLOP/s"] * 1e9 / (one * task.mesh.size)
    lines = header(task, options, facts, parameters, images, (size, one)) + torch_lines
    print("\n".join(f"{name:<12}{text}" for name, text in lines))
    print(
        f"{options.rounds} blocks of {options.seconds:g} s each; step ms and what follows from it: of the median block"
    )
    print("CPU ms: of all threads of this process, which other work on the machine changes least")
    print("data %: share of the time in which the loop stands waiting for a batch\n")
    print(
        table(rows, [column for column in COLUMNS if any(not _empty(row[column]) for row in rows)]),
        end="\n\n",
    )
    found = {
        "header": dict(lines),
        "rows": [{k: None if _empty(v) else v for k, v in row.items()} for row in rows],
        "flops": facts["flops"],
        "forward_flops": facts["forward_flops"],
        "matrix_rate": one,
        "blocks": blocks,
    }
    if options.vs_torch:
        for kind, column in (("time", 0), ("CPU time", 2)):
            ratios = [
                b[column] / a[column]
                for a, b in zip(blocks["jaxord"], blocks["torch"], strict=True)
            ]
            found[kind] = {
                "median": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
            print(
                "torch's {} / ours: median {median:.3f}, {least:.3f} to {most:.3f} over the pairs of blocks".format(
                    kind, **found[kind]
                )
            )
        found["losses"] = {name: side["loss"] for name, side in of_side.items()}
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(found, indent=2) + "\n")
    return found


def _empty(value):
    return isinstance(value, float) and math.isnan(value)


def main(arguments=None):
    try:
        bench(parse(arguments))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
