"""Feeds damaged and hostile input to what reads it: anything but a result or a ValueError of one clear sentence is a fault.

    python tools/fuzz.py --runs=10000 [--seed=0] [--targets=images,tables]
    python tools/fuzz.py --runs=10000 --targets=tables --coverage        # guided by coverage (pip install atheris)

Targets: images (jaxord.data.decode), tables (list and CSV files, their numbers and columns), weights (headers and tensors of
safetensors files, CLIP's config.json), configs (config.json of a run, and what its command would override). An input is a
good one, changed by a few random edits: bits, bytes, pieces cut, doubled or moved, numbers made huge. Each has SECONDS of time
and the process MEMORY bytes more than at its start; the input of a fault is kept in --keep and its traceback printed.
"""

import argparse
import collections
import io
import json
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # configs/ and tools/ lie in the repository

from configs import folder as folder_config  # noqa: E402
from jaxord import settings, workdir  # noqa: E402
from jaxord.data import decode, tables  # noqa: E402
from jaxord.weights import hf_clip, torchvision  # noqa: E402
from tools import plan  # noqa: E402

SECONDS, MEMORY = 10, 3 << 30
PIECES = (b"\x00", b"\xff" * 4, b"-1", b"1e999", b"nan", b"99999999999999999999", b"\xef\xbb\xbf", b'"', b"\n", b"\t", b"{",
          b"[" * 2000, b"../../etc/passwd", b"\xf0\x9f\x8d\x85", b"\x7f\xff\xff\xff")  # fmt: skip


def images():
    """Good images of every kind that users have, as files."""
    draw, found = np.random.default_rng(0), []
    colours = Image.fromarray(draw.integers(0, 256, (24, 17, 3), np.uint8))
    exif = colours.getexif()
    exif[0x0112] = 6
    kinds = [(colours, "JPEG", {"exif": exif}), (colours.convert("CMYK"), "JPEG", {}), (colours.convert("L"), "PNG", {}),
             (colours.convert("P"), "PNG", {"transparency": 3}), (colours.convert("RGBA"), "WEBP", {}), (colours, "BMP", {}),
             (Image.fromarray(draw.integers(0, 65536, (9, 8), np.uint16)), "PNG", {}), (colours, "TIFF", {}),
             (colours, "PPM", {}),
             (colours.convert("P"), "GIF", {"save_all": True, "append_images": [colours.convert("P")] * 2})]  # fmt: skip
    for image, format, options in kinds:
        image.save(file := io.BytesIO(), format, **options)
        found.append(file.getvalue())
    return found


def weights():
    """A good safetensors file, and a good config.json of CLIP."""
    from safetensors.numpy import save
    from transformers import CLIPConfig

    tensors = {"a": np.ones((3, 2), np.float32), "b": np.arange(4, dtype=np.float32)}
    return [save(tensors), CLIPConfig().to_json_string().encode()]


def of_image(data):
    decode.decode(data, resize="square" if len(data) % 2 else "shorter", stored_size=16)


def of_table(data, folder):
    (folder / "list.csv").write_bytes(data)
    found = tables.read_table(folder / "list.csv", ("path", "label") if len(data) % 3 == 0 else ())
    found.columns()
    for name in found.names[:4]:
        try:
            found.numbers(name), found.annotations(name)
        except ValueError:
            continue


def of_weights(data, folder):
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_bytes(data)
    first, second = np.zeros((3, 2), np.float32), np.zeros(4, np.float32)
    wanted = {"a": first, "b": second}
    try:
        torchvision.read(folder / "model.safetensors", wanted, str, lambda path, array: array, lambda name: True, "")
    except ValueError:
        pass
    hf_clip.settings(str(folder))


def of_config(data, folder):
    (folder / "config.json").write_bytes(data)
    text = data.decode("utf-8", "replace")
    words = [word for word in text.replace('"', " ").split() if word.isprintable()][:3]
    overrides = tuple(f"--config.{word.strip(':,')}={other}" for word, other in zip(words, words[1:], strict=False))
    try:
        plan.config_of(plan.Run("run", "folder", "ce", 0, ("--config=configs/folder.py:method=ce", *overrides)))
    except ValueError:
        pass
    settings.to_json(workdir.read_config(folder))


def targets():
    """{name: (good inputs, function of bytes and a folder)}."""
    config = folder_config.get_config("method=ce_l1,backbone=tiny")
    lists = [b"path,age,split\na.jpg,3,train\n\xc3\xa4 b.jpg,4.5,test\n", b"a b.jpg\t1\nc.jpg\t2\n",
             b"x.png 1 2 2\ny.png 3 3 4\n", b'Content;MOS\n"a;b";3,25\n', b",path,label\n0,a,1\n1,\"b,c\",2\n"]  # fmt: skip
    return {
        "images": (images(), lambda data, folder: of_image(data)), "tables": (lists, of_table),
        "weights": (weights(), of_weights), "configs": ([settings.to_json(config).encode()], of_config),
    }  # fmt: skip


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
    """An input has taken SECONDS."""


def late(number, frame):
    raise Late


def verdict(function, data, folder):
    """("read", "refused" or "FAULT", what it was): one input."""
    signal.alarm(SECONDS)
    try:
        function(data, folder)
        return "read", ""
    except ValueError as error:
        text = str(error)
        return ("refused", "") if text.strip() else ("FAULT", "a ValueError without a word")
    except (Exception, Late):
        return "FAULT", traceback.format_exc()
    finally:
        signal.alarm(0)


def peak():
    """Bytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(name, good, function, runs, seed, keep):
    """Counter of verdicts of one target; prints the faults."""
    draw, counts, seen = random.Random(f"{name} {seed}"), collections.Counter(), set()
    with tempfile.TemporaryDirectory() as folder:
        for data in good:  # as they are, they are read
            assert verdict(function, data, pathlib.Path(folder))[0] in ("read", "refused"), name
        for run in range(runs):
            data = edited(draw.choice(good), draw)
            found, words = verdict(function, data, pathlib.Path(folder))
            counts[found] += 1
            if words and (last := words.strip().splitlines()[-1][:80]) not in seen:
                seen.add(last)
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{seed}-{run}").write_bytes(data)
                print(f"{name}, input {run}, kept in {keep / f'{name}-{seed}-{run}'}:\n{words}", file=sys.stderr)
    return counts


def guided(name, good, function, runs, seed):
    """The same by atheris, which follows the coverage; it ends the process at the first fault."""
    import atheris

    folder, corpus = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    for k, data in enumerate(good):
        (corpus / str(k)).write_bytes(data)
    for module in (decode, tables, hf_clip, torchvision, settings, workdir):
        for member, value in list(vars(module).items()):
            if getattr(value, "__module__", "") == module.__name__ and callable(value) and not isinstance(value, type):
                setattr(module, member, atheris.instrument_func(value))

    def one(data):
        found, words = verdict(function, data, folder)
        if found == "FAULT":
            raise RuntimeError(words)

    arguments = [sys.argv[0], f"-runs={runs}", f"-seed={seed + 1}", f"-timeout={SECONDS}", "-max_len=20000", str(corpus)]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="inputs, shared by the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="images,tables,weights,configs")
    parser.add_argument("--coverage", action="store_true", help="guided by atheris; one target")
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path("faults"), help="folder of inputs that are faults")
    given = parser.parse_args(arguments)
    known, names = targets(), given.targets.split(",")
    if unknown := sorted(set(names) - set(known)):
        return f"error: no target {unknown}; there are {', '.join(known)}"
    signal.signal(signal.SIGALRM, late)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    if given.coverage:
        return guided(names[0], *known[names[0]], given.runs, given.seed)
    before, began, faults = peak(), time.monotonic(), 0
    for name in names:
        counts = fuzz(name, *known[name], given.runs // len(names), given.seed, given.keep)
        faults += counts["FAULT"]
        print(json.dumps({"target": name, **counts}), flush=True)
    more = f"{(peak() - before) / 2**20:.0f} MiB more at the peak"
    print(f"{given.runs} inputs in {time.monotonic() - began:.0f} s, {more}, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
