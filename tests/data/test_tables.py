"""List files of every dialect, and what users get wrong in them; fixtures are made here."""

import csv
import io

import hypothesis
import numpy as np
import pandas
import pytest
from hypothesis import strategies
from scipy.io import savemat

from jaxord.data import matlab
from jaxord.data.tables import number, read_table


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
    np.testing.assert_array_equal(table.numbers("age", several=True), [5, 4, 7])
    with pytest.raises(ValueError, match="line 1: age '3 5 9' is not a number"):
        table.numbers("age")


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
    with pytest.raises(ValueError, match="a.xlsx is no table that pandas reads"):
        read_table(tmp_path / "a.xlsx")
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 text; an Excel workbook is called .xlsx"):
        read_table(tmp_path / "a.csv")
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


@pytest.mark.parametrize("text", "3 -3 +3 3. .5 2.5 1e3 1E-3 007".split())
def test_numbers(text):
    assert number(text) == float(text)


NO_NUMBERS = [
    "",
    "1 200",
    "10_19",
    "0_2",
    "1,5",
    "1.200,5",
    "nan",
    "inf",
    "1e99",
    "٣",
    "2020-01-02",
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0x10", "3-5", "5%", "--3"])
def test_what_is_no_number(tmp_path, text):
    assert number(text) is None
    file = write(tmp_path, "my.csv", f'path,label\na.jpg,3\nb.jpg,"{text}"\n')
    with pytest.raises(
        ValueError, match="my.csv, line 3: label .* is not a number .* decimal point"
    ):
        read_table(file).numbers("label")


def test_points_beside_decimal_commas_are_no_decimal_points(tmp_path):
    file = write(tmp_path, "my.csv", "path;label;name\na.jpg;0,5;1,5\nb.jpg;-12;b\n")
    assert read_table(file).numbers("label").tolist() == [0.5, -12]
    assert read_table(file).texts("name") == ["1,5", "b"]
    file = write(tmp_path, "my.csv", "path;label\na.jpg;0,5\nb.jpg;1.200\n")
    with pytest.raises(ValueError, match="line 3: label '1.200' is not .* one decimal comma"):
        read_table(file).numbers("label")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;\npath;label\na.jpg;3\n", [("a.jpg", "3")]),
        ("path,label\na.jpg,3\n,\n\n,\n", [("a.jpg", "3")]),
        ('path,label\n"a\nb.jpg",3\nc.jpg,4\n', [("a\nb.jpg", "3"), ("c.jpg", "4")]),
        ("path,label\r\na.jpg,NA\r\n", [("a.jpg", "NA")]),
    ],
    ids=["excel", "empty-rows", "line-break", "text-stays"],
)
def test_rows_as_people_have_them(tmp_path, text, expected):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "my.csv").write_bytes(text.encode(encoding))
        assert list(read_table(tmp_path / "my.csv").rows) == expected


def test_faults_after_a_line_break_name_their_line(tmp_path):
    file = write(tmp_path, "my.csv", 'path,label\n"a\nb.jpg",3\n"c.jpg",x\n')
    with pytest.raises(ValueError, match="line 4: label 'x'"):
        read_table(file).numbers("label")


def test_lists_without_a_header(tmp_path):
    file = write(tmp_path, "list.txt", "0.png, -1, 0.5\n1.png, -1, 1.5\n")
    table = read_table(file, header=False)
    assert table.names == ("0", "1", "2") and table.numbers("2").tolist() == [0.5, 1.5]


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "my.csv").write_bytes("path,ville\na.jpg,Besançon\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 2, byte 0xe7.*iconv -f WINDOWS-1252 -t UTF-8 "):
        read_table(tmp_path / "my.csv")
    (tmp_path / "my.csv").write_bytes("path,label\na.jpg,3\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="it looks like UTF-16LE; convert it: iconv"):
        read_table(tmp_path / "my.csv")
    (tmp_path / "my.csv").write_bytes("path,地方\na.jpg,北京\n".encode("gb18030"))
    with pytest.raises(ValueError, match="it looks like GB18030"):
        read_table(tmp_path / "my.csv")
    write(tmp_path, "my.csv", 'path,label\n"a.jpg,3\n')
    with pytest.raises(ValueError, match="line 2: .* a quote that is not closed"):
        read_table(tmp_path / "my.csv")


def test_excel_parquet_and_json_lines(tmp_path):
    frame = pandas.DataFrame({"path": ["a.png", "b.png"], "label": [1, 2.5], "id": ["0001", None]})
    frame.to_excel(tmp_path / "my.xlsx", index=False)
    frame.to_parquet(tmp_path / "my.parquet")
    frame.to_json(tmp_path / "my.jsonl", orient="records", lines=True)
    for suffix in ("xlsx", "parquet", "jsonl"):
        table = read_table(tmp_path / f"my.{suffix}")
        assert table.names == ("path", "label", "id") and table.numbers("label").tolist() == [
            1,
            2.5,
        ]
        assert table.texts("id") == ["0001", ""]
    write(tmp_path, "my.jsonl", '{"id": 16777217}\n{"id": }\n')
    with pytest.raises(ValueError, match="my.jsonl, line 2 is no JSON"):
        read_table(tmp_path / "my.jsonl")


FIELD = strategies.text(strategies.sampled_from("ab01 ,;'\"\néß_.-"), max_size=6)
# A row has text; a table has the header "path", "label", so that no field is mistaken for it.
ROWS = strategies.lists(strategies.tuples(FIELD.filter(str.strip), FIELD), min_size=1, max_size=6)


@hypothesis.given(ROWS, strategies.sampled_from(",;\t"), strategies.booleans(), strategies.data())
@hypothesis.settings(max_examples=150, deadline=None)
def test_tables_of_every_dialect_come_back(tmp_path_factory, rows, mark, excel, data):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=mark).writerows([("path", "label"), *rows])
    encoding = data.draw(strategies.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-32")))
    file = tmp_path_factory.mktemp("tables") / "my.csv"
    file.write_bytes((f"sep={mark}\r\n" * excel + text.getvalue()).encode(encoding))
    table = read_table(file, exact=True)
    assert table.names == ("path", "label") and list(table.rows) == rows
    lines = file.read_bytes().decode(encoding).split("\n")
    assert all(
        row[0].split("\n")[0][:1] in lines[n - 1] for n, row in zip(table.lines, rows, strict=True)
    )
