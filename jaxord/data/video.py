"""Extracts from each video once: frames for the image tower, and motion by SlowFast's Fast pathway.

N videos, V frames, M clips of F frames, C side of the stored canvas, S side of a clip.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import pathlib
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image

from jaxord.data import decode, faults, storage
from jaxord.models import video as video_models
from jaxord.shipped import install_hint
from jaxord.weights import slowfast
from jaxord.workdir import files

FORMAT = 1  # raised when the extraction changes, so that nothing old is read
COUNTS = {"frames": "frames", "motion": "clips"}  # kind of array -> setting that counts it
POOLED = 4  # steps of time that are kept of a clip's motion
MEAN, STD = 0.45, 0.225  # of the pixels in 0..1 that the Fast pathway was trained on


class Rows:
    """Some rows of an array in a file, read when they are indexed, so that no split is copied."""

    def __init__(self, array, rows):
        self.array = array
        self.rows = np.asarray(rows)
        self.shape = (len(self.rows), *array.shape[1:])
        self.dtype = array.dtype
        self.ndim = array.ndim

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
    """Frames and motion of all videos, from the folder of an earlier extraction if it exists.

    Cuts a video into V (or M) equal parts. A frame is the middle one of its part; a clip begins
    with its part and is padded by the video's last frame. Resumes after a crash.

    Args:
      records: of the videos, with paths relative to `root`.
      frames, clips, clip_frames, clip_size: V, M (0: no motion), F (4, 8, ...) and S (32, 64, ...).
      resize, stored_size: stored form of the frames, as of images.
      motion_weights: safetensors file with pytorchvideo's names, or "random".
      cache: folder for the arrays; "" is <root>/extracted.
      broken, broken_share, workers: as of config.data.

    Returns:
      (arrays in files, rows that they hold): frames u8[N, V, C, C, 3], size i32[N, 2], the true
      height and width in the canvas, and motion f16[N, M, 4, S / 32, S / 32, 256].

    Raises:
      ValueError: no weights; weights that do not fit; no room; broken videos, after trying all.
    """
    if (collected := faults.active()) is not None:
        collected.files |= _undecodable(records, root, resize, stored_size, workers)
        return {}, np.arange(len(records))
    still = {"frames": frames, "resize": resize, "stored_size": stored_size}
    moving = {"clips": clips, "clip_frames": clip_frames, "clip_size": clip_size}
    sizes_fit = frames >= 1 and clips >= 0 and not clip_frames % POOLED and not clip_size % 32
    if not sizes_fit or broken not in ("raise", "skip"):
        raise ValueError(
            f"config.data.reader.extract has frames {frames}, clips {clips}, clip_frames "
            f"{clip_frames}, clip_size {clip_size}, broken {broken!r}; expected at least 1, at "
            f"least 0, a multiple of {POOLED}, one of 32, 'raise' or 'skip'"
        )
    if clips and not motion_weights:
        raise ValueError(slowfast.CONVERT)
    form = {**still, **moving}
    parent = pathlib.Path(cache or pathlib.Path(root, "extracted"))
    folders = {"frames": parent / _folder_name(records, "frames", still)}
    # Each kind has its folder, so that other frames leave the motion as it is.
    if clips:
        if motion_weights == slowfast.RANDOM:
            logging.warning("%s: motion by random weights, for trying out only", records.name)
        weights = {"weights": slowfast.digest(motion_weights)}
        folders["motion"] = parent / _folder_name(records, "motion", {**moving, **weights})
    broken_rows = _extract_missing(records, root, folders, form, motion_weights, broken, workers)
    for folder in folders.values():
        if folder.exists():
            stored = files.read_json(folder / "broken.json")
            broken_rows |= {int(row): reason for row, reason in stored.items()}
    named = [(row, records.paths[row], reason) for row, reason in sorted(broken_rows.items())]
    policy = {"broken": broken, "broken_share": broken_share}
    storage.check_broken(records, named, policy, "videos")
    arrays = {
        name: np.load(folders[kind] / f"{name}.npy", mmap_mode="r")
        for kind, shapes in row_shapes(**form).items()
        for name in shapes
    }
    return arrays, np.array([row for row in range(len(records)) if row not in broken_rows])


def _undecodable(records, root, resize, stored_size, workers):
    """{path: reason} of the videos whose middle frame cannot be decoded; writes nothing."""
    form = {"resize": resize, "stored_size": stored_size, "clip_frames": POOLED, "clip_size": 32}

    def one(row):
        decode_video(pathlib.Path(root, records.paths[row]), frames=1, clips=0, **form)

    present = [row for row, path in enumerate(records.paths) if path not in faults.active().files]
    broken = storage.each_row(one, present, workers)
    return {records.paths[row]: reason for row, reason in broken.items()}


def _folder_name(records, kind, settings):
    """Hashes the files (paths, sizes, dates) and the settings of their extraction."""
    key = json.dumps([FORMAT, kind, settings, records.stamp, records.paths])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def row_shapes(*, frames, clips, clip_frames, clip_size, resize, stored_size):
    """{kind: {name: (shape, dtype)}} of the arrays of one video, with the settings of `extract`."""
    side, cells = decode.canvas(resize, stored_size), clip_size // 32
    shapes = {"frames": {"frames": ((frames, side, side, 3), np.uint8), "size": ((2,), np.int32)}}
    if clips:
        shapes["motion"] = {"motion": ((clips, POOLED, cells, cells, 256), np.float16)}
    return shapes


def _extract_missing(records, root, folders, form, weights, broken, workers):
    """Extracts into the folders that do not exist yet; returns {row: reason} of broken videos."""
    if all(folder.exists() for folder in folders.values()):
        return {}
    with contextlib.ExitStack() as stack:
        # Always in this order, so that two processes cannot wait for each other.
        for folder in sorted(folders.values()):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock(folder.with_name(f".{folder.name}.lock")))
        missing = {kind: folder for kind, folder in folders.items() if not folder.exists()}
        if not missing:
            return {}
        parts = {kind: folder.with_name(f".{folder.name}") for kind, folder in missing.items()}
        failures = _fill(records, root, parts, form, weights, workers)
        # A folder appears when all its rows are done.
        if not failures or broken == "skip":
            for kind, part in parts.items():
                files.write_json(part / "broken.json", failures)
                part.rename(folders[kind])
    return failures


def _fill(records, root, parts, form, weights, workers):
    """Extracts into {kind: folder}, video by video; returns {row: reason} of broken videos."""
    n, shapes = len(records), row_shapes(**form)
    arrays = {}
    for kind, part in parts.items():
        for name, (shape, dtype) in shapes[kind].items():
            arrays[name] = _open_array(part / f"{name}.npy", (n, *shape), dtype)
    done = [_open_array(part / "done.npy", (n,), np.bool_) for part in parts.values()]
    rows = np.flatnonzero(~np.all(done, axis=0)).tolist()
    _check_room(records, arrays, rows, next(iter(parts.values())).parent)
    network = fast_motion(weights) if "motion" in parts else None
    form = {**form, **{count: 0 for kind, count in COUNTS.items() if kind not in parts}}
    start = time.monotonic()
    counter, writing = itertools.count(1), threading.Lock()

    def one(row):
        try:
            images, size, clips = decode_video(pathlib.Path(root, records.paths[row]), **form)
        except (ValueError, OSError) as error:
            return row, str(error)
        with writing:
            values = {"frames": images, "size": size, "motion": network and network(clips)}
            for name, array in arrays.items():
                array[row] = values[name]
                array.flush()
            # Only now: a row that a crash cut short is extracted again.
            for flags in done:
                flags[row] = True
            count = next(counter)
        if count % 100 == 0:
            progress = count, len(rows), count / (time.monotonic() - start)
            logging.info("%s: %d of %d videos, %.2f a second", records.name, *progress)

    return dict(filter(None, storage.map_threads(one, rows, workers)))


def _check_room(records, arrays, rows, folder):
    """Logs what the disk will hold; ValueError if it has no room."""
    sizes = ", ".join(f"{name} {array.nbytes / 1e9:.3g} GB" for name, array in arrays.items())
    logging.info("%s: %d videos; %s in %s", records.name, len(rows), sizes, folder)
    needed = sum(array.nbytes for array in arrays.values()) * len(rows) // len(records)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{records.name}: the extracted arrays take {needed:,} bytes more, but the disk of "
            f"{folder} has {free:,}; set config.data.reader.extract.cache to a folder with room, "
            "or a smaller stored_size"
        )


def _open_array(file, shape, dtype):
    """A memmap of the file, which is made whole at once if it does not exist."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        new = file.with_suffix(".new")
        np.lib.format.open_memmap(new, "w+", dtype, shape).flush()
        new.rename(file)
    return np.lib.format.open_memmap(file, "r+")


def decode_video(path, *, frames, clips, clip_frames, clip_size, resize, stored_size):
    """The frames and clips of one video, with the settings of `extract`.

    Applies the rotation that the file asks for. Pads a file that ends before the frames it
    announces by the last one. No frames or no clips give empty arrays. Returns (u8[V, C, C, 3],
    their true (h, w), u8[M, F, S, S, 3]); raises ValueError if nothing can be decoded.
    """
    try:
        import av
    except ImportError:
        install = f"which is not installed: {install_hint('video')}"
        raise ValueError(f"videos are decoded by PyAV, {install}") from None
    images, small, last = {}, {}, None
    try:
        with av.open(path) as container:
            packets = container.demux(video=0)
            total = sum(bool(packet.size) and not packet.is_discard for packet in packets)
        middles = [(2 * v + 1) * total // (2 * frames) for v in range(frames)]
        starts = [m * total // clips for m in range(clips)]
        windows = [[min(start + i, total - 1) for i in range(clip_frames)] for start in starts]
        moving = set().union(*windows)
        with av.open(path) as container:
            for index, last in enumerate(container.decode(video=0)):
                if index in middles:
                    images[index] = _stored_image(last, resize, stored_size)
                if index in moving:
                    small[index] = _rgb(last, clip_size, clip_size)
    except (av.FFmpegError, IndexError) as error:  # IndexError: no stream of pictures
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if last is None:
        raise ValueError("holds no frame that can be decoded")
    end_image = _stored_image(last, resize, stored_size)
    end_small = _rgb(last, clip_size, clip_size)
    stored = [images.get(index, end_image) for index in middles]
    sizes = sorted({size for _, size in stored})
    if len(sizes) > 1:
        raise ValueError(f"its frames have several sizes, {sizes}")
    pixels = np.array([image for image, _ in stored], np.uint8)
    parts = [np.stack([small.get(index, end_small) for index in window]) for window in windows]
    return pixels, sizes[0] if sizes else None, np.array(parts, np.uint8)


def _stored_image(frame, resize, stored_size):
    """A frame as an image of the stored form, by the same steps as a photograph."""
    file = io.BytesIO()
    Image.fromarray(_rgb(frame, frame.width, frame.height)).save(file, "BMP")
    return decode.decode_image(file.getvalue(), resize=resize, stored_size=stored_size)


def _rgb(frame, width, height):
    """u8[h, w, 3]: a frame, resized and then turned as its file asks for."""
    from av.video.reformatter import Interpolation as Flag

    # Without these flags ffmpeg's scaler is darker by up to 2 of 255, and differs between
    # processors.
    exact = Flag.BILINEAR | Flag.ACCURATE_RND | Flag.FULL_CHR_H_INT | Flag.BITEXACT
    pixels = frame.reformat(width, height, "rgb24", interpolation=exact, threads=1).to_ndarray()
    return np.rot90(pixels, round(frame.rotation / 90))


def fast_motion(weights):
    """u8[M, F, S, S, 3] -> f16[M, 4, S / 32, S / 32, 256] of one video, averaged to 4 steps."""
    model = video_models.FastPathway()
    # Unoptimised, because it runs once: half the time to compile.
    init = jax.jit(model.init, compiler_options={"xla_backend_optimization_level": 0})
    initial = functools.partial(init, jax.random.key(0), jnp.zeros((1, POOLED, 32, 32, 3)))
    random = weights == slowfast.RANDOM
    variables = initial() if random else slowfast.load(weights, jax.eval_shape(initial))

    @jax.jit
    def motion(variables, clips):
        pixels = (clips.astype(jnp.float32) / 255 - MEAN) / STD
        maps = model.apply(variables, pixels)  # [M, F, h, w, 256]
        steps = maps.reshape(len(maps), POOLED, -1, *maps.shape[2:])
        return steps.mean(2).astype(jnp.float16)

    return functools.partial(motion, variables)
