"""TFDS data sets in ArrayRecord files, written and read without TensorFlow."""

import contextlib
import hashlib
import io
import json
import pathlib
import tempfile

STORE = "store"  # the data set that prepared images form under a root
VERSION = "1.0.0"
INFO = "dataset_info.json"


def write_store(root, features, splits, metadata=None):
    """Writes root/store/1.0.0, a TFDS data set of ArrayRecord files, and returns its folder.

    TFDS writes into a folder incomplete.* and renames it at the end: a killed run leaves no partial
    data set under this name, and of two concurrent runs the first to end wins. `features` maps the
    tfds module to a dict of features with numpy dtypes, `splits` names to examples in order;
    `metadata` is a JSON value stored beside the data.
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
        store = Store(data_dir=root, file_format="array_record")
        try:
            store.download_and_prepare(download_dir=downloads)
        except OSError:
            # A concurrent run that ended first has written the same data set.
            if not (folder / INFO).exists():
                raise
    return folder


def find(root, dataset=STORE):
    """The folder of the newest version of a TFDS data set under root, or None."""
    top = pathlib.Path(root) / dataset
    folders = [folder for pattern in ("*.*.*", "*/*.*.*") for folder in top.glob(pattern)]
    folders = [top, *filter(_version, folders)]
    complete = [folder for folder in folders if (folder / INFO).is_file()]
    return max(complete, key=_version, default=None)


def metadata(folder):
    """The JSON value stored beside the data."""
    return json.loads((folder / "metadata.json").read_text())


def stamp(folder):
    """A hash that names the content: the description holds each file's bytes and examples."""
    info = folder / INFO
    text = info.read_bytes() + str(info.stat().st_mtime_ns).encode()
    return hashlib.sha256(text).hexdigest()


def builder(folder):
    """The TFDS builder of a folder; ValueError if it is stored in another format."""
    import tensorflow_datasets as tfds

    dataset = tfds.builder_from_directory(folder)
    file_format = dataset.info.file_format.value
    if file_format != "array_record":
        problem = f"{folder} is stored as {file_format}, which only TensorFlow reads"
        again = "prepare it again with download_and_prepare(file_format='array_record')"
        raise ValueError(f"{problem}; {again}")
    return dataset


def source(folder, split, image):
    """A random-access sequence of the examples of a split; the feature `image` stays encoded."""
    import tensorflow_datasets as tfds

    return builder(folder).as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})


def _version(folder):
    """(1, 0, 0) of a folder 1.0.0; () of others, such as the incomplete.* of a killed build."""
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
