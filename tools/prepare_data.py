"""A data set's images into one TFDS store of ArrayRecord files, once per data set.

    python tools/prepare_data.py --dataset=morph --source=downloads/morph --out=data/

reads the lists in the source folder as configs/morph.py does, writes every image that they name, in
any fold, as it is to data/morph/store/1.0.0 and copies the list files. Afterwards data/morph needs
no image files: the readers find the store. `--dataset=aesthetics:preset=regclip` gives the config
an argument. Nothing of TensorFlow is needed. The source may be an archive (.zip, .tar, .tar.gz,
...), which is unpacked into the target's folder for that time; it is not trusted (tools/unpack.py).
"""

import contextlib
import importlib
import pathlib
import shutil
import sys
import tempfile

from absl import app, flags

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ lies beside tools/ and is not installed

from jaxord.data import arrayrecord, readers
from tools.unpack import unpack

LISTS = (".txt", ".csv", ".tsv", "_release.mat")  # the last are CLIVE's

DATASET = flags.DEFINE_string(
    "dataset", None, "File in configs/, with its argument: morph.", required=True
)
SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Folder or archive with the lists and images, as the reader says.",
    required=True,
)
OUT = flags.DEFINE_string("out", "data", "Folder; the data set's name is added.")


def prepare(reader, source, root, folds=("",)):
    """Writes the store and copies the lists.

    Args:
        reader: as config.data.reader.
        source: folder that the reader reads.
        root: folder that is made.
        folds: the union of their images is stored.

    Returns:
        Number of images.

    Raises:
        ValueError: what the reader finds wrong; the target holds a store already, or is the source.
    """
    root = pathlib.Path(root)
    if arrayrecord.find(root) or arrayrecord.find(source):
        raise ValueError(
            f"there is a store already under {root if arrayrecord.find(root) else source}; remove it to write it anew"
        )
    if root.resolve() == pathlib.Path(source).resolve():
        raise ValueError(f"--source and the target are both {root}; give another --out")
    read = readers.reader(reader)
    images = {}  # path -> (records, row), in the order of the lists
    for fold in folds:
        for records in read(source, fold=fold, seed=0).values():
            for row, path in enumerate(records.paths):
                images.setdefault(path, (records, row))

    def examples():
        for path, (records, row) in images.items():
            yield {"image": records.read(row), "path": path}

    arrayrecord.write_store(
        root, _features, {"images": examples()}, metadata={"paths": list(images)}
    )
    for file in pathlib.Path(source).rglob("*"):
        if file.name.lower().endswith(LISTS) and file.is_file():
            target = root / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return len(images)


def _features(tfds):
    return {"image": tfds.features.Image(shape=(None, None, 3)), "path": tfds.features.Text()}


def main(_):
    name, _, argument = DATASET.value.partition(":")
    try:
        data = importlib.import_module(f"configs.{name}").get_config(argument).data
        root = pathlib.Path(OUT.value) / name
        with contextlib.ExitStack() as unpacked:
            source = pathlib.Path(SOURCE.value)
            if source.is_file():
                pathlib.Path(OUT.value).mkdir(parents=True, exist_ok=True)
                folder = unpacked.enter_context(
                    tempfile.TemporaryDirectory(prefix=".source-", dir=OUT.value)
                )
                source = unpack(source, folder)
            count = prepare(data.reader, source, root, tuple(data.folds) or ("",))
    except (ModuleNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} images and the lists are in {root}")


if __name__ == "__main__":
    app.run(main)
