"""What becomes of each command on the pages when tools/run_docs.py comes to it."""

import collections
import importlib.util
import re
import shutil

# how "runs": it succeeds. "wants": it ends in one message, which holds `words`. "serves": it says
# `words`, and is ended then. "parsed": flags, config and files are checked; `words` are the reason.
# "checks": .ci/run has it as it stands. `more` is added to it. order: 1 before those that need its
# run, 3 after those that it needs, 4 with one that it waits for.
Rule = collections.namedtuple("Rule", "pattern how words more order", defaults=("", "", 2))

MAIN = r"python -m jaxord\.main "
APART = " --workdir=runs/{number}"  # in a folder of its own
LISTS = "missing under"
HERE = {
    module: bool(importlib.util.find_spec(module))
    for module in ("jax2onnx", "torch", "atheris", "mkdocs")
}

# What makes a command small: it is added to it (a flag that is there twice counts as the last
# says).
STEPS = {"train.duration": "'2 steps'", "data.batch": "8", "data.eval_batch": "64"}
SHORT = " ".join(f"--config.{field}={value}" for field, value in STEPS.items())
SETS = " ".join(f"--set {field}={value}" for field, value in STEPS.items())
SWEPT = "--output=runs/{number}"
STEP = "--rounds=1 --seconds=0.1 --synthetic=64 --set data.batch=4 --set model.variant=tiny --set data.image_size=32 --eager"
LOSSES = "--sizes=8 --largest=8 --width=8 --rounds=1 --seconds=0.1"
SEARCH = "--queries=8 --gallery=64 --width=8 --rounds=1"
SHORTER = {
    "steps=500": "steps=2",
    "range(3)": "range(1)",
    'in ("ce", "ce_l1")': 'in ("ce_l1",)',
    '(("ce_l1", "ce"),)': "()",
}  # within pieces of Python
RULES = (
    Rule(r"pytest( -m long)?|pip install -e \"\.\[(test|docs|onnx)\]\"", "checks"),
    Rule(r"pip install .*", "runs", "", "--dry-run --quiet"),
    Rule(r"PYTHONPATH=\. python tests/test_\w+\.py", "runs"),
    Rule(r"mkdocs serve", *(("serves", "Serving on") if HERE["mkdocs"] else ("parsed", "mkdocs"))),
    Rule(r"(srun|export) .*", "parsed", "several hosts"),
    Rule(r"JAX_PROCESS_ID=\d .*", "wants", LISTS, "--workdir=runs/hosts", 4),
    Rule(
        r"python tools/sweep\.py .*--launcher=slurm.*",
        *(("parsed", "SLURM") if shutil.which("srun") else ("wants", "srun")),
    ),
    Rule(
        r"python tools/sweep\.py experiments/(hci|stsb|group_counts)\.py.*", "wants", LISTS, SWEPT
    ),
    Rule(r"python tools/sweep\.py experiments/freshness\.py.*", "wants", "labels.csv", SWEPT),
    Rule(r"python tools/sweep\.py .*--search=.*", "runs", "", f"{SETS} {SWEPT} --trials=1"),
    Rule(r"python tools/sweep\.py experiments/mine\.py --slots=2", "runs", "", SETS),
    Rule(r"python tools/sweep\.py .*", "runs", "", f"{SETS} {SWEPT}"),
    Rule(r"python tools/(table|sweep_report)\.py .*", "runs", order=3),
    Rule(r"python tools/bench_knn\.py .*", "runs", "", SEARCH),
    Rule(r"(taskset -c 1 )?python tools/bench_losses\.py .*", "runs", "", LOSSES),
    Rule(
        r"(taskset -c 1 )?python tools/bench_step\.py .*--vs-torch.*",
        *(("runs",) if HERE["torch"] else ("parsed", "torch")),
        more=STEP,
    ),
    Rule(r"python tools/bench_step\.py .*", "runs", "", STEP),
    Rule(r"python tools/bench_data\.py .*", "runs", "", "--steps=1"),
    Rule(r"python tools/bench_epoch\.py .*", "runs", "", "--steps=1 --images=2"),
    Rule(r"python tools/bench_population\.py .*", "runs", "", "--rates=1 --decays=1 --seeds=2"),
    Rule(r"python tools/torture\.py --kills=100", "runs", "", "--kills=1 --steps=8"),
    Rule(r"python tools/torture\.py .*", "parsed", "minutes; --kills=100 runs"),
    Rule(
        r"python tools/fuzz\.py .*--coverage",
        *(("runs",) if HERE["atheris"] else ("wants", "atheris")),
        more="--runs=200",
    ),
    Rule(r"python tools/fuzz\.py .*", "runs", "", "--runs=200"),
    Rule(r"python tools/make_concepts\.py .*", "wants", "answer"),
    Rule(r"python tools/convert_weights\.py .*", "wants", "clip/pytorch_model.bin"),
    Rule(r"python tools/prepare_data\.py .*", "wants", LISTS),
    Rule(MAIN + r"--mode=evaluate .*--config=configs/konvid\.py.*", "wants", LISTS),
    Rule(MAIN + r"--mode=evaluate .*", "runs"),
    Rule(
        MAIN + r"--mode=export .*--format=onnx",
        *(("runs",) if HERE["jax2onnx"] else ("wants", "onnx")),
    ),
    Rule(MAIN + r"--mode=(predict|export) .*", "runs"),
    Rule(MAIN + r"--mode=report .*", "runs", order=3),
    Rule(
        r"cd exported && python predict\.py .*",
        *(("runs", "", "", 3) if HERE["torch"] else ("parsed", "torch")),
    ),
    Rule(MAIN + r"--config=configs/(hci|stsb)\.py.*", "wants", LISTS, APART),
    Rule(MAIN + r".*--config\.model\.weights=exported/", "runs", "", SHORT + APART, 3),
    Rule(
        MAIN + r"--config=configs/folder\.py(:method=\w+)? .*",
        "wants",
        "--config.model.weights=<folder>",
        APART,
    ),
    Rule(
        MAIN + r"--config=configs/quickstart\.py",
        "runs",
        "",
        f"{SHORT} --config.data.eval_crop.views=1",
        1,
    ),
    Rule(MAIN + r"--config=configs/folder\.py:method=numclip.*", "runs", "", SHORT, 1),
    Rule(MAIN + r"--config=configs/(folder|my_set|digits)\.py.*", "runs", "", SHORT + APART),
    Rule(r"python tools/verify_data\.py --config=configs/folder\.py.*", "runs"),
    Rule(r"python \S+\.md\.py", "runs"),
)
# What pieces of Python find: the pages name these as the reader's own.
OWN = """
import numpy as np
import jaxord
images = np.random.default_rng(0).integers(0, 255, (24, 40, 40, 3), np.uint8)
ages, others, their_ages = np.repeat([20.0, 30.0, 40.0], 8), images[:4], np.arange(4.0)
pil_image, array = "photos/a.jpg", images[0]
"""


def rule(command):
    """The rule of a command.

    Raises:
      ValueError: it has none.
    """
    for one in RULES:
        if re.fullmatch(one.pattern, command):
            return one
    raise ValueError("it has no rule in docs/rules.py")
