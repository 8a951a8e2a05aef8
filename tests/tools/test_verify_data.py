"""tools/verify_data.py: each kind of bad row is listed with its reason, wherever it lies."""

import pytest
from PIL import Image

from configs import folder, konvid
from jaxord import main
from jaxord.data import decode
from tools import verify_data

BAD = {  # path -> (label, what is said of it)
    "missing.png": ("1", "not there"),
    "../outside.png": ("1", "leads out of the root"),
    "zero bytes.png": ("1", "zero bytes"),
    "cut.jpg": ("1", "Truncated"),
    "text.png": ("1", "no image in a known format"),
    "bomb.png": ("1", "more than the limit of 600"),
    "word.png": ("young", "line 8: label 'young' is not a number"),
    "infinite.png": ("inf", "is not a number"),
    "old.png": ("7", "the label 7 is outside the ranks, 0 to 2"),
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 600)
    lines = [
        "path,label,split",
        *(
            f"{path},{label},{'test' if i % 2 else 'train'}"
            for i, (path, (label, _)) in enumerate(BAD.items())
        ),
    ]
    for i in range(3):
        lines += [f"good/{split} {i}.png,{i},{split}" for split in ("train", "val", "test")]
    (tmp_path / "good").mkdir()
    for name in [line.split(",")[0] for line in lines[1:]]:
        if name not in ("missing.png", "../outside.png"):
            Image.new("RGB", (30, 30) if name == "bomb.png" else (20, 20), "red").save(
                tmp_path / name
            )
    (tmp_path / "zero bytes.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-40])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    c = folder.get_config("backbone=tiny").unlock()
    c.data.root, c.data.table, c.ranks.labels = str(tmp_path), "table.csv", (0.0, 1.0, 2.0)
    return c


def test_every_bad_row_is_listed_once_with_its_reason(config, monkeypatch, capsys):
    monkeypatch.setattr(main, "parse", lambda arguments: None)
    monkeypatch.setattr(main, "check", lambda mode: None)
    monkeypatch.setattr(main, "read_config", lambda: config)
    assert verify_data.run([]) == 1
    *lines, train, val, test, last = capsys.readouterr().out.splitlines()
    found = [line.split("\t") for line in lines]
    assert sorted(path for _, _, path, _ in found) == sorted(BAD)
    for split, row, path, reason in found:
        assert BAD[path][1] in reason
        assert split == ("test" if list(BAD).index(path) % 2 else "train") and 0 <= int(row) < 8
    assert (train, val, test) == (
        "train: 8 rows, 5 bad",
        "val: 3 rows, 0 bad",
        "test: 7 rows, 4 bad",
    ) and last == "bad: 9"
    table = config.data.root + "/table.csv"
    kept = [line for line in open(table) if line.split(",")[0] not in BAD]
    open(table, "w").writelines(kept)
    assert verify_data.run([]) == 0 and capsys.readouterr().out.endswith(
        "test: 3 rows, 0 bad\nall rows are good\n"
    )


def test_what_no_row_is_to_blame_for_is_a_fault_too(config):
    config.data.table = "nowhere.csv"
    ((_, row, _, reason),), sizes = verify_data.verify(config)
    assert row == -1 and "nowhere.csv" in reason and not sizes


def test_videos_are_decoded_and_nothing_is_extracted(tmp_path):
    pytest.importorskip("av")
    from tests.data.test_videos import film

    for i in range(5):
        film(tmp_path / f"videos/{i}.mp4", 4)
    (tmp_path / "videos/2.mp4").write_bytes(b"no video")
    (tmp_path / "videos/4.mp4").unlink()
    (tmp_path / "KoNViD_1k_mos.csv").write_text(
        "flickr_id,mos\n" + "".join(f"{i},3\n" for i in range(5))
    )
    c = konvid.get_config("fold=0,method=conord").unlock()
    c.data.root = str(tmp_path)
    rows, sizes = verify_data.verify(c)
    assert {row.path for row in rows} == {"videos/2.mp4", "videos/4"} and sum(sizes.values()) == 5
    assert (
        all(row.split.endswith("fold 0") for row in rows) and not (tmp_path / "extracted").exists()
    )
