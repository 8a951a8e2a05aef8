"""TFDS data sets in ArrayRecord files, written and read without TensorFlow."""

import contextlib
import hashlib
import io
import json
import pathlib
import tempfile

STORE = "store"  # name of the data set that prepared images form under a root
VERSION = "1.0.0"


def write_store(root, features, splits, metadata=None):
    """Writes root/store/1.0.0, a TFDS data set of ArrayRecord files.

    TFDS writes into a folder incomplete.* beside it and renames that at the end, so a killed run
    leaves no half of a data set behind under this name, and of two runs at once the first to end
    wins.

    Args:
        root: folder.
        features: a function of the tfds module, giving the dict of features; dtypes as numpy types.
        splits: split name -> iterable of examples, kept in this order.
        metadata: anything JSON takes, kept beside the data.

    Returns:
        The folder written.
    """
    import tensorflow_datasets as tfds

    class Store(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = STORE
        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features(tfds)),
                metadata=tfds.core.MetadataDict(metadata or {}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(examples) for name, examples in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    tfds.disable_progress_bar()
    folder = pathlib.Path(root) / STORE / VERSION
    with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
        try:
            Store(data_dir=root, file_format="array_record").download_and_prepare(
                download_dir=downloads
            )
        except OSError:
            if not (folder / "dataset_info.json").exists():  # else another process was faster
                raise
    return folder


def find(root, dataset=STORE):
    """The folder of a TFDS data set under root, its newest version; None where there is none."""
    top = pathlib.Path(root) / dataset
    versions = [
        folder
        for pattern in ("*.*.*", "*/*.*.*")
        for folder in top.glob(pattern)
        if _version(folder)
    ]
    complete = [folder for folder in (top, *versions) if (folder / "dataset_info.json").is_file()]
    return max(complete, key=_version, default=None)


def metadata(folder):
    """What was kept beside the data."""
    return json.loads((folder / "metadata.json").read_text())


def stamp(folder):
    """Names the content of a data set: its description holds the number of bytes and examples of
    each file."""
    info = (folder / "dataset_info.json").read_bytes() + str(
        (folder / "dataset_info.json").stat().st_mtime_ns
    ).encode()
    return hashlib.sha256(info).hexdigest()


def builder(folder):
    """The TFDS builder of a folder.

    Raises:
        ValueError: the data set is stored in another format than ArrayRecord.
    """
    import tensorflow_datasets as tfds

    found = tfds.builder_from_directory(folder)
    form = found.info.file_format.value
    if form != "array_record":
        raise ValueError(
            f"{folder} is stored as {form}, which only TensorFlow reads; prepare it again with "
            "download_and_prepare(file_format='array_record')"
        )
    return found


def source(folder, split, image):
    """Random access to the examples of a split, a sequence of dicts in which `image` is encoded
    bytes."""
    import tensorflow_datasets as tfds

    return builder(folder).as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})


def _version(folder):
    """(1, 0, 0) of a folder 1.0.0; () of others, such as the incomplete.* ones of running or killed
    builds."""
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
