"""Coarse labels from a language model (RegCLIP section 3.3, NumCLIP section 3.3): a concept file
for any task.

    python tools/make_concepts.py --task="age of the person in a photograph" --unit=years --low=0
    --high=100 --count=5 \\
        --output=my_age.json --address=http://localhost:8000/v1 --model=some-model

asks the papers' kind of question ("how to describe people with different ages?"), checks that the
answer gives that many distinct texts with ranges that ascend from low to high without gap or
overlap, and writes configs/concepts/my_age.json, which configs take:
`--config=configs/folder.py:method=numclip,concepts=my_age`. A refused answer goes back with its
fault.

Who answers: --address and --model, a server of OpenAI's chat form, its key in the environment
  variable OPENAI_API_KEY; --model
alone, a folder or hub id for transformers, which needs torch; neither, you: the question is
printed, an answer is pasted.
"""

import argparse
import datetime
import http.client
import json
import os
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[1])
)  # configs/ lies beside tools/ and is not installed

from configs.texts import CONCEPTS, LONGEST, check_concepts, check_scale, shown
from jaxord.models import tokens

LONGEST_ANSWER = 20_000  # characters; five ranges need a hundred
LARGEST_REPLY = 1_000_000  # bytes of an HTTP reply
MOST_TOKENS = 48  # of a text; a sentence has 77, its template included
NUMBER = r"([-+\u2212]?\d{1,9}(?:\.\d{1,9})?)"
# "child: 0-12", "2. **Teenager** (ages 13 to 18)", "- adult: 19 \u2013 64 years", "zero: 0"
LINE = re.compile(
    rf"(?:[-*\u2022]\s+|\d{{1,3}}[.)]\s+)?([^:(\[]{{1,100}})[:(\[][\s*_]*(?:[A-Za-z]{{1,12}}\s+){{0,3}}"
    rf"{NUMBER}(?:\s*(?:-|\u2013|\u2014|to|\.\.)\s*{NUMBER})?[^\d]{{0,40}}"
)


def question(task, low, high, *, step=1.0, count=5, unit=""):
    """What the model is asked: the papers' question, and the form of the answer."""
    labels = {0: "real numbers", 1: "whole numbers"}.get(step, f"numbers in steps of {step:g}")
    after = f"the next starts {step:g} higher" if step else "the next starts at that number"
    return (
        f"Images are labelled with a number: the {task}{unit and f', {unit}'}. How to describe images with different labels?\n"
        f"The labels are {labels} from {low:.12g} to {high:.12g}. Divide them into exactly {count} ranges, in ascending order, "
        "and give each the word or short phrase that captions of such images would use, as one says child, teenager or older "
        f"adult of different ages. Answer with {count} lines of this form and nothing else:\n"
        "phrase: low to high\n"
        f"The first range starts at {low:.12g}, the last ends at {high:.12g}; where one ends, {after}. All phrases differ and "
        f"have at most {LONGEST} characters."
    )


def parse(answer):
    """The concepts in an untrusted answer: JSON (a list, or an object with the list "concepts"), or
    lines "child: 0-12".

    Returns:
        List of what should be dict(text, low, high): check_concepts says whether it is. Prose
        around it is passed over.

    Raises:
        ValueError: an answer that is too long, or has no ranges.
    """
    if len(answer) > LONGEST_ANSWER:
        raise ValueError(f"the answer has more than {LONGEST_ANSWER} characters")
    answer = answer.rpartition("</think>")[2]
    if start := re.search(r'\[\s*\{|\{\s*"', answer):
        try:
            found = json.JSONDecoder().raw_decode(answer, start.start())[0]
        except RecursionError:
            raise ValueError("the answer's JSON is nested without end") from None
        found = found.get("concepts") if isinstance(found, dict) else found
        if not isinstance(found, list):
            raise ValueError("the answer's JSON is no list of objects with text, low and high")
        keys = ("text", "low", "high")
        return [
            {key: c[key] for key in keys if key in c} if isinstance(c, dict) else c for c in found
        ]
    found = []
    for match in filter(None, (LINE.fullmatch(line.strip()[:200]) for line in answer.splitlines())):
        low, high = (
            float((number or match[2]).replace("\u2212", "-")) for number in match.group(2, 3)
        )
        found.append({"text": match[1].strip(" \t\"'`*_"), "low": low, "high": high})
    if not found:
        raise ValueError(
            f"no line of the answer has the form 'phrase: low to high'; it begins {shown(answer.strip())}"
        )
    return found


def check_tokens(texts, words):
    """Raises ValueError unless the tokenizer keeps the texts whole and apart.

    Trap: what CLIP's vocabulary does not have becomes its end of text, and so may a text that
      spells that token; the text tower
    would stop reading there.
    """
    rows = [
        tuple(words.encode(text.replace("_", " "))) for text in texts
    ]  # as ranks.sentences writes them
    for text, row in zip(texts, rows, strict=True):
        if not row or {words.sot, words.eot} & set(row) or len(row) > MOST_TOKENS:
            raise ValueError(
                f"{shown(text)} has {len(row)} tokens; expected 1 to {MOST_TOKENS}, all in the vocabulary"
            )
    if len(set(rows)) < len(rows):
        raise ValueError(f"two of {list(texts)} have the same tokens")


def make(ask, task, low, high, *, step=1.0, count=5, unit="", words=None, attempts=3):
    """Asks until an answer passes.

    Args:
        ask: messages, dicts of role and content as in OpenAI's chat form, to the text of the
          answer.
        task, low, high, step: as configs.texts.check_scale takes them; step 0 for labels that are
          real numbers.
        count: number of concepts.
        words: tokenizer that the texts must pass; bytes where it is not given.

    Returns:
        What the concept file holds, but for who answered.

    Raises:
        ValueError: a scale that is none, or no answer that passes: with the fault of each.
    """
    check_scale(task, low, high, step)
    if not 2 <= count <= 100 or (step and count > (high - low) / step + 1.5):
        raise ValueError(f"count is {count}; expected 2 to 100, and no more than there are labels")
    messages = [
        {"role": "user", "content": question(task, low, high, step=step, count=count, unit=unit)}
    ]
    faults = []
    for _ in range(attempts):
        answer = ask(messages)
        try:
            found = parse(answer)
            if len(found) != count:
                raise ValueError(f"found {len(found)} ranges, expected {count}")
            check_concepts(found, low, high, step)
            check_tokens([concept["text"] for concept in found], words or tokens.byte_tokenizer())
        except ValueError as fault:
            faults.append(str(fault))
            again = f"This answer cannot be used: {fault}. Answer the question again, in its form."
            messages += [
                {"role": "assistant", "content": answer[:LONGEST_ANSWER]},
                {"role": "user", "content": again},
            ]
            continue
        concepts = [
            {
                "text": c["text"].strip(),
                "low": _plain(c["low"]),
                "high": _plain(c["high"]),
                "centre": (c["low"] + c["high"]) / 2,
            }
            for c in found
        ]
        scale = {"low": _plain(low), "high": _plain(high), "step": _plain(step)}
        return {
            "task": task,
            "unit": unit,
            **scale,
            "concepts": concepts,
            "source": {"question": messages[0]["content"]},
        }
    raise ValueError("\n  ".join([f"no answer of {attempts} can be used:", *faults]))


def _plain(number):
    return int(number) if number == int(number) else number


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Hands over errors and redirects as replies: following a redirect would carry the key to
    another host."""

    def http_response(self, request, response):
        return response

    https_response = http_response


def server(address, model, *, timeout=300.0):
    """`ask` of a server of OpenAI's chat form: POST {address}/chat/completions.

    Raises:
        ValueError: now, an address that is none; when asking, whatever goes wrong on the way.
    """
    parts = urllib.parse.urlsplit(address)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise ValueError(
            f"--address is {shown(address)}; expected http(s)://host[:port]/path, without a password or a query"
        )
    if not model:
        raise ValueError("--address needs --model, the server's name of a model")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("OPENAI_API_KEY holds characters that cannot stand in a header")
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }

    def hidden(text):
        return text.replace(key, "***") if key else text  # a server may repeat it

    def ask(messages):
        body = json.dumps({"model": model, "messages": messages}).encode()
        request = urllib.request.Request(
            address.rstrip("/") + "/chat/completions", data=body, headers=headers
        )
        deadline, raw = time.monotonic() + timeout, b""
        try:
            with urllib.request.build_opener(_AsItIs).open(request, timeout=timeout) as reply:
                while piece := reply.read1(65_536):
                    raw += piece
                    if len(raw) > LARGEST_REPLY or time.monotonic() > deadline:
                        raise ValueError(
                            f"{address} sends more than {LARGEST_REPLY} bytes, or for more than {timeout:g} s"
                        )
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{address} cannot be asked: {shown(error)}") from error
        text = raw.decode("utf-8", "replace")
        try:
            if reply.status != 200:
                raise ValueError
            return hidden(json.loads(text)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{address} answers {reply.status}, {hidden(text)[:300]!r}; expected 200 and a message"
            ) from None

    return ask


def local(name):
    """`ask` of a model on this machine, by transformers: a folder or a hub id, safetensors only."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        vocabulary = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)
    except ImportError as error:
        raise ValueError(
            f"a local model needs torch ({error}): pip install -e '.[torch]', or give --address"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"--model {name!r} cannot be loaded: {error}") from error

    def ask(messages):
        if vocabulary.chat_template:
            inputs = vocabulary.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            inputs = vocabulary(
                "\n\n".join(message["content"] for message in messages) + "\n\n",
                return_tensors="pt",
            )
        tokens = model.generate(**inputs, max_new_tokens=1024, do_sample=False)
        return vocabulary.decode(
            tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )

    return torch.inference_mode()(ask)


def paste(messages):
    """`ask` of the person at the terminal."""
    print(
        messages[-1]["content"]
        + "\n\nPaste the answer, then end the input (Ctrl-D; on Windows Ctrl-Z, Enter):",
        flush=True,
    )
    return sys.stdin.read(LONGEST_ANSWER + 1)


def target(folder, output, task):
    """Path of the new file: named by --output, or after the task; it must not be there and cannot
    leave the folder."""
    name = output or re.sub(r"[^a-z0-9]+", "_", task.lower()).strip("_")[:60] + ".json"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json", name):
        raise ValueError(
            f"the file's name is {shown(name)}; expected --output=<letters, digits, _ - .>.json"
        )
    if os.path.lexists(folder / name):
        raise ValueError(f"{folder / name} is there; remove it, or give another --output")
    return folder / name


def main(arguments=None, folder=CONCEPTS):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task", required=True, help='what the label says: "age of the person in a photograph"'
    )
    parser.add_argument("--low", type=float, required=True, help="lowest label")
    parser.add_argument("--high", type=float, required=True, help="highest label")
    parser.add_argument(
        "--step",
        type=float,
        default=1.0,
        help="distance of neighbouring labels; 0 for real numbers",
    )
    parser.add_argument("--count", type=int, default=5, help="number of concepts")
    parser.add_argument("--unit", default="", help="of the labels: years")
    parser.add_argument(
        "--address", default="", help="of a server of OpenAI's chat form: http://localhost:8000/v1"
    )
    parser.add_argument(
        "--model",
        default="",
        help="the server's name of a model; without --address a folder or hub id",
    )
    parser.add_argument(
        "--tokenizer",
        default="",
        help="folder of CLIP's vocabulary, which the texts must pass; else bytes",
    )
    parser.add_argument(
        "--output",
        default="",
        help="name of the file in configs/concepts; else it is named after the task",
    )
    parser.add_argument(
        "--attempts", type=int, default=3, help="answers that are asked for before giving up"
    )
    a = parser.parse_args(arguments)
    try:
        path = target(folder, a.output, a.task)
        words = tokens.clip_tokenizer(a.tokenizer) if a.tokenizer else None
        ask = server(a.address, a.model) if a.address else local(a.model) if a.model else paste
        found = make(
            ask,
            a.task,
            a.low,
            a.high,
            step=a.step,
            count=a.count,
            unit=a.unit,
            words=words,
            attempts=a.attempts,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    found["source"] |= {
        "model": a.model or "pasted",
        "address": a.address,
        "date": datetime.date.today().isoformat(),
    }
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(
        f"{path}: " + ", ".join(f"{c['text']} {c['low']} to {c['high']}" for c in found["concepts"])
    )


if __name__ == "__main__":
    main()
