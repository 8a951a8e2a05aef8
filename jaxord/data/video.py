"""What is extracted from each video once: frames for the image tower, and motion by SlowFast's Fast
pathway.

N videos, V frames, M clips of F frames, C side of the stored canvas, S side of a clip.
"""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import io
import json
import pathlib
import re
import shutil
import time

import numpy as np
from absl import logging
from PIL import Image

from jaxord import trees
from jaxord.data import decode as decoding
from jaxord.weights import torchvision

FORMAT = 1  # raised when the extraction changes, so that nothing old is read
POOLED = 4  # steps of time that are kept of a clip's motion
MEAN, STD = 0.45, 0.225  # of the pixels in 0..1 that the Fast pathway was trained on
WEIGHTS = """\
the motion of videos needs the weights of SlowFast R50 8x8 (Kinetics-400), and config.data.reader.extract.motion_weights is ''
get them once, where there is a network, from pytorchvideo's model zoo, and convert them by torch:
  wget https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth
  python -c "import torch, safetensors.torch as s; m = torch.load('SLOWFAST_8x8_R50.pyth', map_location='cpu',\
 weights_only=True)['model_state']; s.save_file({k: v.contiguous() for k, v in m.items()}, 'slowfast.safetensors')"
  --config.data.reader.extract.motion_weights=slowfast.safetensors
'random' takes random weights, for trying things out; clips=0 does without motion"""


class Rows:
    """Some rows of an array in a file, read when they are indexed: a split of 40 GB is taken
    without being copied."""

    def __init__(self, array, rows):
        self.array, self.rows = array, np.asarray(rows)
        self.shape, self.dtype, self.ndim = (
            (len(self.rows), *array.shape[1:]),
            array.dtype,
            array.ndim,
        )

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.array[self.rows[index]]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)


def extract(
    records,
    root,
    *,
    frames=8,
    clips=8,
    clip_frames=32,
    clip_size=224,
    resize="square",
    stored_size=256,
    motion_weights="",
    cache="",
    broken="raise",
    broken_share=0.05,
    workers=4,
):
    """Frames and motion of all videos, from the folder of an earlier extraction where there is one.

    A video is cut into V (or M) equal parts: a frame is the middle one of its part, a clip begins
    where its part begins and is padded by the video's last frame. Of a video of 8 seconds these are
    the middle of each second and a clip a second. What was done before a crash is not done again.

    Args:
        records: of the videos.
        root: folder that the paths are relative to.
        frames: V.
        clips: M; 0 extracts no motion and needs no weights.
        clip_frames: F, consecutive ones; a multiple of 4.
        clip_size: S, both sides; a multiple of 32.
        resize: stored form of the frames, "square" or "shorter", as that of images.
        stored_size: of the frames, pixels.
        motion_weights: safetensors file with pytorchvideo's names, or "random".
        cache: folder for the arrays; "" is <root>/extracted.
        broken: "raise" names the videos that cannot be decoded, "skip" leaves them out.
        broken_share: of "skip": the largest share of them.
        workers: decoding threads.

    Returns:
        (arrays in files, rows that they hold): frames u8[N, V, C, C, 3], size i32[N, 2], the true
        height and width in the canvas, and motion f16[N, M, 4, S / 32, S / 32, 256].

    Raises:
        ValueError: no weights; weights that do not fit; not enough room; a broken video (all are
          tried, five shown).
    """
    if (
        frames < 1
        or clips < 0
        or clip_frames % POOLED
        or clip_size % 32
        or broken not in ("raise", "skip")
    ):
        raise ValueError(
            f"config.data.reader.extract has frames {frames}, clips {clips}, clip_frames {clip_frames}, clip_size {clip_size},"
            f" broken {broken!r}; expected at least 1, at least 0, a multiple of {POOLED}, one of 32, 'raise' or 'skip'"
        )
    if clips and not motion_weights:
        raise ValueError(WEIGHTS)
    n = len(records)
    still = {"frames": frames, "resize": resize, "stored_size": stored_size}
    moving = {"clips": clips, "clip_frames": clip_frames, "clip_size": clip_size}
    shapes = {
        kind: {name: ((n, *shape), dtype) for name, (shape, dtype) in arrays.items()}
        for kind, arrays in row_shapes(**still, **moving).items()
    }
    keys = {"frames": still}
    if clips:
        keys["motion"] = {**moving, "weights": _digest(motion_weights)}
        if motion_weights == "random":
            logging.warning(
                "%s: motion by random weights, for trying things out only", records.name
            )
    folders = {}
    for kind, key in keys.items():
        text = json.dumps([FORMAT, kind, key, records.stamp, records.paths])
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        folders[kind] = pathlib.Path(cache or pathlib.Path(root, "extracted"), name)
    faults = {}
    if not all(folder.exists() for folder in folders.values()):
        faults = _fill(
            records, root, folders, shapes, {**still, **moving}, motion_weights, broken, workers
        )
    for folder in folders.values():
        if folder.exists():
            faults |= {
                int(row): reason
                for row, reason in json.loads((folder / "broken.json").read_text()).items()
            }
    if faults:
        message = _broken_message(records, faults)
        if broken == "raise" or len(faults) > broken_share * n or len(faults) == n:
            raise ValueError(message)
        logging.warning("%s", message)
    kept = np.array([row for row in range(n) if row not in faults])
    names = [(folder, name) for kind, folder in folders.items() for name in shapes[kind]]
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for folder, name in names}, kept


def row_shapes(*, frames, clips, clip_frames, clip_size, resize, stored_size):
    """{kind: {name: (shape, dtype)}} of what one video becomes; the kinds are kept apart. Settings
    as of `extract`."""
    side, cells = decoding.canvas(resize, stored_size), clip_size // 32
    shapes = {"frames": {"frames": ((frames, side, side, 3), np.uint8), "size": ((2,), np.int32)}}
    if clips:
        shapes["motion"] = {"motion": ((clips, POOLED, cells, cells, 256), np.float16)}
    return shapes


def _fill(records, root, folders, shapes, form, weights, broken, workers):
    """Extracts what is not there yet, video by video; a folder appears when all is done. Returns
    {row: reason}."""
    import fcntl  # no such module on Windows

    parts = {kind: folder.with_name(f".{folder.name}") for kind, folder in folders.items()}
    with contextlib.ExitStack() as stack:
        for part in sorted(
            parts.values()
        ):  # always in this order, so that two processes cannot wait for each other
            part.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(f"{part}.lock", "w")), fcntl.LOCK_EX)
        parts = {kind: part for kind, part in parts.items() if not folders[kind].exists()}
        if not parts:
            return {}
        files = {
            name: (part / f"{name}.npy", *shape)
            for kind, part in parts.items()
            for name, shape in shapes[kind].items()
        }
        arrays = {name: _array(*file) for name, file in files.items()}
        done = {
            kind: _array(part / "done.npy", (len(records),), np.bool_)
            for kind, part in parts.items()
        }
        rows = np.flatnonzero(~np.all(list(done.values()), axis=0))
        _announce(records, arrays, rows, folders)
        network = fast_motion(weights) if "motion" in parts else None
        form = {
            **form,
            "frames": form["frames"] * ("frames" in parts),
            "clips": form["clips"] * ("motion" in parts),
        }
        faults, start = {}, time.monotonic()

        def decode(row):
            return decode_video(pathlib.Path(root, records.paths[row]), **form)

        for count, (row, decoded) in enumerate(_ahead(decode, rows, workers), 1):
            try:
                images, size, clips = decoded.result()
            except (ValueError, OSError) as error:
                faults[int(row)] = str(error)
                continue
            if "frames" in parts:
                arrays["frames"][row], arrays["size"][row] = images, size
            if network:
                arrays["motion"][row] = network(clips)
            for array in arrays.values():
                array.flush()
            for flags in done.values():
                flags[row] = True  # only now: a row that a crash cut short is extracted again
            if count % 100 == 0:
                rate = count / (time.monotonic() - start)
                logging.info(
                    "%s: %d of %d videos, %.2f a second", records.name, count, len(rows), rate
                )
        if not faults or broken == "skip":
            for kind, part in parts.items():
                (part / "broken.json").write_text(json.dumps(faults))
                part.rename(folders[kind])
    return faults


def _announce(records, arrays, rows, folders):
    """Says what the disk will hold; ValueError where it has no room."""
    folder = next(iter(folders.values())).parent
    words = ", ".join(f"{name} {array.nbytes / 1e9:.3g} GB" for name, array in arrays.items())
    logging.info(
        "%s: %d of %d videos to extract; %s in %s",
        records.name,
        len(rows),
        len(records),
        words,
        folder,
    )
    needed = sum(array.nbytes for array in arrays.values()) * len(rows) // len(records)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{records.name}: the extracted arrays take {needed:,} bytes more, but the disk of {folder} has {free:,}; "
            "set config.data.reader.extract.cache to a folder with room, or a smaller stored_size"
        )


def _array(file, shape, dtype):
    """A memmap that goes on where an earlier process stopped."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        new = file.with_suffix(".new")
        np.lib.format.open_memmap(new, "w+", dtype, shape).flush()
        new.rename(file)
    return np.lib.format.open_memmap(file, "r+")


def _ahead(function, rows, workers):
    """Yields (row, future of function(row)) in order; threads work at most `workers` rows ahead."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        try:
            for row in rows:
                waiting.append((row, pool.submit(function, row)))
                if len(waiting) > workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        except BaseException:  # Ctrl-C: do not wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _broken_message(records, faults):
    lines = [
        f"row {row}, {records.paths[row]}: {reason}" for row, reason in sorted(faults.items())[:5]
    ]
    more = [f"and {len(faults) - 5} more"] if len(faults) > 5 else []
    title = (
        f"{records.name}: {len(faults)} of {len(records)} videos cannot be decoded "
        "(config.data.broken: 'raise' stops, 'skip' leaves them out, up to config.data.broken_share of all)"
    )
    return "\n  ".join([title, *lines, *more])


def decode_video(path, *, frames, clips, clip_frames, clip_size, resize, stored_size):
    """The frames and clips of one video; the settings are those of `extract`.

    Rotation that the file asks for is applied. A file that ends before the frames it announces is
    padded by the last one. No frames or no clips give empty arrays.

    Returns:
        (u8[V, C, C, 3], their true (h, w), u8[M, F, S, S, 3]).

    Raises:
        ValueError: PyAV is not installed; the file is no video or holds no frame that can be
          decoded.
    """
    try:
        import av
    except ImportError:
        raise ValueError(
            'videos are decoded by PyAV, which is not installed: pip install "jaxord[video]"'
        ) from None
    try:
        with av.open(path) as container:
            total = sum(
                bool(packet.size) and not packet.is_discard for packet in container.demux(video=0)
            )
        images, small = {}, {}
        middle = [(2 * v + 1) * total // (2 * frames) for v in range(frames)]
        inside = [
            [min(m * total // clips + i, total - 1) for i in range(clip_frames)]
            for m in range(clips)
        ]
        moving = {index for indices in inside for index in indices}
        last = None
        with av.open(path) as container:
            for index, frame in enumerate(container.decode(video=0)):
                last = frame
                if index in middle:
                    images[index] = _stored(frame, resize, stored_size)
                if index in moving:
                    small[index] = _rgb(frame, clip_size, clip_size)
    except (av.FFmpegError, IndexError) as error:  # IndexError: no stream of pictures
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if last is None:
        raise ValueError("holds no frame that can be decoded")
    end = _stored(last, resize, stored_size), _rgb(last, clip_size, clip_size)
    images = [images.get(index, end[0]) for index in middle]
    sizes = sorted({size for _, size in images})
    if len(sizes) > 1:
        raise ValueError(f"its frames have several sizes, {sizes}")
    parts = [np.stack([small.get(index, end[1]) for index in indices]) for indices in inside]
    return (
        np.array([image for image, _ in images], np.uint8),
        sizes[0] if sizes else None,
        np.array(parts, np.uint8),
    )


def _stored(frame, resize, stored_size):
    """A frame as an image of the stored form, by the same steps as a photograph."""
    file = io.BytesIO()
    Image.fromarray(_rgb(frame, frame.width, frame.height)).save(file, "BMP")
    return decoding.decode(file.getvalue(), resize=resize, stored_size=stored_size)


def _rgb(frame, width, height):
    """u8[h, w, 3]: a frame, resized and then turned as its file asks for."""
    from av.video.reformatter import Interpolation as Flag

    # Without these flags ffmpeg's scaler is darker by up to 2 of 255, and differs between
    # processors.
    exact = Flag.BILINEAR | Flag.ACCURATE_RND | Flag.FULL_CHR_H_INT | Flag.BITEXACT
    pixels = frame.reformat(width, height, "rgb24", interpolation=exact, threads=1).to_ndarray()
    return np.rot90(pixels, round(frame.rotation / 90))


def fast_motion(weights):
    """The function u8[M, F, S, S, 3] -> f16[M, 4, S / 32, S / 32, 256] of one video: the Fast
    pathway, averaged over time."""
    import jax
    import jax.numpy as jnp

    from jaxord.models.video import FastPathway

    model = FastPathway()
    once = jax.jit(
        model.init, compiler_options={"xla_backend_optimization_level": 0}
    )  # half the time to compile
    initial = functools.partial(once, jax.random.key(0), jnp.zeros((1, POOLED, 32, 32, 3)))
    variables = initial() if weights == "random" else load_fast(weights, jax.eval_shape(initial))

    @jax.jit
    def motion(variables, clips):
        maps = model.apply(
            variables, (clips.astype(jnp.float32) / 255 - MEAN) / STD
        )  # [M, F, h, w, 256]
        steps = maps.reshape(len(maps), POOLED, -1, *maps.shape[2:])
        return steps.mean(2).astype(jnp.float16)

    return functools.partial(motion, variables)


def fast_name(path):
    """pytorchvideo's name of our parameter or statistic:
    blocks_1/res_blocks_0/branch2/conv_a/kernel ->
    blocks.1.multipathway_blocks.1.res_blocks.0.branch2.conv_a.weight."""
    stage, *parts, leaf = path.split("/")
    names = [re.sub(r"_(\d+)$", r".\1", part) for part in (stage, *parts)]
    return ".".join(
        [names[0], "multipathway_blocks.1", *names[1:], torchvision.LEAVES.get(leaf, leaf)]
    )


def load_fast(file, shapes):
    """The Fast pathway's variables from a safetensors file with the names of pytorchvideo's
    slowfast_r50.

    Args:
        file: path; the Slow pathway, the fusions and the head may be in it.
        shapes: {"params": tree, "stats": tree} of the model.

    Raises:
        ValueError: not such a file; lists every array that is missing, left over or of another
          shape.
    """
    flat = {kind: trees.flatten(tree) for kind, tree in shapes.items()}
    wanted = {path: leaf for tree in flat.values() for path, leaf in tree.items()}
    fast = ".multipathway_blocks.1."

    def from_source(path, array):
        return array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array  # OITHW -> THWIO

    def expected(name):
        return fast in name and not name.endswith("num_batches_tracked")

    found = torchvision.read(file, wanted, fast_name, from_source, expected, WEIGHTS)
    return {
        kind: trees.unflatten({path: found[path] for path in tree}) for kind, tree in flat.items()
    }


def _digest(file):
    """Of the bytes of the weights: other weights give another extraction, wherever they lie."""
    if file == "random":
        return file
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}\n{WEIGHTS}") from None
