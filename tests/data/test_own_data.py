"""A user's folders and tables: read as documented or refused, never as something else."""

import os
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from jaxord.data import readers
from jaxord.data.inputs import files
from jaxord.data.rank_order import KnownRanks, labels_of
from jaxord.data.readers import sources
from jaxord.data.records import IMAGES, SPLITS
from jaxord.evaluate import score
from jaxord.metrics import accuracy, qwk, ranked_probability_score
from jaxord.targets.ranks import make_ranks
from jaxord.task import understood
from tests.data.files import touch
from tests.data.test_sources import config, write

ALL = {"fold": "", "seed": 0, "fractions": (0, 0, 1)}


def named(*names, labels=()):
    """The ranks of a config."""
    return types.SimpleNamespace(names=names, labels=labels, bins=10)


def of_run(*names):
    """The ranks of a run."""
    return make_ranks(np.arange(float(len(names))), names, np.zeros(0))


def tree(root, *folders):
    touch(root, *(f"{folder}/{n}.png" for folder in folders for n in range(2)))
    return root


def read(root, **settings):
    """{name of the rank: label} of a folder."""
    records = sources.own(root, **{**ALL, **settings})["test"]
    return dict(zip(records.columns["rank_name"].tolist(), records.targets.tolist(), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ("0_2", "4_6", "8_13", "15_20"),
        ("grade1", "grade2", "grade10"),
        ("(0, 2)", "(4, 6)", "(25, 32)", "(60, 100)"),
        ("18-24", "25-34", "60+"),
        ("1930s", "1940s", "2000s"),
        ("low", "medium", "high"),
        ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"),
        ("Poor", "Fair", "Good", "Excellent"),
        ("Stage I", "Stage II", "Stage III", "Stage IV", "Stage V"),
        ("one", "two", "three"),
    ],
)
def test_names_with_an_order(tmp_path, names):
    labels = read(tree(tmp_path, *names))
    assert sorted(labels, key=labels.get) == list(names)
    assert sorted(labels.values()) == list(range(len(names)))
    (note,) = sources.own(tmp_path, **ALL)["test"].notes
    assert " < ".join(names) in note and "another order: --config.ranks.names=" in note


@pytest.mark.parametrize(
    "names",
    [
        ("bad", "best", "poor"),
        ("high", "low", "unknown"),
        ("1_200", "2_250", "3_300"),
        ("1 200", "2 250"),
        ("-10C", "-5C"),
        ("2020-01-02", "2021-01-02"),
        ("cat1", "dog2"),
        ("20-10", "30-40"),
    ],
)
def test_names_without_an_order_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="order of the ranks .* is unknown; .*config.ranks.names="):
        read(tree(tmp_path, *names))
    # The names of the config give any order.
    assert read(tmp_path, ranks=named(*names)) == dict(zip(names, range(len(names)), strict=True))


def test_names_of_ranks_give_the_order_or_rename(tmp_path):
    tree(tmp_path, "high", "low", "medium")
    assert read(tmp_path, ranks=named("high", "medium", "low"))["low"] == 2
    assert read(tmp_path, ranks=named("LOW", "Medium", "high"))["low"] == 0
    labels = named("low", "medium", "high", labels=(1.0, 5.0, 9.0))
    assert read(tmp_path, ranks=labels)["medium"] == 5
    # Other names are texts for the ranks as they are.
    assert read(tmp_path, ranks=named("a", "b", "c")) == {"low": 0, "medium": 1, "high": 2}
    with pytest.raises(ValueError, match=r"ranks.names lacks \['high', 'medium'\]"):
        read(tmp_path, ranks=named("low", "b", "c"))


def test_a_run_knows_its_ranks(tmp_path):
    run = of_run("grade1", "grade2", "grade3", "grade4")
    tree(tmp_path / "a", "grade1", "grade3", "grade4")
    assert read(tmp_path / "a", ranks=run) == {"grade1": 0, "grade3": 2, "grade4": 3}
    tree(tmp_path / "b", "grade1", "grade5")
    with pytest.raises(ValueError, match=r"unknown ranks \['grade5'\]; the run's ranks are \['gra"):
        read(tmp_path / "b", ranks=run)
    touch(tmp_path, "0.png", "1.png")
    write(tmp_path, "my.csv", "path,label\n0.png,grade4\n1.png,grade1\n")
    records = sources.own(tmp_path, table="my.csv", ranks=run, **ALL)["test"]
    assert records.targets.tolist() == [3, 0]


def test_splits_in_any_case_and_mixtures(tmp_path):
    tree(tmp_path, *(f"{split}/{rank}" for split in ("Train", "TESTING") for rank in "012"))
    splits = sources.folder(tmp_path, fold="", seed=0)
    assert {split: len(part) for split, part in splits.items()} == {"train": 6, "test": 6}
    (tmp_path / "Train/3").mkdir()
    (tmp_path / "TESTING/0/sub").mkdir()
    with pytest.raises(ValueError, match=r"no images in \['Train/3'\]"):
        read(tmp_path)
    tree(tmp_path, "Train/3")
    (tmp_path / "TESTING/3").mkdir()
    assert len(sources.folder(tmp_path, fold="", seed=0)["train"]) == 8
    touch(tmp_path, "TESTING/3/a.heic")
    with pytest.raises(ValueError, match=r"no images in \['TESTING/3'\] .*1 .heic"):
        read(tmp_path)
    tree(tmp_path, "3")
    with pytest.raises(ValueError, match=r"splits \['TESTING', 'Train'\] lie beside \['3'\]"):
        read(tmp_path)


def test_suffixes_and_empty_ranks(tmp_path):
    tree(tmp_path, "0", "1")
    touch(tmp_path, "2/a.jfif", "2/b.JPE", "2/note.txt", "labels.csv")
    records = sources.own(tmp_path, **ALL)["test"]
    assert records.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert records.notes == ("passed over, as no images: 1 .txt, 1 .csv",)
    touch(tmp_path, "3/a.heic")
    with pytest.raises(ValueError, match=r"no images in \['3'\] \(3: passed over, .*: 1 .heic\)"):
        read(tmp_path)
    os.remove(tmp_path / "3/a.heic")
    with pytest.raises(ValueError, match=r"no images in \['3'\] \(3: it is empty\)"):
        read(tmp_path)


def test_ranks_inside_other_folders_are_told(tmp_path):
    tree(tmp_path / "a", *(f"{camera}/{rank}" for camera in ("cam1", "cam2") for rank in "012"))
    with pytest.raises(ValueError, match=r"each of \['cam1', 'cam2'\] has the folders \['0', '1'"):
        read(tmp_path / "a")
    tree(tmp_path / "b", *(f"{rank}/{camera}" for camera in ("cam1", "cam2") for rank in "012"))
    assert read(tmp_path / "b") == {"0": 0, "1": 1, "2": 2}


def test_links_to_folders_and_home(tmp_path, monkeypatch):
    root = tree(tmp_path / "root", "0", ".store/1")
    os.symlink(root / ".store/1", root / "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/root") == {"0": 0, "1": 1}
    tree(tmp_path / "outside")
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", root / "2")
    with pytest.raises(ValueError, match="root/2 is a link that leaves the root, to .*outside"):
        read(root)
    os.remove(root / "2")
    os.symlink(root, root / "0/back")
    with pytest.raises(ValueError, match="0/back is a link that leads back"):
        read(root)


def test_names_that_differ_in_case_only(tmp_path):
    tree(tmp_path, "a", "A")
    assert read(tmp_path, ranks=named("a", "A")) == {"a": 0, "A": 1}
    with pytest.raises(ValueError, match="order of the ranks 'A', 'a' is unknown"):
        read(tmp_path)


def test_the_same_number_twice(tmp_path):
    with pytest.raises(ValueError, match="'01' and '1' are the same number"):
        read(tree(tmp_path, "01", "1"))


NAME = strategies.text(strategies.sampled_from("012ab_- "), min_size=1, max_size=4)
NAMES = strategies.lists(NAME.filter(lambda name: name.strip(" ")), min_size=2, max_size=4)


@hypothesis.given(NAMES.map(set).filter(lambda names: len(names) > 1), strategies.booleans())
@hypothesis.settings(max_examples=300, deadline=None)
def test_names_are_ordered_as_documented_or_refused(names, closed):
    """Numbers are themselves; of other names one number, and nothing else, decides."""
    try:
        labels, note = labels_of(sorted(names), KnownRanks({}, closed), "here")
    except ValueError as error:
        assert str(error).startswith("here: ")
        return
    assert set(labels) == names and len(set(labels.values())) == len(names)
    if not note:
        assert labels == {name: float(name) for name in names} and not any("_" in n for n in names)
        return
    order = sorted(names, key=labels.get)
    starts = [float("".join(c if c in "012" else " " for c in name).split()[0]) for name in order]
    assert not closed and starts == sorted(set(starts))


@hypothesis.given(strategies.data())
@hypothesis.settings(max_examples=40, deadline=None)
def test_trees_are_read_as_documented_or_refused(tmp_path_factory, data):
    draw = data.draw
    root = tmp_path_factory.mktemp("tree")
    ranks = draw(strategies.lists(strategies.sampled_from("0123"), min_size=2, unique=True))
    tops = draw(strategies.sampled_from([[""], ["Train", "test"], ["training", "VAL", "Testing"]]))
    suffixes = strategies.sampled_from([".jpg", ".JPEG", ".jfif", ".png", ".heic", ".txt"])
    paths = [
        f"{top}/{rank}/{n}{suffix}".lstrip("/")
        for top in tops
        for rank in ranks
        for n, suffix in enumerate(draw(strategies.lists(suffixes, min_size=1, max_size=3)))
    ]
    touch(root, *paths)
    images = {path for path in paths if path.lower().endswith(IMAGES)}
    try:
        splits = sources.folder(root, fold="", seed=0)
    except ValueError as error:
        assert {os.path.dirname(path) for path in images} != {os.path.dirname(p) for p in paths}
        assert "no images in" in str(error) or "no images under" in str(error)
        return
    rows = [
        (split, path, label)
        for split, part in splits.items()
        for path, label in zip(part.paths, part.targets, strict=True)
    ]
    assert {path for _, path, _ in rows} == images
    assert all(float(path.split("/")[-2]) == label for _, path, label in rows)
    if len(tops) > 1:
        assert all(SPLITS[path.split("/")[0].lower()] == split for split, path, _ in rows)


def test_kept_columns_keep_their_text(tmp_path):
    touch(tmp_path, "0.png", "1.png")
    write(
        tmp_path,
        "my.csv",
        "path,label,patient,code\n0.png,0,16777216,000001\n1.png,1,16777217, x\n",
    )
    columns = sources.own(tmp_path, table="my.csv", **ALL)["test"].columns
    assert columns["patient"].tolist() == ["16777216", "16777217"]
    assert columns["code"].tolist() == ["000001", " x"]


def test_labels_that_are_words(tmp_path):
    touch(tmp_path, "0.png", "1.png", "2.png")
    write(tmp_path, "my.csv", "path,label\n0.png,low\n1.png,medium\n2.png,high\n")
    command = r"--config.ranks.names=\"\('low', 'medium', 'high'\)\""
    with pytest.raises(ValueError, match=f"words, such as 'low' in line 2, .*{command}"):
        sources.own(tmp_path, table="my.csv", **ALL)
    ranks = named("high", "medium", "low")
    records = sources.own(tmp_path, table="my.csv", ranks=ranks, **ALL)["test"]
    assert records.targets.tolist() == [2, 1, 0]
    assert records.columns["rank_name"].tolist() == ["low", "medium", "high"]
    for wrong in ("", "1 200", "nan", "2020-01-02"):
        write(tmp_path, "my.csv", f"path,label\n0.png,{wrong}\n1.png,{wrong}\n")
        with pytest.raises(ValueError, match=f"line 2: label '{wrong}' is not a number"):
            sources.own(tmp_path, table="my.csv", ranks=ranks, **ALL)


def test_a_column_of_rank_names_is_checked(tmp_path):
    touch(tmp_path, "0.png", "1.png")
    write(tmp_path, "my.csv", "path,label,rank_name\n0.png,0,1\n1.png,0,2\n")
    with pytest.raises(ValueError, match="line 3: label 0 has the rank_name '2', expected '1'"):
        sources.own(tmp_path, table="my.csv", **ALL)


def test_a_training_table_works_in_predict(tmp_path):
    touch(tmp_path, "images/044240b.jpeg", "images/1.png")
    write(tmp_path, "my.csv", "id_code;diagnosis\n044240b;0\n1.png;1\n")
    settings = {"path_column": "id_code", "images": "images", "suffix": "jpeg"}
    train = sources.own(tmp_path, table="my.csv", label_column="diagnosis", **settings, **ALL)
    assert train["test"].paths == ("images/044240b.jpeg", "images/1.png")
    names, paths = files(tmp_path / "my.csv", "", IMAGES, "images", settings)
    assert names == ["044240b", "1.png"]
    assert paths == [str(tmp_path / path) for path in train["test"].paths]
    write(tmp_path, "list.txt", "images/1.png, -1, 0.5\n")
    numbered = {"path_column": "0", "label_column": "2"}
    assert sources.own(tmp_path, table="list.txt", **numbered, **ALL)["test"].targets == [0.5]
    assert files(tmp_path / "list.txt", "", IMAGES, "images", numbered)[0] == ["images/1.png"]


def test_load_gives_readers_the_ranks(tmp_path):
    touch(tmp_path, "train/b/0.png", "train/a/1.png", "test/a/0.png")
    data = config({"name": "sources.own"}, tmp_path)
    splits = readers.load(data, "", 0, named("b", "a"))
    assert splits["train"].targets.tolist() == [1, 0] and splits["test"].targets.tolist() == [1]


def task_of(root, ranks):
    splits = sources.own(root, fold="", seed=0)
    splits = {name: types.SimpleNamespace(records=records) for name, records in splits.items()}
    shots = types.SimpleNamespace(kind="")
    return types.SimpleNamespace(
        splits=splits, ranks=ranks, config=types.SimpleNamespace(shots=shots)
    )


def test_what_was_understood(tmp_path):
    tree(tmp_path, *(f"train/{rank}" for rank in "0123"), *(f"test/{rank}" for rank in "01234"))
    touch(tmp_path, "train/0/notes.txt")
    task = task_of(tmp_path, of_run("0", "1", "2", "3"))
    assert understood(task, task.splits["train"].records.targets) == [
        "ranks  4 from 0 to 3: 0 (2), 1 (2), 2 (2), 3 (2)",
        "       train/0/0.png: label 0, rank 0",
        "       train/1/1.png: label 1, rank 1",
        "       train/3/1.png: label 3, rank 3",
        "passed over, as no images: 1 .txt",
        "2 rows of test have labels that training never saw: 4; those beyond the ranks count as "
        "errors",
    ]


def test_a_label_beyond_the_ranks_is_an_error(tmp_path):
    """Clipped onto rank 3, the label 4 would be right."""
    tree(tmp_path, *(f"train/{rank}" for rank in "0123"), *(f"test/{rank}" for rank in "01234"))
    task = task_of(tmp_path, of_run("0", "1", "2", "3"))
    targets = task.splits["test"].records.targets
    clipped = np.minimum(targets, 3)
    logits = 100 * np.eye(4)[clipped.astype(int)]
    scorers = {"accuracy": accuracy, "qwk": qwk, "rps": ranked_probability_score}
    scores = score(task, scorers, {"logits": logits}, {"mean": clipped}, targets)
    assert scores["mean"]["accuracy"] == 0.8
    assert scores["mean"]["qwk"] == pytest.approx(qwk(clipped.astype(int), targets.astype(int)))
    assert scores["model"]["rps"] == pytest.approx(0.2)


def test_which_labels_lie_beyond_the_ranks():
    def beyond(values, *labels):
        names = tuple(map(str, values))
        ranks = make_ranks(np.array(values, float), names, np.zeros(0))
        return ranks.beyond(np.array(labels, np.float32)).tolist()

    assert beyond([0, 1, 3], -1, 0, 2, 2.7, 3.4, 4) == [True, False, True, False, False, True]
    assert beyond([1, 1.5, 2], 2.5, 2.2) == [True, False]
    # Real numbers: a label between two others is near one of them.
    assert beyond([0.1, 0.37, 2.9, 4.4], 1.5, 4.8, 9) == [False, False, True]
    bins = make_ranks(np.array([0.0, 10.0]), ("a", "b"), np.array([0.0, 10.0]))
    assert bins.beyond(np.array([50.0])).tolist() == [False]
