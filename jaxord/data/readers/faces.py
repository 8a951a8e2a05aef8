"""Readers of face data sets; the target is the age in years, for Adience the class 0 to 7.

Lists lie under the root, images in its folder `images` unless said otherwise; images are aligned
beforehand. `fold` and `seed` are those of the run; `val_fraction` cuts a validation split from the
training one where the protocol has none.
"""

import dataclasses
import os

import numpy as np

from jaxord.data.records import SPLITS, concatenate, image_records, require
from jaxord.data.splits import carve
from jaxord.data.tables import read_table


def morph(root, *, fold, seed, setting="A", images="images", label_offset=0.0, val_fraction=0.0):
    """MORPH II.

    Settings:
      "A": five random 80/20 splits of 5,492 Caucasian faces (order learning's and MWR's setting A;
      folds 0-4); "B": three sets of 7,000 faces, trained on the one that `fold` names and tested on
      the other two; "random" (MWR's RS) and "subject" (MWR's SE, no person on both sides): 55,134
      faces in five parts, of which `fold` is
        the test part; "l2rclip_random" and "l2rclip_subject" are the same as L2RCLIP's lists have
        them, a file a fold;
      "ordinalclip": the one split of OrdinalCLIP and NumCLIP, whose file for validation is the test
      file (its labels may
        hold age + 1: then label_offset=1). Where it gives several labels of an image, the training
        split keeps them all as its annotations.

    Columns: gender (1 is male) and race (0 is Caucasian) in setting A.

    Args:
        root: folder.
        fold: "0" to "4", in setting "B" to "2"; not used in setting "ordinalclip".
        seed: of the draw of a validation split.
        setting: see above.
        images: folder of the images.
        label_offset: subtracted from the labels.
        val_fraction: see above.
    """
    about = (
        "lists: nhshin-mcl/MWR on GitHub, datalist/morph (RS_partial/Setting_1_*, RS/Setting_3, SE/Setting_4);"
        " settings 'l2rclip_*': raywang335/L2RCLIP, datalist/morph; 'ordinalclip': the data of xk-huang/OrdinalCLIP."
        " Images: MORPH II Album 2, on request from the University of North Carolina Wilmington, faces aligned.\n"
        "layout: <root>/{Setting_1_fold0_train.txt, Setting_1_fold0_test.txt, ...}, <root>/Setting_3.txt,"
        " <root>/Setting_2_fold{0..2}.txt, <root>/Setting_4.txt, <root>/setting{C,D}/morph_{C,D}_0{0..4}.txt or"
        f" <root>/{{ET_proto_train.txt, ET_proto_val.txt}}; <root>/{images}/<file of the list>"
    )
    pair = ("filename", "age")
    whole = {"random": "Setting_3.txt", "subject": "Setting_4.txt"}
    # A file a fold: the files, names of their columns, whether the file of `fold` is the training
    # part
    by_fold = {
        "B": ([f"Setting_2_fold{k}.txt" for k in range(3)], (), True),
        "l2rclip_random": ([f"settingC/morph_C_0{k}.txt" for k in range(5)], pair, False),
        "l2rclip_subject": ([f"settingD/morph_D_0{k}.txt" for k in range(5)], pair, False),
    }
    if setting == "A":
        files = [f"Setting_1_fold{fold}_{split}.txt" for split in ("train", "test")]
        tables = [[read_table(file)] for file in require(root, files, about)]
    elif setting == "ordinalclip":
        files = ["ET_proto_train.txt", "ET_proto_val.txt"]
        tables = [[read_table(file, names=pair)] for file in require(root, files, about)]
    elif setting in whole:
        table = read_table(*require(root, [whole[setting]], about))
        test = [part == fold for part in table.texts("fold")]
        tables = [[table.where([not part for part in test])], [table.where(test)]]
    elif setting in by_fold:
        files, names, trained = by_fold[setting]
        parts = [read_table(file, names=names) for file in require(root, files, about)]
        own = [part for k, part in enumerate(parts) if str(k) == fold]
        others = [part for k, part in enumerate(parts) if str(k) != fold]
        if not own:
            raise ValueError(
                f"morph, setting {setting!r}, has no fold {fold!r}; it is 0 to {len(files) - 1}"
            )
        tables = [own, others] if trained else [others, own]
    else:
        raise ValueError(
            f"morph has no setting {setting!r}; it is one of {['A', 'ordinalclip', *whole, *by_fold]}"
        )
    splits = {
        split: concatenate(
            [
                _records(root, table, "filename", f"morph {split}", about, images, label_offset)
                for table in part
            ]
        )
        for split, part in zip(("train", "test"), tables, strict=True)
    }
    if setting == "ordinalclip" and (labels := tables[0][0].annotations("age")) is not None:
        splits["train"] = dataclasses.replace(
            splits["train"], annotations=labels - np.float32(label_offset)
        )
    splits = carve(splits, val_fraction, seed, fold)
    return {
        split: part if split == "train" else dataclasses.replace(part, annotations=None)
        for split, part in splits.items()
    }


def adience(root, *, fold, seed, lists="l2rclip", images="images", val_fraction=0.0):
    """Adience, 17,470 faces in eight age groups: tested on one of five folds, trained on the
    others.

    Lists: "l2rclip", a file a fold; "poe", a folder a fold with age_train.txt and age_val.txt,
      which is the test list
    unless the folder has an age_test.txt too.

    Args:
        root: folder.
        fold: "0" to "4".
        seed: of the draw of a validation split.
        lists: see above.
        images: folder of the images.
        val_fraction: see above.
    """
    about = (
        "lists: raywang335/L2RCLIP on GitHub, datalist/adience (simplified_adience_0.txt to _4.txt); 'poe': the"
        " data_list of Li-Wanhua/POEs. Images: Adience, the aligned faces, from the Open University of Israel.\n"
        "layout: <root>/simplified_adience_{0..4}.txt or <root>/test_fold_is_{0..4}/age_{train,val}.txt;"
        f" <root>/{images}/<path of the list>"
    )
    if lists == "l2rclip":
        folds = [str(k) for k in range(5)]
        files = require(root, [f"simplified_adience_{k}.txt" for k in folds], about)
        tables = {
            "train": [file for k, file in zip(folds, files, strict=True) if k != fold],
            "test": [file for k, file in zip(folds, files, strict=True) if k == fold],
        }
    elif lists == "poe":
        stem = f"test_fold_is_{fold}/age_"
        train, val = require(root, [stem + "train.txt", stem + "val.txt"], about)
        test = os.path.join(root, stem + "test.txt")
        tables = (
            {"train": [train], "val": [val], "test": [test]}
            if os.path.isfile(test)
            else {"train": [train], "test": [val]}
        )
    else:
        raise ValueError(f"adience has no lists {lists!r}; they are 'l2rclip' or 'poe'")
    splits = {}
    for split, files in tables.items():
        read = [read_table(file, names=("path", "age")) for file in files]
        paths = [_under(images, path) for table in read for path in table.texts("path")]
        ages = np.concatenate([table.numbers("age") for table in read])
        splits[split] = image_records(root, paths, ages, name=f"adience {split}", about=about)
    return carve(splits, val_fraction, seed, fold)


def clap2015(root, *, fold, seed, train_on="train+val", images="images"):
    """ChaLearn LAP 2015, apparent age; column stdv: the annotators' standard deviation.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        train_on: "train+val", as in the lineage of the published figures (no validation split
          then), or "train".
        images: folder of the images; "{split}" in it stands for train, val, test.
    """
    about = (
        "lists: raywang335/L2RCLIP on GitHub, datalist/clap2015 (total_2015.csv; in nhshin-mcl/MWR a spreadsheet)."
        " Images: ChaLearn Looking at People 2015, apparent age estimation, faces aligned.\n"
        f"layout: <root>/total_2015.csv; <root>/{images}/<file of the list>"
    )
    table = read_table(*require(root, ["total_2015.csv"], about))
    splits = _by_column(root, table, "filename", "database", "clap2015", about, images)
    return _train_on(splits, train_on, {"train": ("train",), "train+val": ("train", "val")})


def cacd(root, *, fold, seed, train_on="train", images="images"):
    """CACD, celebrities of 14 to 62 years.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        train_on: "train": the 1,800 celebrities with noisy labels, val for selection; "val": the 80
          clean ones (no
            validation split then).
        images: folder of the images; "{split}" in it stands for train, val, test.
    """
    about = (
        "lists: CACD.csv as nhshin-mcl/MWR uses it (not in its repository; columns filename, age, database and fold:"
        " one of train, val, test). Images: Cross-Age Celebrity Dataset of Chen, Chen and Hsu, faces aligned.\n"
        f"layout: <root>/CACD.csv; <root>/{images}/<file of the list>"
    )
    table = read_table(*require(root, ["CACD.csv"], about))
    splits = _by_column(root, table, "filename", "fold", "cacd", about, images)
    return _train_on(splits, train_on, {"train": ("train",), "val": ("val",)})


def agedb(root, *, fold, seed, images=""):
    """AgeDB-DIR: 12,208 / 2,140 / 2,140 faces, long-tailed in training, balanced in validation and
    test.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        images: folder of the images; the list's paths begin with AgeDB/.
    """
    return _dir(root, "agedb", "AgeDB, on request from Imperial College London", images)


def imdb_wiki(root, *, fold, seed, images=""):
    """IMDB-WIKI-DIR: 191,500 / 11,000 / 11,000 faces, long-tailed in training, balanced in
    validation and test.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        images: folder of the images; the list's paths begin with imdb_crop/ and wiki_crop/.
    """
    return _dir(root, "imdb_wiki", "IMDB-WIKI of ETH Zurich, the face-only archives", images)


def utk(root, *, fold, seed, images="images", val_fraction=0.0):
    """UTKFace, ages 21 to 60, 13,146 / 3,287 faces (the split of CORAL, Gustafsson and Berg).

    Args:
        root: folder.
        fold: not used but in the draw of a validation split.
        seed: of that draw.
        images: folder of the images.
        val_fraction: see above.
    """
    about = (
        "lists: nhshin-mcl/MWR on GitHub, datalist/utk (UTK_train_coral.csv, UTK_test_coral.csv). Images: UTKFace,"
        " aligned and cropped, of Zhang, Song and Qi.\n"
        f"layout: <root>/{{UTK_train_coral.csv, UTK_test_coral.csv}}; <root>/{images}/<file of the list>"
    )
    files = require(root, ["UTK_train_coral.csv", "UTK_test_coral.csv"], about)
    splits = {
        split: _records(root, read_table(file), "filename", f"utk {split}", about, images)
        for split, file in zip(("train", "test"), files, strict=True)
    }
    return carve(splits, val_fraction, seed, fold)


def _dir(root, name, where, images):
    """The three splits of a csv of imbalanced-regression."""
    about = (
        f"lists: YyzHarry/imbalanced-regression on GitHub, {name.replace('_', '-')}-dir/data/{name}.csv."
        f" Images: {where}.\n"
        f"layout: <root>/{name}.csv; <root>/{_under(images, '<path of the list>')}"
    )
    table = read_table(*require(root, [f"{name}.csv"], about))
    return _by_column(root, table, "path", "split", name, about, images)


def _records(root, table, path, name, about, images, label_offset=0.0):
    paths = [_under(images, text) for text in table.texts(path)]
    columns = table.columns(leave=(path, "age", "database", "fold", "split"))
    return image_records(
        root, paths, table.numbers("age") - label_offset, name=name, about=about, columns=columns
    )


def _by_column(root, table, path, column, name, about, images):
    """{split: Records} of the values in a column, which must hold all three splits."""
    found = table.texts(column)
    if {SPLITS.get(text) for text in found} != {"train", "val", "test"}:
        raise ValueError(
            f"{table.path}: the column {column!r} holds {sorted(set(found))}, expected train, val and test"
        )
    return {
        split: _records(
            root,
            table.where([SPLITS[text] == split for text in found]),
            path,
            f"{name} {split}",
            about,
            images.replace("{split}", split),
        )
        for split in ("train", "val", "test")
    }


def _under(images, path):
    return f"{images}/{path}" if images else path


def _train_on(splits, train_on, choices):
    """The splits with another training split; what is trained on is not selected on."""
    if train_on not in choices:
        raise ValueError(f"train_on is {train_on!r}; it is one of {sorted(choices)}")
    parts = [splits[split] for split in choices[train_on]]
    found = {"train": concatenate(parts), "test": splits["test"]}
    return found if "val" in choices[train_on] else {**found, "val": splits["val"]}
