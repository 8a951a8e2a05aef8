"""Readers of photographs that people rated: the target is the mean opinion score (MOS), on the data
set's own scale.

Lists lie under the root, images in its folder `images` (CLIVE's own is `Images`) unless said
otherwise. A list is a table with a header line in any of the dialects in use: the columns may be
called image_name, img_name, Image name or name, and MOS or mos; what else it has is kept as
columns. A spreadsheet (.xlsx) is read once its sheet is exported as CSV under the same name.
`table` names another list. `fold` and `seed` are those of the run.

Ten random splits, 80 percent to train on and 20 to test: fold k is the split k + 1 of the lists
(two files, or a column ratio802_seed<seed>_split<k + 1>, whose held-out fifth pyiqa calls val);
where they have none for it, it is drawn with the seed and the fold.
"""

import os
import re

from jaxord.data import matlab
from jaxord.data.records import by_split, concatenate, image_records, require
from jaxord.data.splits import split_records
from jaxord.data.tables import Table, read_table

FOLDS = tuple(str(k) for k in range(10))
NAMES = (
    "image name",
    "img name",
    "name",
    "img name/patch name",
    "image number",
)  # "_" and capitals do not count
SCORES = ("mos", "average subjective grade")
OFFICIAL = r"official_split|set|split"
RANDOM = r"ratio\d+_seed\d+_split_?\d+"
CALLED = {
    "training": "train",
    "0": "train",
    "1": "val",
    "2": "test",
}  # besides the usual names of splits


def bid(root, *, fold, seed, table="", images="images"):
    """BID, 586 photographs with real blur, MOS 0 to 5, ten random splits.

    Args:
        root: folder.
        fold: "0" to "9".
        seed: of splits that are drawn.
        table: another list.
        images: folder of the images.
    """
    about = (
        "lists: DatabaseGrades.xlsx of the data set, its sheet exported as CSV (columns Image Number, Average Subjective"
        " Grade), or the splits of nhshin-mcl/QCN on GitHub, likewise (columns image_name, MOS). Images: Blurred Image"
        " Database of the Federal University of Rio de Janeiro.\n"
        "layout: <root>/DatabaseGrades.csv or <root>/BID_{train,test}_split_{1..10}.csv;"
        f" <root>/{images}/DatabaseImage0001.JPG, ..."
    )
    pair = ("BID_train_split_{}.csv", "BID_test_split_{}.csv")
    return _ten_splits(
        root, "bid", about, fold, seed, table, images, lists=("DatabaseGrades.csv",), pair=pair
    )


def clive(root, *, fold, seed, table="", images="Images"):
    """CLIVE (LIVE In the Wild Challenge), 1,162 photographs, MOS 0 to 100, ten random splits;
    column std.

    The seven photographs that the raters were trained on (t1.bmp to t7.bmp) are left out, as
    everywhere.

    Args:
        root: folder.
        fold: "0" to "9".
        seed: of splits that are drawn.
        table: another list.
        images: folder of the images.
    """
    about = (
        "lists: the data set's own Data/All{Images,MOS,StdDev}_release.mat; or meta_info_LIVEChallengeDataset.csv of"
        " pyiqa (chaofengc/IQA-PyTorch-Datasets-metainfo on Hugging Face); or the splits of nhshin-mcl/QCN on GitHub as"
        " CSV. Images: LIVE In the Wild Image Quality Challenge Database, University of Texas at Austin.\n"
        "layout: <root>/Data/*.mat, <root>/meta_info_LIVEChallengeDataset.csv or"
        f" <root>/CLIVE_{{training,test}}_split_{{1..10}}.csv; <root>/{images}/<file of the list>"
    )
    lists = ("meta_info_LIVEChallengeDataset.csv", "Data/AllMOS_release.mat")
    pair = ("CLIVE_training_split_{}.csv", "CLIVE_test_split_{}.csv")
    leave = r"(trainingImages/)?t\d+\.bmp"
    return _ten_splits(
        root, "clive", about, fold, seed, table, images, lists=lists, pair=pair, leave=leave
    )


def koniq(root, *, fold, seed, table="", images="images", protocol="random"):
    """KonIQ-10k, 10,073 photographs, MOS 0 to 100; columns c1 to c5 (shares of the grades), SD.

    Protocols: "random": ten random splits; "official": 7,058 / 1,000 / 2,015, without folds.

    Args:
        root: folder.
        fold: "0" to "9"; not used in the protocol "official".
        seed: of splits that are drawn.
        table: another list; koniq10k_scores_and_distributions.csv will not do, its column MOS is on
          another scale.
        images: folder of the images, of 512 x 384 or 1024 x 768 pixels.
        protocol: see above.
    """
    about = (
        "lists: koniq10k_distributions_sets.csv of subpic/koniq on GitHub (folder metadata);"
        " meta_info_KonIQ10kDataset.csv of pyiqa (chaofengc/IQA-PyTorch-Datasets-metainfo on Hugging Face); the split of"
        " nhshin-mcl/QCN on GitHub (datasplit/KonIQ10K). Images: KonIQ-10k, University of Konstanz.\n"
        "layout: <root>/koniq10k_distributions_sets.csv, <root>/meta_info_KonIQ10kDataset.csv or"
        f" <root>/KonIQ10K_{{train,test}}_split_{{1..10}}.csv; <root>/{images}/<file of the list>"
    )
    lists = ("koniq10k_distributions_sets.csv", "meta_info_KonIQ10kDataset.csv")
    pair = ("KonIQ10K_train_split_{}.csv", "KonIQ10K_test_split_{}.csv")
    return _ten_splits(
        root, "koniq", about, fold, seed, table, images, lists=lists, pair=pair, protocol=protocol
    )


def spaq(root, *, fold, seed, table="", images="images"):
    """SPAQ, 11,125 photographs of smartphones, MOS 0 to 100, ten random splits.

    Columns: Brightness, Colorfulness, Contrast, Noisiness, Sharpness, as rated.

    Args:
        root: folder.
        fold: "0" to "9".
        seed: of splits that are drawn.
        table: another list.
        images: folder of the images, the data set's TestImage.
    """
    about = (
        "lists: MOS and Image attribute scores.xlsx of h4nwei/SPAQ on GitHub, its sheet exported as CSV;"
        " meta_info_SPAQDataset.csv of pyiqa (chaofengc/IQA-PyTorch-Datasets-metainfo on Hugging Face); the split of"
        " nhshin-mcl/QCN on GitHub (datasplit/SPAQ), exported as CSV. Images: SPAQ of Fang, Zhu, Zeng, Ma and Wang.\n"
        "layout: <root>/MOS and Image attribute scores.csv, <root>/meta_info_SPAQDataset.csv or"
        f" <root>/SPAQ_{{train,test}}_split_{{1..10}}.csv; <root>/{images}/<file of the list>"
    )
    lists = ("MOS and Image attribute scores.csv", "meta_info_SPAQDataset.csv")
    pair = ("SPAQ_train_split_{}.csv", "SPAQ_test_split_{}.csv")
    return _ten_splits(root, "spaq", about, fold, seed, table, images, lists=lists, pair=pair)


def flive(root, *, fold, seed, table="", images="images"):
    """FLIVE (PaQ-2-PiQ), 39,810 photographs, MOS 0 to 100, the official split; its patches are left
    out.

    The lists of nhshin-mcl/QCN have no validation split; the others have one, which is not trained
    on.

    Args:
        root: folder.
        fold: not used.
        seed: not used.
        table: another list.
        images: folder of the images, with the folders of the list inside (voc_emotic_ava,
          blur_dataset, ...).
    """
    labels = ("labels_image.csv", "labels640.csv", "labels=640_padded.csv")
    pair = ("train_image_split.csv", "test_image_split.csv")
    about = (
        "lists: labels_image.csv (all), labels640.csv (test) and labels=640_padded.csv (is_valid marks validation) of"
        " niu-haoran/FLIVE_Database or baidut/PaQ-2-PiQ on GitHub, under these names; meta_info_FLIVEDataset.csv of pyiqa"
        " (chaofengc/IQA-PyTorch-Datasets-metainfo on Hugging Face); {train,test}_image_split.xlsx as nhshin-mcl/QCN uses"
        " them, exported as CSV. Images: FLIVE of Ying et al., From Patches to Pictures.\n"
        f"layout: <root>/{{{','.join(labels)}}}, <root>/meta_info_FLIVEDataset.csv or <root>/{{{','.join(pair)}}};"
        f" <root>/{images}/<path of the list>"
    )
    if not table and _there(root, pair):
        return _pair(root, "flive", about, images, pair)
    if not table and os.path.isfile(os.path.join(root, labels[0])):
        whole, test, padded = (read_table(file) for file in require(root, labels, about))
        records = _records(root, "flive", about, images, whole)
        held = dict.fromkeys(test.texts("name_image"), "test")
        flags = zip(padded.texts("name_image"), padded.texts("is_valid"), strict=True)
        held = {**{name: "val" for name, flag in flags if flag.lower() in ("true", "1")}, **held}
        return by_split(
            records, [held.get(name, "train") for name in whole.texts("name")], whole.path
        )
    lists = ("meta_info_FLIVEDataset.csv",)
    shape = {"lists": lists, "leave": r"patches/.*", "protocol": "official"}
    return _ten_splits(root, "flive", about, fold, seed, table, images, **shape)


def meta_info(root, *, fold, seed, table, images="images", protocol="random"):
    """Any set of rated images with a list as pyiqa writes them (meta_info_*.csv): name, mos and
    columns of splits.

    Protocols: "random": ten random splits; "official": the column official_split, set or split,
      without folds.

    Args:
        root: folder.
        fold: "0" to "9"; not used in the protocol "official".
        seed: of splits that are drawn.
        table: the list, under the root or a path of its own.
        images: folder of the images.
        protocol: see above.
    """
    about = (
        "lists: of pyiqa, meta_info_<name>Dataset.csv (chaofengc/IQA-PyTorch-Datasets-metainfo on Hugging Face), or your"
        " own in this form. Images: those of the list.\n"
        f"layout: <root>/{table or '<table>'} (config.data.table); <root>/{images}/<file of the list>"
    )
    return _ten_splits(root, "meta_info", about, fold, seed, table, images, protocol=protocol)


def _ten_splits(
    root, name, about, fold, seed, table, images, *, lists=(), pair=(), leave="", protocol="random"
):
    """The split that the lists have for a fold, or one that is drawn; or the official split.

    Args:
        lists: file names; the first that is there is the list of all images.
        pair: file names of the training and the test list of a split, "{}" for its number.
        leave: pattern of names of images that do not count.
    """
    if protocol not in ("random", "official"):
        raise ValueError(f"{name} has no protocol {protocol!r}; it is 'random' or 'official'")
    if protocol == "random" and fold not in FOLDS:
        raise ValueError(f"{name} has no fold {fold!r}; it is one of {list(FOLDS)}")
    if protocol == "random" and not table:
        own = [file.format(int(fold) + 1) for file in pair]
        if own and _there(root, own):
            return _pair(root, name, about, images, own)
    whole = _whole(root, table, lists, [file.format(1) for file in pair], about)
    tables = [_kept(part, leave) for part in whole]
    records = concatenate([_records(root, name, about, images, part) for part in tables])
    wanted = OFFICIAL if protocol == "official" else rf"ratio802_seed\d+_split_?0*{int(fold) + 1}"
    column = next((column for column in tables[0].names if re.fullmatch(wanted, column)), None)
    if column:
        called = CALLED if protocol == "official" else {"val": "test"}
        texts = [text for part in tables for text in part.texts(column)]
        return by_split(
            records,
            [called.get(text, text) for text in texts],
            f"{tables[0].path}, column {column!r},",
        )
    if protocol == "official":
        raise ValueError(
            f"{tables[0].path} has no column official_split, set or split; it has {list(tables[0].names)}"
        )
    return split_records(records, {"train": 0.8, "test": 0.2}, seed, fold)


def _there(root, files):
    return all(os.path.isfile(os.path.join(root, file)) for file in files)


def _pair(root, name, about, images, files):
    """The splits train and test from two lists."""
    tables = [read_table(file) for file in require(root, files, about)]
    parts = zip(("train", "test"), tables, strict=True)
    return {
        split: _records(root, f"{name} {split}", about, images, table) for split, table in parts
    }


def _whole(root, table, lists, pair, about):
    """Tables that name all images together: the one asked for, the first of `lists` there is, or
    both of `pair`."""
    if table:
        own = os.path.isfile(table) and not _there(root, [table])  # a path of its own
        return [read_table(table if own else require(root, [table], about)[0])]
    choices = [[file] for file in lists] + ([pair] if pair else [])
    found = next((files for files in choices if _there(root, files)), None)
    if found:
        return [_read(os.path.join(root, file)) for file in found]
    sheets = {file: os.path.splitext(file)[0] + ".xlsx" for files in choices for file in files}
    seen = {file: sheet for file, sheet in sheets.items() if _there(root, [sheet])}
    hints = [
        f"{sheet} is a spreadsheet: export its sheet as {file}\n" for file, sheet in seen.items()
    ]
    wanted = " or ".join(" with ".join(files) for files in choices) or "config.data.table"
    raise ValueError(f"missing under {os.path.abspath(root)}: {wanted}\n{''.join(hints)}{about}")


def _read(file):
    """A list, or the three MATLAB files of CLIVE as one."""
    if not file.endswith(".mat"):
        return read_table(file)
    keys = ("AllImages_release", "AllMOS_release", "AllStdDev_release")
    paths = require(
        os.path.dirname(file),
        [f"{key}.mat" for key in keys],
        "of CLIVE's folder Data all three files are needed",
    )
    names, scores, deviations = (
        matlab.read(path, [key])[0] for path, key in zip(paths, keys, strict=True)
    )
    rows = zip(names, map(str, scores), map(str, deviations), strict=True)
    return Table(file, ("image_name", "MOS", "std"), tuple(rows), tuple(range(1, len(names) + 1)))


def _kept(table, leave):
    if not leave:
        return table
    return table.where(
        [not re.fullmatch(leave, text) for text in table.texts(_column(table, NAMES, "names"))]
    )


def _records(root, name, about, images, table):
    path, score = _column(table, NAMES, "names"), _column(table, SCORES, "opinion scores")
    names = table.texts(path)
    if _plain(path) == "image number":  # BID's own list
        names = [f"DatabaseImage{number:04.0f}.JPG" for number in table.numbers(path)]
    splits = [column for column in table.names if re.fullmatch(f"{OFFICIAL}|{RANDOM}", column)]
    paths = [f"{images}/{name}" if images else name for name in names]
    columns = table.columns(leave=(path, score, *splits))
    return image_records(root, paths, table.numbers(score), name=name, about=about, columns=columns)


def _column(table, choices, what):
    """The column of a table that one of the dialects names so."""
    found = next((column for column in table.names if _plain(column) in choices), None)
    if found is None:
        raise ValueError(
            f"{table.path} has no column of {what}, one of {list(choices)}; it has {list(table.names)}"
        )
    return found


def _plain(column):
    return column.lower().replace("_", " ")
