"""Feeds damaged and hostile input to what reads it: anything but a result or a ValueError of one
clear sentence is a fault.

    python tools/fuzz.py --runs=10000 [--seed=0] [--targets=images,tables]
    python tools/fuzz.py --runs=10000 --targets=tables --coverage        # guided by coverage (pip install -e ".[fuzz]")

Targets: images (jaxord.data.decode), videos (their decoding), tables (list and CSV files, their
  numbers and columns), matlab
(lists in MATLAB files, few: each is read in a process of its own), vectors (GloVe's text files),
concepts (files of concepts, and a language model's answers), weights (headers and tensors of
safetensors files, CLIP's config.json), archives (OpenAI's TorchScript), configs (config.json of a
run, and what its command would override), facts (what a run keeps beside its parameters, in JSON
and .npz files). An input is a good one, changed by a few random edits: bits, bytes, pieces cut,
doubled or moved, numbers made huge. Each has SECONDS of time and the process MEMORY bytes more than
at its start; the input of a fault is kept in --keep and its traceback printed.
"""

import argparse
import collections
import functools
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
import types
import zipfile

import numpy as np
from PIL import Image

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[1])
)  # configs/ and tools/ lie in the repository

from configs import folder as folder_config
from configs import texts
from jaxord.data import decode, matlab, tables, video
from jaxord.data.readers import sentences
from jaxord.models.clip import ClipSettings, Tower
from jaxord.targets.ranks import Ranks
from jaxord.weights import glove, hf_clip, reading
from jaxord.workdir import files, layout, run_config
from tools import make_concepts
from tools.sources import torchscript
from tools.sweeping import plan

SECONDS, MEMORY = 10, 3 << 30
TARGETS = {  # name -> its weight in the number of inputs
    "images": 20,
    "videos": 20,
    "tables": 20,
    "matlab": 1,
    "vectors": 20,
    "concepts": 20,
    "weights": 20,
    "archives": 20,
    "configs": 20,
    "facts": 20,
}
PIECES = (
    b"\x00",
    b"\xff" * 4,
    b"-1",
    b"1e999",
    b"nan",
    b"99999999999999999999",
    b"\xef\xbb\xbf",
    b'"',
    b"\n",
    b"\t",
    b"{",
    b"[" * 2000,
    b"../../etc/passwd",
    b"\xf0\x9f\x8d\x85",
    b"\x7f\xff\xff\xff",
)


def images():
    """Good images of every kind that users have, as files."""
    draw, found = np.random.default_rng(0), []
    colours = Image.fromarray(draw.integers(0, 256, (24, 17, 3), np.uint8))
    exif = colours.getexif()
    exif[0x0112] = 6
    kinds = [
        (colours, "JPEG", {"exif": exif}),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours.convert("L"), "PNG", {}),
        (colours.convert("P"), "PNG", {"transparency": 3}),
        (colours.convert("RGBA"), "WEBP", {}),
        (colours, "BMP", {}),
        (Image.fromarray(draw.integers(0, 65536, (9, 8), np.uint16)), "PNG", {}),
        (colours, "TIFF", {}),
        (colours, "PPM", {}),
        (
            colours.convert("P"),
            "GIF",
            {"save_all": True, "append_images": [colours.convert("P")] * 2},
        ),
    ]
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


def videos():
    """A good video of three frames."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=3)
        stream.width = stream.height = 32
        for level in (0, 100, 200):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return [file.getvalue()]


def matlabs():
    """A good list in MATLAB files, one of them compressed."""
    from scipy.io import savemat

    names, found = np.empty((1, 2), object), []
    names[0] = [np.array([name]) for name in ("a.jpg", "b.jpg")]
    for compressed in (False, True):
        savemat(
            file := io.BytesIO(),
            {"names": names, "mos": np.array([[1.0, 2.5]])},
            do_compression=compressed,
        )
        found.append(file.getvalue())
    return found


def archives():
    """A good TorchScript archive, as `torch.jit.save` lays it out."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    sizes = b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + sizes + b"tR"
    program = b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00w" + tensor + b"sb."
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name, content in (
            ("data.pkl", program),
            ("code/m.py", b""),
            ("data/0", np.ones(2, np.float32).tobytes()),
            ("byteorder", b"little"),
        ):
            archive.writestr(f"m/{name}", content)
    return [file.getvalue()]


FACTS = ("DONE.json", "ranks.json", "clip.json", "constants.npz")


@functools.cache
def facts():
    """The good files of FACTS."""
    tower = Tower(width=8, layers=1, heads=2, mlp=8)
    clip = ClipSettings(
        vision=tower,
        text=tower,
        image_size=8,
        patch_size=8,
        vocab_size=16,
        max_positions=9,
        projection_dim=4,
        eos_token_id=15,
    )
    ranks = Ranks(np.arange(3, dtype=np.float32), ("a", "b", "c"), np.zeros(0, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        layout.write_facts(
            place,
            {"kernel": np.ones(2, np.float32)},
            ranks,
            {"weights": np.ones(3)},
            np.arange(4.0),
            clip,
        )
        files.write_json(place / "DONE.json", {"step": 3, "steps": 3, "selected": "last"})
        return [(place / name).read_bytes() for name in FACTS]


def of_image(data):
    decode.decode_image(data, resize="square" if len(data) % 2 else "shorter", stored_size=16)


def of_table(data, folder):
    (folder / "list.csv").write_bytes(data)
    found = tables.read_table(folder / "list.csv", ("path", "label") if len(data) % 3 == 0 else ())
    found.columns()
    for name in found.names[:4]:
        try:
            found.numbers(name), found.annotations(name)
        except ValueError:
            continue


def of_video(data, folder):
    (folder / "a.mp4").write_bytes(data)
    form = {
        "frames": 2,
        "clips": 1,
        "clip_frames": 4,
        "clip_size": 32,
        "resize": "square",
        "stored_size": 16,
    }
    video.decode_video(folder / "a.mp4", **form)


def of_matlab(data, folder):
    (folder / "list.mat").write_bytes(data)
    matlab.read(folder / "list.mat", ("names", "mos"))


def of_vectors(data, folder):
    (folder / "glove.txt").write_bytes(data)
    glove.vectors(folder / "glove.txt", ("<padding>", "<unknown>", "the", "a"), 0)


def of_concepts(data, folder):
    try:
        texts.check_concepts(make_concepts.parse(data.decode("utf-8", "replace")), 0, 10, 1)
    except ValueError:
        pass
    (folder / "made.json").write_bytes(data)
    texts.concept_ranks(str(folder / "made.json"))


def of_archive(data, folder):
    (folder / "model.pt").write_bytes(data)
    if torchscript.is_archive(folder / "model.pt"):
        torchscript.read(folder / "model.pt")


def of_facts(data, folder):
    refused = []
    for changed in FACTS:
        for name, good in zip(FACTS, facts(), strict=True):
            (folder / name).write_bytes(data if name == changed else good)
        try:
            layout.read_done(folder), layout.read_settings(folder), layout.read_facts(folder)
        except ValueError as error:
            refused.append(error)
    if len(refused) == len(FACTS):
        raise refused[0]


def of_weights(data, folder):
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_bytes(data)
    first, second = np.zeros((3, 2), np.float32), np.zeros(4, np.float32)
    wanted = {"a": first, "b": second}
    try:
        reading.read(
            folder / "model.safetensors",
            wanted,
            str,
            lambda path, array: array,
            lambda name: True,
            "",
        )
    except ValueError:
        pass
    hf_clip.read_settings(str(folder))


def of_config(data, folder):
    (folder / "config.json").write_bytes(data)
    text = data.decode("utf-8", "replace")
    words = [word for word in text.replace('"', " ").split() if word.isprintable()][:3]
    overrides = tuple(
        f"--config.{word.strip(':,')}={other}"
        for word, other in zip(words, words[1:], strict=False)
    )
    try:
        plan.config_of(
            plan.Run("run", "folder", "ce", 0, ("--config=configs/folder.py:method=ce", *overrides))
        )
    except ValueError:
        pass
    run_config.to_json(layout.read_config(folder))


def targets():
    """{name: (good inputs, function of bytes and a folder)}."""
    config = folder_config.get_config("method=ce_l1,backbone=tiny")
    lists = [
        b"path,age,split\na.jpg,3,train\n\xc3\xa4 b.jpg,4.5,test\n",
        b"a b.jpg\t1\nc.jpg\t2\n",
        b"x.png 1 2 2\ny.png 3 3 4\n",
        b'Content;MOS\n"a;b";3,25\n',
        b',path,label\n0,a,1\n1,"b,c",2\n',
    ]
    concepts = [(texts.CONCEPTS / f"{name}.json").read_bytes() for name in ("age", "koniq")]
    concepts += [
        b'["text"]: child: 0-4\nadult: 5 to 10\n',
        b'[{"text": "a", "low": 0, "high": 10}]',
    ]
    return {
        "images": (images(), lambda data, folder: of_image(data)),
        "videos": (videos(), of_video),
        "tables": (lists, of_table),
        "matlab": (matlabs(), of_matlab),
        "vectors": ([b"the 1 2 3\na 0.5 -1e-3 2\n"], of_vectors),
        "concepts": (concepts, of_concepts),
        "weights": (weights(), of_weights),
        "archives": (archives(), of_archive),
        "configs": ([run_config.to_json(config).encode()], of_config),
        "facts": (facts(), of_facts),
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
                print(
                    f"{name}, input {run}, kept in {keep / f'{name}-{seed}-{run}'}:\n{words}",
                    file=sys.stderr,
                )
    return counts


def guided(name, good, function, runs, seed):
    """The same by atheris, which follows the coverage; it ends the process at the first fault."""
    try:
        import atheris
    except ImportError:
        return 'error: --coverage needs atheris, which is not installed: pip install -e ".[fuzz]"'
    folder, corpus = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    for k, data in enumerate(good):
        (corpus / str(k)).write_bytes(data)
    for module in (
        decode,
        tables,
        sentences,
        texts,
        make_concepts,
        hf_clip,
        reading,
        torchscript,
        run_config,
        layout,
    ):
        for member, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                setattr(module, member, atheris.instrument_func(value))

    def one(data):
        found, words = verdict(function, data, folder)
        if found == "FAULT":
            raise RuntimeError(words)

    arguments = [
        sys.argv[0],
        f"-runs={runs}",
        f"-seed={seed + 1}",
        f"-timeout={SECONDS}",
        "-max_len=20000",
        str(corpus),
    ]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=10_000, help="inputs of all targets (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--coverage", action="store_true", help="guided by atheris; one target")
    parser.add_argument(
        "--keep",
        type=pathlib.Path,
        default=pathlib.Path("faults"),
        help="folder of inputs that are faults",
    )
    given = parser.parse_args(arguments)
    known, names = targets(), given.targets.split(",")
    if unknown := sorted(set(names) - set(known)):
        return f"error: no target {unknown}; there are {', '.join(known)}"
    signal.signal(signal.SIGALRM, late)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    if given.coverage:
        return guided(names[0], *known[names[0]], given.runs, given.seed)
    before, began, faults, inputs = peak(), time.monotonic(), 0, 0
    for name in names:
        share = given.runs * TARGETS[name] // sum(TARGETS[name] for name in names)
        counts, inputs = fuzz(name, *known[name], share, given.seed, given.keep), inputs + share
        faults += counts["FAULT"]
        print(json.dumps({"target": name, **counts}), flush=True)
    more = f"{(peak() - before) / 2**20:.0f} MiB more at the peak"
    print(f"{inputs} inputs in {time.monotonic() - began:.0f} s, {more}, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
