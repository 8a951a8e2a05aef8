"""List files of every dialect, and what users get wrong in them; fixtures are made here."""

import numpy as np
import pytest
from scipy.io import savemat

from jaxord.data import matlab
from jaxord.data.tables import read_table


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("age file\n20 a.jpg\n31 b.jpg\n", ()),
        (",age,file\n7,20,a.jpg\n9,31,b.jpg\n", ()),
        ("age file\n7 20 a.jpg\n9 31 b.jpg\n", ()),
        ("\ufeffage\tfile\r\n20\ta.jpg\r\n\r\n31\tb.jpg\r\n", ()),
        ('age;file\n"20,0";a.jpg\n31,0;b.jpg\n', ()),
        ("20 a.jpg\n31 b.jpg\n", ("age", "file")),
        ("20\ta.jpg\n31\tb.jpg\n", ("age", "file")),
        ("age,file\n20,a.jpg\n31,b.jpg\n", ("age", "file")),
    ],
    ids=[
        "blank",
        "index",
        "blank-index",
        "tab-bom-crlf",
        "semicolon",
        "no-header",
        "tab-no-header",
        "header-after-all",
    ],
)
def test_dialects(tmp_path, text, names):
    table = read_table(write(tmp_path, "list.txt", text), names)
    assert table.names == ("age", "file")
    np.testing.assert_array_equal(table.numbers("age"), np.array([20, 31], np.float32))
    assert table.texts("file") == ["a.jpg", "b.jpg"]


def test_several_labels_take_the_middle(tmp_path):
    table = read_table(
        write(tmp_path, "ET_proto_train.txt", "a.jpg 3 5 9\nb.jpg 4\nc.jpg 1 2 7 8\n"),
        ("path", "age"),
    )
    np.testing.assert_array_equal(table.numbers("age"), [5, 4, 7])


def test_quotes_in_csv_and_in_tab_files(tmp_path):
    assert read_table(write(tmp_path, "a.csv", 'path,age\n"a, b.jpg",3\n')).texts("path") == [
        "a, b.jpg"
    ]
    assert read_table(write(tmp_path, "a.tsv", 'text\tscore\n"quoted\t1\n')).texts("text") == [
        '"quoted'
    ]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("path,age\na.jpg,3\nb.jpg,old\n", (), r"list.txt, line 3: age 'old' is not a number"),
        ("a.jpg 3\n\nb.jpg\n", ("path", "age"), r"line 3: 1 fields, expected 2"),
        ("path,age\na.jpg,nan\n", (), r"line 2: age 'nan' is not a number"),
        ("path,age\na.jpg,3,4\n", (), r"line 2: 3 fields, expected 2"),
        ("path,years\na.jpg,3\n", (), r"no column 'age'; it has \['path', 'years'\]"),
        ("path,Age\na.jpg,3\n", (), r"Did you mean 'Age'"),
        ("path,age\n", (), r"a header but no rows"),
        ("\n", (), r"is empty"),
    ],
)
def test_bad_lists_name_file_line_and_text(tmp_path, text, names, message):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, "list.txt", text), names).numbers("age")


def test_spreadsheet_is_refused(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 text; export a spreadsheet as CSV"):
        read_table(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match="cannot read .*nothing.csv: No such file"):
        read_table(tmp_path / "nothing.csv")


def test_matlab_files_and_what_is_none(tmp_path):
    savemat(tmp_path / "a.mat", {"mos": np.array([1.0, 2.0])})
    assert matlab.read(tmp_path / "a.mat", ["mos"])[0] == [1, 2]
    (tmp_path / "b.mat").write_bytes(b"not a matrix")
    for file, variable in (("a.mat", "names"), ("b.mat", "mos"), ("c.mat", "mos")):
        with pytest.raises(
            ValueError, match=f"{file} is no MATLAB file .*{variable}.*export it as CSV"
        ):
            matlab.read(tmp_path / file, [variable])
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[176] = 14  # numbers become an array of arrays: scipy reads where it has no memory
    (tmp_path / "d.mat").write_bytes(data)
    with pytest.raises(ValueError, match="d.mat is no MATLAB file .*its reader died by signal 11"):
        matlab.read(tmp_path / "d.mat", ["mos"])
