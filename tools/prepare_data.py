"""A data set's images into one TFDS store of ArrayRecord files, once per data set.

    python tools/prepare_data.py --dataset=faces.morph --source=downloads/morph --out=data/

reads the lists in the source folder with the reader of that name, writes every image they name, as it is, to
data/morph/store/1.0.0 and copies the list files. Afterwards config.data.root=data/morph needs no image files: the
readers find the store. Settings of the reader are given as JSON:

    python tools/prepare_data.py --dataset=photos.aesthetics --settings='{"category": "people"}' --source=...

Where a data set has folds, the images of all folds in --folds are stored. Nothing of TensorFlow is needed.
"""

import json
import pathlib
import shutil

from absl import app, flags, logging

from jaxord.data import arrayrecord, load

LISTS = (".txt", ".csv", ".tsv")

DATASET = flags.DEFINE_string("dataset", None, "Reader, as config.data.reader.name: faces.morph.", required=True)
SOURCE = flags.DEFINE_string(
    "source", None, "Folder with the lists and images, laid out as the reader says.", required=True
)
OUT = flags.DEFINE_string("out", "data", "Folder; the data set's name is added.")
FOLDS = flags.DEFINE_list("folds", ["0"], "Folds whose images are stored, for readers that have folds.")
SETTINGS = flags.DEFINE_string("settings", "{}", "Settings of the reader, as JSON.")


def prepare(dataset, source, out, folds=("0",), settings=None):
    """Writes the store and copies the lists.

    Args:
        dataset: name of a reader: "faces.morph".
        source: folder that the reader reads.
        out: folder in which the data set's folder is made.
        folds: the union of their images is stored.
        settings: of the reader.

    Returns:
        The data set's folder.

    Raises:
        ValueError: what the reader finds wrong; the target holds a store already, or is the source.
    """
    root = pathlib.Path(out) / dataset.split(".")[-1]
    if arrayrecord.find(root) or arrayrecord.find(source):
        raise ValueError(
            f"there is a store already under {root if arrayrecord.find(root) else source}; remove it to write it anew"
        )
    if root.resolve() == pathlib.Path(source).resolve():
        raise ValueError(f"--source and the target are both {root}; give another --out")
    read = load.reader({"name": dataset, **(settings or {})})
    images = {}  # path -> (records, row), in the order of the lists
    for fold in folds:
        for records in read(source, fold=fold, seed=0).values():
            for row, path in enumerate(records.paths):
                images.setdefault(path, (records, row))

    def examples():
        for path, (records, row) in images.items():
            yield {"image": records.read(row), "path": path}

    arrayrecord.write_store(root, _features, {"images": examples()}, metadata={"paths": list(images)})
    for file in pathlib.Path(source).rglob("*"):
        if file.suffix.lower() in LISTS and file.is_file():
            target = root / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    logging.info("%d images and the lists are in %s", len(images), root)
    return root


def _features(tfds):
    return {"image": tfds.features.Image(shape=(None, None, 3)), "path": tfds.features.Text()}


def main(_):
    prepare(DATASET.value, SOURCE.value, OUT.value, FOLDS.value, json.loads(SETTINGS.value))


if __name__ == "__main__":
    app.run(main)
