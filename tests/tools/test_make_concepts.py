"""Concept files: the answers of a server of the test's own, good, malformed and hostile; and the
files that are shipped."""

import contextlib
import http.server
import importlib
import io
import json
import sys
import threading
import time
import types

import numpy as np
import pytest

from configs import texts
from jaxord.models import tokens
from jaxord.targets import ranks
from tests.conftest import write_vocabulary
from tools import make_concepts
from tools.make_concepts import make, parse

AGES = [
    ("child", 0, 12),
    ("teenager", 13, 18),
    ("young adult", 19, 34),
    ("middle adult", 35, 64),
    ("older adult", 65, 100),
]
LINES = "\n".join(f"{text}: {low}-{high}" for text, low, high in AGES)
SHIPPED = sorted(file.stem for file in texts.CONCEPTS.glob("*.json"))


def found(rows):
    return [{"text": text, "low": low, "high": high} for text, low, high in rows]


def chat(content, **more):
    return (
        200,
        json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}),
        more,
    )


@contextlib.contextmanager
def serving(*replies):
    """A server that gives the replies (status, body, headers) in turn; yields (address, what was
    asked)."""
    asked, waiting = [], list(replies)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), json.loads(body)))
            status, text, headers = waiting.pop(0)
            if status is None:
                return  # closes the connection without a word
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may have left
                for piece in [text] if isinstance(text, str) else text:
                    self.wfile.write(piece.encode())

        def do_GET(self):
            asked.append((self.path, dict(self.headers), None))

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(
        target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize(
    "answer",
    [
        LINES,
        json.dumps(found(AGES)),
        "Sure! Here is a list:\n```json\n"
        + json.dumps({"concepts": found(AGES)}, indent=2)
        + "\n```\nAnything else?",
        "<think>baby: 0-2?</think>Here are 5 ranges for 0-100:\n\n1. **child** (ages 0 to 12)\n"
        '2. **teenager:** 13\u201318 years\n- "young adult": 19 to 34\n'
        "* middle adult [35\u201464]\nolder adult : from 65 to 100 years old.\n",
    ],
)
def test_forms_of_an_answer(answer):
    assert parse(answer) == found(AGES)


def test_negative_single_and_real_numbers():
    rows = [("freezing", -20, -10), ("cold", -10, 0.5), ("zero", 0, 0)]
    assert parse("freezing: -20--10\ncold: \u221210 to 0.5\nzero: 0") == found(rows)


@pytest.mark.parametrize(
    "answer, fault",
    [
        ("I cannot do that.", "no line of the answer has the form"),
        ("", "no line"),
        (LINES.replace("13", "14"), "'teenager' starts at 14.0, expected 13"),  # a gap
        (LINES.replace("13", "12"), "'teenager' starts at 12.0, expected 13"),  # an overlap
        ("\n".join(reversed(LINES.splitlines())), "'older adult' starts at 65.0, expected 0"),
        (LINES.replace("100", "99"), "'older adult', ends at 99.0; expected 100"),
        (LINES.replace("65-100", "65+"), "'older adult', ends at 65.0"),
        (LINES.replace("0-12", "0-12.5"), "'child' is 0.0 to 12.5, on a scale by 1"),
        (LINES.replace("13-18", "13-10"), "'teenager' is 13.0 to 10.0"),
        (LINES.replace("older adult", "Young  Adult"), "'Young  Adult' stands twice"),
        (LINES.replace("older adult", "\uff59oung_adult"), "stands twice"),  # a full-width y
        (LINES.rpartition("\n")[0], "found 4 ranges, expected 5"),
        (LINES + "\ngod: 101-1000", "found 6 ranges"),
        (LINES.replace("child", "c" * 41), "at most 40 printable characters"),
        (LINES.replace("child", "chi\u202eld"), r"'chi\\u202eld'"),
        (LINES.replace("child", "\x1b]0;owned\x07child"), r"\\x1b"),
        (LINES.replace("child", "***"), "expected words"),
        (LINES.replace("child", "\u5b50" * 20), "has 61 tokens"),
        ("x" * 30_000, "more than 20000 characters"),
        ("[{" * 5_000, "Expecting|nested without end"),
        ('[{"a":' + "[" * 9_000, "Expecting|nested without end"),  # by the version of Python
        ('{"concepts": 5}', "no list"),
        ('{"child": [0, 12]}', "no list"),
        (json.dumps(["child: 0-12"] * 5), "no line|object with text"),
        ('[{"text": "a"}, 1, 2, 3, 4]', "expected an object"),
        (json.dumps(found(AGES)).replace('"child"', "7"), "a text is 7"),
        (json.dumps(found(AGES)).replace('"child"', r'"\ud800"'), r"\\ud800"),
        (
            json.dumps(found(AGES)).replace("12", '"12"'),
            "high of 'child' is '12'; expected a number",
        ),
        (json.dumps(found(AGES)).replace("12", "true"), "is True"),
        (json.dumps(found(AGES)).replace("100", "NaN"), "is nan"),
        (json.dumps(found(AGES)).replace("100", "1e999"), "is inf"),
        (json.dumps(found(AGES)).replace("100", "9" * 4_000), "expected a number"),
        (json.dumps(found(AGES)).replace("100", "9" * 9_000), "digits"),
    ],
)
def test_faults_of_an_answer(answer, fault):
    with pytest.raises(ValueError, match=fault) as error:
        make(lambda messages: answer, "age", 0, 100, attempts=1)
    assert str(error.value).replace("\n", "").isprintable() and len(str(error.value)) < 400


def test_a_scale_of_real_numbers_adjoins():
    rows = [("cold", -20, 0), ("mild", 0, 20.5), ("hot", 20.5, 49)]
    made = make(
        lambda messages: json.dumps(found(rows)),
        "temperature",
        -20,
        49,
        step=0,
        count=3,
        unit="degrees",
    )
    assert [c["centre"] for c in made["concepts"]] == [-10, 10.25, 34.75]
    assert (made["low"], made["high"], made["step"], made["unit"]) == (-20, 49, 0, "degrees")
    with pytest.raises(ValueError, match="starts at 1.0, expected 0"):
        make(
            lambda messages: "a: -20 to 0\nb: 1 to 20\nc: 20 to 49",
            "t",
            -20,
            49,
            step=0,
            count=3,
            attempts=1,
        )
    with pytest.raises(ValueError, match="'b' is 0.0 to 0.0"):
        make(
            lambda messages: "a: -20 to 0\nb: 0 to 0\nc: 0 to 49",
            "t",
            -20,
            49,
            step=0,
            count=3,
            attempts=1,
        )


@pytest.mark.parametrize(
    "task, low, high, step, count, fault",
    [
        ("age {}", 0, 100, 1, 5, "without braces"),
        ("a\nb", 0, 100, 1, 5, "printable"),
        ("age", 100, 0, 1, 5, "low < high"),
        ("age", float("nan"), 100, 1, 5, "low is nan"),
        ("age", 0, float("inf"), 1, 5, "high is inf"),
        ("age", 0, 100, 3, 5, "whole steps"),
        ("age", 0, 100, -1, 5, "from 0 to 100 by -1"),
        ("age", 0, 100, 1, 1, "count is 1"),
        ("age", 0, 3, 1, 5, "no more than there are labels"),
    ],
)
def test_a_question_that_makes_no_sense_is_not_asked(task, low, high, step, count, fault):
    with pytest.raises(ValueError, match=fault):
        make(None, task, low, high, step=step, count=count)


def test_the_fault_goes_back_to_the_model_and_attempts_end():
    answers, seen = [LINES.replace("13", "14"), "no", LINES], []

    def ask(messages):
        seen.append(list(messages))
        return answers[len(seen) - 1]

    made = make(ask, "age of a person", 0, 100, unit="years")
    assert [len(messages) for messages in seen] == [1, 3, 5]
    assert [message["role"] for message in seen[2]] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert (
        "starts at 14.0, expected 13" in seen[1][2]["content"]
        and seen[1][1]["content"] == answers[0]
    )
    question = seen[0][0]["content"]
    assert all(
        words in question
        for words in (
            "age of a person, years",
            "exactly 5",
            "0 to 100",
            "whole numbers",
            "1 higher",
        )
    )
    assert made["source"] == {"question": question}
    seen.clear()
    with pytest.raises(ValueError, match="no answer of 2 can be used:\n  .*14.0.*\n  no line"):
        make(ask, "age", 0, 100, attempts=2)
    assert len(seen) == 2


def test_texts_must_pass_clips_vocabulary(tmp_path):
    write_vocabulary(tmp_path)
    words = tokens.clip_tokenizer(tmp_path)
    make_concepts.check_tokens(["child", "older adult"], words)
    with pytest.raises(ValueError, match="same tokens"):
        make_concepts.check_tokens(["child", "Child"], words)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    vocabulary["@@"] = vocabulary.pop(
        "z</w>"
    )  # a vocabulary that lacks a letter at the end of a word
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match="'quiz' has .* tokens; expected"):
        make_concepts.check_tokens(["quiz", "child"], tokens.clip_tokenizer(tmp_path))


def test_the_command_with_a_server(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    with serving(chat(LINES.replace("100", "90")), chat("Of course.\n" + LINES)) as (
        address,
        asked,
    ):
        make_concepts.main(
            [
                "--task=Age of the person",
                "--unit=years",
                "--low=0",
                "--high=100",
                f"--address={address}/",
                "--model=some-model",
            ],
            tmp_path,
        )
    path, headers, body = asked[1]
    assert (
        path == "/v1/chat/completions"
        and headers["Authorization"] == "Bearer sk-secret"
        and body["model"] == "some-model"
    )
    assert len(asked) == 2 and len(body["messages"]) == 3
    file = tmp_path / "age_of_the_person.json"
    assert "sk-secret" not in file.read_text() and str(file) in capsys.readouterr().out
    made = json.loads(file.read_text())
    assert made["concepts"] == json.loads((texts.CONCEPTS / "age.json").read_text())["concepts"]
    assert {"model": "some-model", "address": f"{address}/"}.items() <= made["source"].items()
    assert made["source"]["date"].startswith("20") and "exactly 5" in made["source"]["question"]
    assert texts.concept_ranks(str(file)) == texts.concept_ranks("age")


def endless():
    for _ in range(3_000):
        yield "x" * 1_000


def dripping():
    for _ in range(100):
        time.sleep(0.05)
        yield "x"


@pytest.mark.parametrize(
    "reply, fault",
    [
        ((500, "\x1b[31mout of memory", {}), r"answers 500, '\\x1b\[31mout of memory'"),
        ((401, '{"error": "wrong key sk-secret"}', {}), r"answers 401, .*wrong key \*\*\*"),
        ((302, "", {"Location": "/v1/elsewhere"}), "answers 302"),
        ((200, "<html>", {}), "'<html>'; expected 200 and a message"),
        ((200, '{"choices": []}', {}), "expected 200 and a message"),
        ((200, "[]", {}), "expected 200 and a message"),
        (chat(None), "expected 200 and a message"),
        (chat(["sk-secret"]), r"\[\"\*\*\*\"\].*expected 200 and a message"),
        ((200, "[" * 100_000, {}), "expected 200 and a message"),
        ((200, "{}", {"Content-Length": "1000"}), "expected 200 and a message"),
        ((200, endless(), {}), "more than 1000000 bytes"),
        ((200, dripping(), {}), "for more than 0.5 s"),
        ((None, "", {}), "cannot be asked"),
    ],
)
def test_a_server_that_fails_or_means_harm(reply, fault, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(reply) as (address, asked):
        with pytest.raises(ValueError, match=fault) as error:
            make_concepts.server(address, "m", timeout=0.5)([{"role": "user", "content": "?"}])
    assert (
        "sk-secret" not in str(error.value)
        and "\x1b" not in str(error.value)
        and len(str(error.value)) < 500
    )
    assert len(asked) == 1  # no redirect is followed


def test_a_key_that_comes_back_is_not_written(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(chat(LINES.replace("child", "sk-secret"))) as (address, _):
        with pytest.raises(ValueError, match="expected words"):
            make(make_concepts.server(address, "m"), "age", 0, 100, attempts=1)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\u00e9secret")
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds") as error:
        make_concepts.server(address, "m")
    assert "secret" not in str(error.value)


def test_addresses_that_are_refused():
    for address in (
        "file:///etc/passwd",
        "ftp://host",
        "localhost:8000",
        "http://",
        "http://user:word@host",
        "https://host?key=1",
    ):
        with pytest.raises(ValueError, match="--address is"):
            make_concepts.server(address, "m")
    with pytest.raises(ValueError, match="needs --model"):
        make_concepts.server("http://localhost/v1", "")
    with serving() as (address, _):
        pass
    for gone in (address, "http://a b/v1", "http://127.0.0.1:port/v1"):
        with pytest.raises(ValueError, match="cannot be asked"):
            make_concepts.server(gone, "m")([])


def test_the_file_stays_in_its_folder_and_overwrites_nothing(tmp_path):
    for output in (
        "../x.json",
        "/x.json",
        "a/b.json",
        "a\\b.json",
        "..json",
        ".x.json",
        "x.py",
        "x\n.json",
        "\u00e9.json",
    ):
        with pytest.raises(ValueError, match="the file's name is"):
            make_concepts.target(tmp_path, output, "age")
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "age.json").touch()
    for output in ("link.json", "age.json", ""):
        with pytest.raises(ValueError, match="is there; remove it"):
            make_concepts.target(tmp_path, output, "Age!")
    with pytest.raises(ValueError, match="--output="):
        make_concepts.target(tmp_path, "", "\u5e74\u9f62")  # nothing of the task can name a file


def test_a_pasted_answer_reaches_a_config(tmp_path, monkeypatch, capsys):
    arguments = [
        "--task=freshness of the fruit",
        "--low=1",
        "--high=10",
        "--count=3",
        "--output=fruit.json",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("rotten: 1-3\nripe: 4-7\nfresh: 8-10\n"))
    make_concepts.main(arguments, tmp_path)
    assert "Divide them into exactly 3 ranges" in capsys.readouterr().out
    get = importlib.import_module("configs.folder").get_config
    config = get(f"method=numclip,backbone=tiny,concepts={tmp_path}/fruit.json")
    assert (
        config.prompt.template == "freshness of the fruit: {}" and config.rules[0].name == "value"
    )
    built = ranks.build(config.ranks, [])
    assert built.names == ("rotten", "ripe", "fresh")
    np.testing.assert_array_equal(built.values, [2, 5.5, 9])
    np.testing.assert_array_equal(built.index([1, 3, 4, 7, 8, 10]), [0, 0, 1, 1, 2, 2])
    for mistake, words in (
        (["--output=fruit.json"], "is there"),
        (["--output=b.json", "--high=0"], "low < high"),
    ):
        with pytest.raises(SystemExit, match=words):
            make_concepts.main([*arguments, *mistake], tmp_path)
    with pytest.raises(SystemExit, match="no answer of 3"):
        make_concepts.main([*arguments, "--output=b.json"], tmp_path)  # the input is at its end
    assert [file.name for file in tmp_path.iterdir()] == ["fruit.json"]


@pytest.mark.parametrize("template", [None, "{{ messages }}"])
def test_a_local_model(template, monkeypatch):
    """The calls to transformers, by stand-ins: the real import takes ten seconds."""

    class Vocabulary:
        chat_template = template

        def __call__(self, text, return_tensors):
            assert text == "a\n\nb\n\n"
            return {"input_ids": np.array([[7, 7]])}

        def apply_chat_template(self, messages, add_generation_prompt, return_tensors, return_dict):
            assert template and add_generation_prompt and return_dict and len(messages) == 2
            return {"input_ids": np.array([[7, 7]])}

        def decode(self, tokens, skip_special_tokens):
            return "".join(map(chr, tokens))

    class Model:
        def generate(self, input_ids, max_new_tokens, do_sample):
            assert not do_sample
            return np.array([[*input_ids[0], ord("o"), ord("k")]])

    def load(name, use_safetensors=True):
        assert use_safetensors
        if name == "missing":
            raise OSError("no such repository")
        return Model()

    torch = types.SimpleNamespace(inference_mode=lambda: lambda function: function)
    transformers = types.SimpleNamespace(
        AutoTokenizer=types.SimpleNamespace(from_pretrained=lambda name: Vocabulary()),
        AutoModelForCausalLM=types.SimpleNamespace(from_pretrained=load),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    assert (
        make_concepts.local("some")(
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        )
        == "ok"
    )
    with pytest.raises(ValueError, match="'missing' cannot be loaded: no such repository"):
        make_concepts.local("missing")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs torch .*jaxord|needs torch .*\[torch\]"):
        make_concepts.local("some")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_pass(name):
    found = texts.read_concepts(name)
    assert (
        list(found) == ["task", "unit", "low", "high", "step", "concepts", "source"]
        and found["source"]
    )
    assert all(list(concept) == ["text", "low", "high", "centre"] for concept in found["concepts"])
    make_concepts.check_tokens(
        [concept["text"] for concept in found["concepts"]], tokens.byte_tokenizer()
    )


def test_every_data_set_of_the_papers_has_its_file():
    ages = dict.fromkeys(("morph", "clap2015", "agedb", "utk", "cacd", "imdb_wiki"), "age")
    quality = (
        "bid",
        "clive",
        "koniq",
        "spaq",
        "flive",
        "lsvq",
        "konvid",
        "live_vqc",
        "cvd2014",
        "youtube_ugc",
    )
    own = {name: name for name in ("adience", "skyfinder", "quickstart", "digits", *quality)}
    for name, file in {**ages, **own, "hci": "decade", "aesthetics": "grade", "folder": ""}.items():
        assert texts.concept_file(name) == file, name
    # METHODS 2.2: the program's left edges and the centres of its ranges
    age = ranks.build(
        importlib.import_module("configs.morph").get_config("method=numclip").ranks, []
    )
    np.testing.assert_array_equal(age.edges, [0, 13, 19, 35, 65])
    np.testing.assert_array_equal(age.values, [6, 15.5, 26.5, 49.5, 82.5])
    assert texts.concept_ranks("decade") == {
        "labels": (0, 1, 2, 3, 4),
        "edges": (),
        "names": ("1930s", "1940s", "1950s", "1960s", "1970s"),
    }


def test_a_numclip_config_takes_any_file_and_off_keeps_the_bins():
    get = importlib.import_module("configs.morph").get_config
    other = get("method=numclip,concepts=koniq")
    assert other.ranks.names == ("bad", "poor", "fair", "good", "excellent")
    assert (other.ranks.edges, other.ranks.last, other.ranks.step) == ((0, 20, 40, 60, 80), 100, 0)
    assert (
        other.prompt.template == "age estimation: the person is a {}"
        and other.prompt.rank_tokens == 0
    )
    off = get("method=numclip,preset=code,concepts=off")
    assert (
        off.ranks.edges == (0, 13, 19, 35, 65)
        and off.ranks.anchor == "left_edge"
        and off.prompt.rank_tokens == 1
    )
    with pytest.raises(ValueError, match="no concept file .*of.json.*'adience', 'age'"):
        get("method=numclip,concepts=of")


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda c: c.pop("high"), "expected an object with"),
        (lambda c: c.update(task="{}"), "without braces"),
        (lambda c: c["concepts"][1].update(low=14), "starts at 14, expected 13"),
        (lambda c: c["concepts"][1].update(centre=16), "centre of 'teenager' is 16, expected 15.5"),
        (lambda c: c["concepts"][1].update(centre="x"), "expected a number"),
        (lambda c: c["concepts"].clear(), "at least two"),
    ],
)
def test_a_file_edited_wrongly_says_so(change, fault, tmp_path):
    found, file = texts.read_concepts("age"), tmp_path / "mine.json"
    change(found)
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"mine.json: .*{fault}"):
        texts.concept_ranks(str(file))
    file.write_text("{")
    with pytest.raises(ValueError, match="mine.json: Expecting"):
        texts.concept_ranks(str(file))
