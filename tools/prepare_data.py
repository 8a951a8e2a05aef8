"""Writes a data set's images into one TFDS store of ArrayRecord files, once per data set.

    python tools/prepare_data.py --dataset=morph --source=downloads/morph --out=data/

Reads the lists in the source folder as configs/morph.py does, writes each image that they name in
any fold, unchanged, to data/morph/store/1.0.0, and copies the list files. The readers then find the
store, so data/morph needs no image files. `--dataset=aesthetics:preset=regclip` passes an argument
to the config. The source may be an archive (.zip, .tar, .tar.gz, ...), which is unpacked beside the
target for a while, without trust (tools/sources/archives.py). TensorFlow is not needed.
"""

import contextlib
import importlib
import pathlib
import shutil
import sys
import tempfile

from absl import app, flags

from jaxord import shipped

shipped.make_importable()

from jaxord.data import arrayrecord, readers
from tools.sources.archives import unpack

LISTS = (".txt", ".csv", ".tsv", "_release.mat")  # the last are CLIVE's


def _text(name, default, help):
    return flags.DEFINE_string(name, default, help, required=default is None)


DATASET = _text("dataset", None, "File in configs/, with its argument: morph.")
SOURCE = _text("source", None, "Folder or archive with lists and images as the reader expects.")
OUT = _text("out", "data", "Folder; the data set's name is added.")


def prepare(reader, source, root, folds=("",)):
    """Writes the store of a source folder into a new folder `root` and copies the lists.

    `reader` is as config.data.reader; the store holds the images of all folds. Returns their
    number. ValueError is the reader's, for a store in either folder, or for root = source.
    """
    source, root = pathlib.Path(source), pathlib.Path(root)
    for folder in (root, source):
        if arrayrecord.find(folder):
            raise ValueError(f"there is a store already under {folder}; remove it to write it anew")
    if root.resolve() == source.resolve():
        raise ValueError(f"--source and the target are both {root}; give another --out")
    read = readers.reader(reader)
    images = {}  # path -> (records, row), in the order of the lists
    for fold in folds:
        for records in read(source, fold=fold, seed=0).values():
            for row, path in enumerate(records.paths):
                images.setdefault(path, (records, row))
    examples = (
        {"image": records.read(row), "path": path} for path, (records, row) in images.items()
    )
    arrayrecord.write_store(root, _features, {"images": examples}, metadata={"paths": list(images)})
    for file in source.rglob("*"):
        if file.name.lower().endswith(LISTS) and file.is_file():
            target = root / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return len(images)


def _features(tfds):
    return {"image": tfds.features.Image(shape=(None, None, 3)), "path": tfds.features.Text()}


def main(_):
    name, _, argument = DATASET.value.partition(":")
    out = pathlib.Path(OUT.value)
    try:
        data = importlib.import_module(f"configs.{name}").get_config(argument).data
        with contextlib.ExitStack() as unpacked:
            source = pathlib.Path(SOURCE.value)
            if source.is_file():
                out.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(prefix=".source-", dir=out)
                source = unpack(source, unpacked.enter_context(folder))
            count = prepare(data.reader, source, out / name, tuple(data.folds) or ("",))
    except (ModuleNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} images and the lists are in {out / name}")


if __name__ == "__main__":
    app.run(main)
