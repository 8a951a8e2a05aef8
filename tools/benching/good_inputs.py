"""Good inputs of every kind of file that users have, as bytes, for tools/fuzz.py to damage."""

import functools
import io
import pathlib
import tempfile
import zipfile

import numpy as np
from PIL import Image
from safetensors.numpy import save
from scipy.io import savemat
from transformers import CLIPConfig

from configs import texts
from jaxord.models.clip import ClipSettings, Tower
from jaxord.targets.ranks import Ranks
from jaxord.workdir import files, layout, run_config

FACTS = ("DONE.json", "ranks.json", "clip.json", "constants.npz")
TABLES = [
    b"path,age,split\na.jpg,3,train\n\xc3\xa4 b.jpg,4.5,test\n",
    b"a b.jpg\t1\nc.jpg\t2\n",
    b"x.png 1 2 2\ny.png 3 3 4\n",
    b'Content;MOS\n"a;b";3,25\n',
    b',path,label\n0,a,1\n1,"b,c",2\n',
]
VECTORS = [b"the 1 2 3\na 0.5 -1e-3 2\n"]


def images():
    """Images in all formats and modes."""
    draw, contents = np.random.default_rng(0), []
    colours = Image.fromarray(draw.integers(0, 256, (24, 17, 3), np.uint8))
    exif = colours.getexif()
    exif[0x0112] = 6
    palette = colours.convert("P")
    kinds = [
        (colours, "JPEG", {"exif": exif}),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours.convert("L"), "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (colours.convert("RGBA"), "WEBP", {}),
        (colours, "BMP", {}),
        (Image.fromarray(draw.integers(0, 65536, (9, 8), np.uint16)), "PNG", {}),
        (colours, "TIFF", {}),
        (colours, "PPM", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette] * 2}),
    ]
    for image, form, settings in kinds:
        image.save(file := io.BytesIO(), form, **settings)
        contents.append(file.getvalue())
    return contents


def weights():
    """A safetensors file, and a config.json of CLIP."""
    tensors = {"a": np.ones((3, 2), np.float32), "b": np.arange(4, dtype=np.float32)}
    return [save(tensors), CLIPConfig().to_json_string().encode()]


def videos():
    """A video of three frames."""
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
    """A list in MATLAB files, plain and compressed."""
    names, contents = np.empty((1, 2), object), []
    names[0] = [np.array([name]) for name in ("a.jpg", "b.jpg")]
    members = {"names": names, "mos": np.array([[1.0, 2.5]])}
    for compressed in (False, True):
        savemat(file := io.BytesIO(), members, do_compression=compressed)
        contents.append(file.getvalue())
    return contents


def archives():
    """A TorchScript archive, as `torch.jit.save` lays it out."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00"
    sizes = b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"cpuK\x02tQ" + sizes + b"tR"
    members = {
        "data.pkl": b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00w" + tensor + b"sb.",
        "code/m.py": b"",
        "data/0": np.ones(2, np.float32).tobytes(),
        "byteorder": b"little",
    }
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name, content in members.items():
            archive.writestr(f"m/{name}", content)
    return [file.getvalue()]


@functools.cache
def facts():
    """The files of FACTS of a run."""
    tower = Tower(width=8, layers=1, heads=2, mlp=8)
    sizes = {"image_size": 8, "patch_size": 8, "vocab_size": 16, "max_positions": 9}
    clip = ClipSettings(vision=tower, text=tower, **sizes, projection_dim=4, eos_token_id=15)
    ranks = Ranks(np.arange(3, dtype=np.float32), ("a", "b", "c"), np.zeros(0, np.float32))
    parameters, constants = {"kernel": np.ones(2, np.float32)}, {"weights": np.ones(3)}
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        layout.write_facts(place, parameters, ranks, constants, np.arange(4.0), clip)
        files.write_json(place / "DONE.json", {"step": 3, "steps": 3, "selected": "last"})
        return [(place / name).read_bytes() for name in FACTS]


def concepts():
    """Files of concepts, and answers of language models."""
    contents = [(texts.CONCEPTS / f"{name}.json").read_bytes() for name in ("age", "koniq")]
    contents += [b'["text"]: child: 0-4\nadult: 5 to 10\n']
    return [*contents, b'[{"text": "a", "low": 0, "high": 10}]']


def configs():
    """A run's config.json."""
    arguments = ("--config=configs/folder.py:method=ce_l1,backbone=tiny",)
    return [run_config.to_json(run_config.from_arguments(arguments)).encode()]
