"""Feeds damaged and hostile input to every reader of files.

    python tools/fuzz.py --runs=10000 [--seed=0] [--targets=images,tables]
    python tools/fuzz.py --runs=10000 --targets=tables --coverage

Anything but a result or a ValueError of one clear sentence is a fault. Targets: images
(jaxord.data.decode), videos (their decoding), tables (list and CSV files, their numbers and
columns), matlab (lists in MATLAB files, few: each is read in a process of its own), vectors
(GloVe's text files), concepts (files of concepts, and a language model's answers), weights (headers
and tensors of safetensors files, CLIP's config.json), archives (OpenAI's TorchScript), configs
(config.json of a run, and overrides of its command), facts (the JSON and .npz files beside a run's
parameters). An input is a good one after a few random edits: bits, bytes, pieces cut, doubled or
moved, numbers made huge. Each has SECONDS of time and the process MEMORY bytes more than at its
start; the input of a fault is kept in --keep and its traceback printed.

--coverage lets atheris choose the edits (pip install -e ".[fuzz]").
"""

import collections
import functools
import json
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import types

import numpy as np

from jaxord import shipped
from jaxord.data import decode, matlab, tables, video
from jaxord.data.readers import sentences
from jaxord.weights import glove, hf_clip, reading
from jaxord.workdir import layout, run_config

shipped.make_importable()
from configs import texts
from tools import make_concepts
from tools.benching import good_inputs, options
from tools.sources import torchscript

SECONDS, MEMORY = 10, 3 << 30
# name -> its weight in the number of inputs
TARGETS = dict.fromkeys(("images", "videos", "tables", "matlab", "vectors", "concepts"), 20)
TARGETS |= dict.fromkeys(("weights", "archives", "configs", "facts"), 20) | {"matlab": 1}
PIECES = (
    *(b"\x00", b"\xff" * 4, b"-1", b"1e999", b"nan", b"99999999999999999999", b"\xef\xbb\xbf"),
    *(b'"', b"\n", b"\t", b"{", b"[" * 2000, b"../../etc/passwd", b"\xf0\x9f\x8d\x85"),
    b"\x7f\xff\xff\xff",
)
INSTRUMENTED = (decode, tables, sentences, texts, make_concepts, hf_clip, reading)
INSTRUMENTED += (torchscript, run_config, layout)
SETTINGS = {
    "runs": (10_000, "inputs of all targets"),
    "seed": (0, "of the edits"),
    "targets": (",".join(TARGETS), "by commas"),
    "coverage": (False, "guided by atheris; one target"),
    "keep": ("faults", "folder of inputs that are faults"),
}


def written(folder, name, data):
    """Writes an input into a file and returns its path."""
    (folder / name).write_bytes(data)
    return folder / name


def read_table(data, folder):
    required = ("path", "label") if len(data) % 3 == 0 else ()
    table = tables.read_table(written(folder, "list.csv", data), required)
    table.columns()
    for name in table.names[:4]:
        try:
            table.numbers(name)
            table.annotations(name)
        except ValueError:
            continue


def read_video(data, folder):
    form = {"frames": 2, "clips": 1, "clip_frames": 4, "clip_size": 32}
    file = written(folder, "a.mp4", data)
    video.decode_video(file, **form, resize="square", stored_size=16)


def read_concepts(data, folder):
    try:
        texts.check_concepts(make_concepts.parse(data.decode("utf-8", "replace")), 0, 10, 1)
    except ValueError:
        pass
    texts.concept_ranks(str(written(folder, "made.json", data)))


def read_archive(data, folder):
    file = written(folder, "model.pt", data)
    if torchscript.is_archive(file):
        torchscript.read(file)


def read_facts(data, folder):
    """Damages each file of a run's facts; raises ValueError if all of them are refused."""
    errors = []
    for changed in good_inputs.FACTS:
        for name, good in zip(good_inputs.FACTS, good_inputs.facts(), strict=True):
            written(folder, name, data if name == changed else good)
        try:
            layout.read_done(folder)
            layout.read_settings(folder)
            layout.read_facts(folder)
        except ValueError as error:
            errors.append(error)
    if len(errors) == len(good_inputs.FACTS):
        raise errors[0]


def read_weights(data, folder):
    file = written(folder, "model.safetensors", data)
    written(folder, "config.json", data)
    expected = {"a": np.zeros((3, 2), np.float32), "b": np.zeros(4, np.float32)}
    try:
        reading.read(file, expected, str, lambda path, array: array, lambda name: True, "")
    except ValueError:
        pass
    hf_clip.read_settings(str(folder))


def read_config(data, folder):
    """Reads a run's config.json, and its words as overrides of the command."""
    written(folder, "config.json", data)
    text = data.decode("utf-8", "replace")
    words = [word for word in text.replace('"', " ").split() if word.isprintable()][:3]
    pairs = zip(words, words[1:], strict=False)
    overrides = [f"--config.{word.strip(':,')}={other}" for word, other in pairs]
    try:
        run_config.from_arguments(("--config=configs/folder.py:method=ce", *overrides))
    except ValueError:
        pass
    run_config.to_json(layout.read_config(folder))


def targets():
    """{name: (good inputs, function of bytes and a folder)}."""

    def read_image(data, folder):
        decode.decode_image(data, resize="square" if len(data) % 2 else "shorter", stored_size=16)

    def read_matlab(data, folder):
        matlab.read(written(folder, "list.mat", data), ("names", "mos"))

    def read_vectors(data, folder):
        words = ("<padding>", "<unknown>", "the", "a")
        glove.vectors(written(folder, "glove.txt", data), words, 0)

    return {
        "images": (good_inputs.images(), read_image),
        "videos": (good_inputs.videos(), read_video),
        "tables": (good_inputs.TABLES, read_table),
        "matlab": (good_inputs.matlabs(), read_matlab),
        "vectors": (good_inputs.VECTORS, read_vectors),
        "concepts": (good_inputs.concepts(), read_concepts),
        "weights": (good_inputs.weights(), read_weights),
        "archives": (good_inputs.archives(), read_archive),
        "configs": (good_inputs.configs(), read_config),
        "facts": (good_inputs.facts(), read_facts),
    }


def edited(data, draw):
    """A few random edits."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at, length = draw.randrange(len(data) + 1), draw.choice((1, 2, 8, 64, 1000))
        kind = draw.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + length] = draw.randbytes(min(length, 64))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
        elif kind == 4:
            data[at:at] = draw.choice(PIECES)
        else:
            del data[at:]
    return bytes(data)


class Late(BaseException):
    """An input takes more than SECONDS."""

    @classmethod
    def happens(cls, number, frame):
        raise cls


def verdict(function, data, folder):
    """("read", "refused" or "FAULT", the traceback of a fault) of one input."""
    signal.alarm(SECONDS)
    try:
        function(data, folder)
        return "read", ""
    except ValueError as error:
        fault = "FAULT", "a ValueError without a word"
        return ("refused", "") if str(error).strip() else fault
    except (Exception, Late):
        return "FAULT", traceback.format_exc()
    finally:
        signal.alarm(0)


def fuzz(name, good, function, runs, seed, keep):
    """Counter of verdicts of one target; prints each kind of fault once and keeps its input."""
    draw, counts, seen = random.Random(f"{name} {seed}"), collections.Counter(), set()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for data in good:
            assert verdict(function, data, folder)[0] in ("read", "refused"), name
        for run in range(runs):
            data = edited(draw.choice(good), draw)
            result, words = verdict(function, data, folder)
            counts[result] += 1
            if not words or (last := words.strip().splitlines()[-1][:80]) in seen:
                continue
            seen.add(last)
            keep.mkdir(parents=True, exist_ok=True)
            kept = written(keep, f"{name}-{seed}-{run}", data)
            print(f"{name}, input {run}, kept in {kept}:\n{words}", file=sys.stderr)
    return counts


def guided(good, function, runs, seed):
    """The same by atheris, which follows the coverage; ends the process at the first fault."""
    try:
        import atheris
    except ImportError:
        install = shipped.install_hint("fuzz")
        return f"error: --coverage needs atheris, which is not installed: {install}"
    folder, corpus = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    for number, data in enumerate(good):
        written(corpus, str(number), data)
    for module in INSTRUMENTED:
        for name, member in list(vars(module).items()):
            if isinstance(member, types.FunctionType) and member.__module__ == module.__name__:
                setattr(module, name, atheris.instrument_func(member))

    def one(data):
        result, words = verdict(function, data, folder)
        if result == "FAULT":
            raise RuntimeError(words)

    limits = [f"-runs={runs}", f"-seed={seed + 1}", f"-timeout={SECONDS}", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def main(arguments=None):
    flags = options.parser(__doc__, SETTINGS).parse_args(arguments)
    known, names = targets(), flags.targets.split(",")
    if unknown := sorted(set(names) - set(known)):
        return f"error: no target {unknown}; known are {', '.join(known)}"
    signal.signal(signal.SIGALRM, Late.happens)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    if flags.coverage:
        return guided(*known[names[0]], flags.runs, flags.seed)
    usage = functools.partial(resource.getrusage, resource.RUSAGE_SELF)
    before, began, faults, inputs = usage().ru_maxrss, time.monotonic(), 0, 0
    for name in names:
        share = flags.runs * TARGETS[name] // sum(TARGETS[name] for name in names)
        counts = fuzz(name, *known[name], share, flags.seed, pathlib.Path(flags.keep))
        inputs += share
        faults += counts["FAULT"]
        print(json.dumps({"target": name, **counts}), flush=True)
    more = f"{(usage().ru_maxrss - before) / 2**10:.0f} MiB more at the peak"
    print(f"{inputs} inputs in {time.monotonic() - began:.0f} s, {more}, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
