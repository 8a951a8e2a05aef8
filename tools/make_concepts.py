"""Writes a concept file for any task: coarse labels from a language model.

    python tools/make_concepts.py --task="age of the person in a photograph" --unit=years --low=0 \\
        --high=100 --count=5 --output=my_age.json --address=http://localhost:8000/v1 --model=a-model

asks the papers' kind of question, "how to describe people with different ages?" (RegCLIP and
NumCLIP, section 3.3). An answer must give that many distinct texts, whose ranges ascend from low to
high without gap or overlap; a refused answer goes back with its fault. Configs take the new file,
configs/concepts/my_age.json: `--config=configs/folder.py:method=numclip,concepts=my_age`.

--address and --model name a server with OpenAI's chat interface, whose key is in the environment
variable OPENAI_API_KEY. --model alone is a folder or hub id for transformers, which needs torch.
Without both the tool prints the question, and you paste an answer.
"""

import argparse
import datetime
import http.client
import json
import os
import re
import sys
import time
import urllib.parse
import urllib.request

from jaxord import shipped

shipped.make_importable()

from configs.texts import CONCEPTS, LONGEST, check_concepts, check_scale, shown
from jaxord.models import tokens

LONGEST_ANSWER = 20_000  # characters; five ranges need a hundred
LARGEST_REPLY = 1_000_000  # bytes of an HTTP reply
MAX_TOKENS = 48  # of a text; a sentence has 77, its template included
QUESTION = (
    "Images are labelled with a number: the {task}. How to describe images with different labels?\n"
    "The labels are {labels} from {low:.12g} to {high:.12g}. Divide them into exactly {count} "
    "ranges, in ascending order, and give each the word or short phrase that captions of such "
    "images would use, as one says child, teenager or older adult of different ages. Answer with "
    "{count} lines of this form and nothing else:\nphrase: low to high\n"
    "The first range starts at {low:.12g}, the last ends at {high:.12g}; where one ends, {after}. "
    "All phrases differ and have at most {longest} characters."
)
NUMBER = r"([-+\u2212]?\d{1,9}(?:\.\d{1,9})?)"
# "child: 0-12", "2. **Teenager** (ages 13 to 18)", "- adult: 19 \u2013 64 years", "zero: 0"
LINE = re.compile(
    r"(?:[-*\u2022]\s+|\d{1,3}[.)]\s+)?([^:(\[]{1,100})[:(\[][\s*_]*(?:[A-Za-z]{1,12}\s+){0,3}"
    rf"{NUMBER}(?:\s*(?:-|\u2013|\u2014|to|\.\.)\s*{NUMBER})?[^\d]{{0,40}}"
)


def question(task, low, high, *, step=1.0, count=5, unit=""):
    """The question for the model: the papers', and the form of the answer."""
    labels = {0: "real numbers", 1: "whole numbers"}.get(step, f"numbers in steps of {step:g}")
    after = f"the next starts {step:g} higher" if step else "the next starts at that number"
    task = f"{task}, {unit}" if unit else task
    scale = {"low": low, "high": high, "labels": labels, "after": after}
    return QUESTION.format(task=task, count=count, longest=LONGEST, **scale)


def parse(answer):
    """The concepts in an untrusted answer: JSON, or lines such as "child: 0-12".

    The JSON is a list, or an object with the list "concepts"; prose around either is passed over.
    Returns a list of what should be dict(text, low, high): `check_concepts` decides. Raises
    ValueError if the answer is too long or has no ranges.
    """
    if len(answer) > LONGEST_ANSWER:
        raise ValueError(f"the answer has more than {LONGEST_ANSWER} characters")
    answer = answer.rpartition("</think>")[2]
    if start := re.search(r'\[\s*\{|\{\s*"', answer):
        return _read_json(answer, start.start())
    concepts = []
    for line in answer.splitlines():
        if match := LINE.fullmatch(line.strip()[:200]):
            text, *numbers = match.groups()
            low, high = (float((x or numbers[0]).replace("\u2212", "-")) for x in numbers)
            concepts.append({"text": text.strip(" \t\"'`*_"), "low": low, "high": high})
    if not concepts:
        fault = "no line of the answer has the form 'phrase: low to high'"
        raise ValueError(f"{fault}; it begins {shown(answer.strip())}")
    return concepts


def _read_json(answer, start):
    try:
        value = json.JSONDecoder().raw_decode(answer, start)[0]
    except RecursionError:
        raise ValueError("the answer's JSON is nested without end") from None
    concepts = value.get("concepts") if isinstance(value, dict) else value
    if not isinstance(concepts, list):
        raise ValueError("the answer's JSON is no list of objects with text, low and high")

    def fields(concept):
        return {key: concept[key] for key in ("text", "low", "high") if key in concept}

    return [fields(concept) if isinstance(concept, dict) else concept for concept in concepts]


def check_tokens(texts, words):
    """Raises ValueError unless the tokenizer `words` keeps the texts whole and apart.

    Trap: a word that CLIP's vocabulary lacks becomes the end of text, as may a text that spells
    that token; the text tower would stop reading there.
    """
    # Ranks write their sentences so, too.
    rows = [tuple(words.encode(text.replace("_", " "))) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not row or {words.sot, words.eot} & set(row) or len(row) > MAX_TOKENS:
            expected = f"expected 1 to {MAX_TOKENS}, all in the vocabulary"
            raise ValueError(f"{shown(text)} has {len(row)} tokens; {expected}")
    if len(set(rows)) < len(rows):
        raise ValueError(f"two of {list(texts)} have the same tokens")


def make(ask, task, low, high, *, step=1.0, count=5, unit="", words=None, attempts=3):
    """Asks until an answer passes; returns the content of the concept file.

    `ask` turns messages, dicts of role and content as in OpenAI's chat interface, into the text of
    an answer. `words` is the tokenizer that the texts must pass, by default bytes. Raises
    ValueError for a wrong scale (see configs.texts.check_scale), or with the fault of each answer.
    """
    check_scale(task, low, high, step)
    if not 2 <= count <= 100 or (step and count > (high - low) / step + 1.5):
        raise ValueError(f"count is {count}; expected 2 to 100, and no more than there are labels")
    words = words or tokens.byte_tokenizer()
    text = question(task, low, high, step=step, count=count, unit=unit)
    messages = [{"role": "user", "content": text}]
    faults = []
    for _ in range(attempts):
        answer = ask(messages)
        try:
            concepts = parse(answer)
            if len(concepts) != count:
                raise ValueError(f"found {len(concepts)} ranges, expected {count}")
            check_concepts(concepts, low, high, step)
            check_tokens([concept["text"] for concept in concepts], words)
        except ValueError as fault:
            # A model that sees its fault mostly mends it.
            faults.append(str(fault))
            again = f"This answer cannot be used: {fault}. Answer the question again, in its form."
            messages.append({"role": "assistant", "content": answer[:LONGEST_ANSWER]})
            messages.append({"role": "user", "content": again})
        else:
            scale = {"low": _plain(low), "high": _plain(high), "step": _plain(step)}
            concepts = [_entry(concept) for concept in concepts]
            source = {"question": text}
            return {"task": task, "unit": unit, **scale, "concepts": concepts, "source": source}
    raise ValueError("\n  ".join([f"no answer of {attempts} can be used:", *faults]))


def _entry(concept):
    low, high = concept["low"], concept["high"]
    text = concept["text"].strip()
    return {"text": text, "low": _plain(low), "high": _plain(high), "centre": (low + high) / 2}


def _plain(number):
    return int(number) if number == int(number) else number


class _Unfollowed(urllib.request.HTTPErrorProcessor):
    """Hands over errors and redirects: following one would carry the key to another host."""

    def http_response(self, request, response):
        return response

    https_response = http_response


def server(address, model, *, timeout=300.0):
    """`ask` of a server with OpenAI's chat interface: POST {address}/chat/completions.

    ValueError at once for a wrong address; when asked, for any failure on the way.
    """
    parts = urllib.parse.urlsplit(address)
    is_url = parts.scheme in ("http", "https") and parts.hostname
    if not is_url or "@" in parts.netloc or parts.query or parts.fragment:
        expected = "expected http(s)://host[:port]/path, without a password or a query"
        raise ValueError(f"--address is {shown(address)}; {expected}")
    if not model:
        raise ValueError("--address needs --model, the server's name of a model")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("OPENAI_API_KEY holds characters that cannot stand in a header")
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    url = address.rstrip("/") + "/chat/completions"

    def hidden(text):
        return text.replace(key, "***") if key else text  # a server may repeat it

    def post(body):
        """(status, text) of the reply, which may be neither endless nor slow without end."""
        request = urllib.request.Request(url, data=body, headers=headers)
        deadline = time.monotonic() + timeout
        raw = b""
        with urllib.request.build_opener(_Unfollowed).open(request, timeout=timeout) as reply:
            while piece := reply.read1(65_536):
                raw += piece
                if len(raw) > LARGEST_REPLY or time.monotonic() > deadline:
                    limit = f"more than {LARGEST_REPLY} bytes, or for more than {timeout:g} s"
                    raise ValueError(f"{address} sends {limit}")
        return reply.status, raw.decode("utf-8", "replace")

    def ask(messages):
        body = json.dumps({"model": model, "messages": messages}).encode()
        try:
            status, text = post(body)
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{address} cannot be asked: {shown(error)}") from error
        fault = f"{address} answers {status}, {hidden(text)[:300]!r}; expected 200 and a message"
        if status != 200:
            raise ValueError(fault)
        try:
            return hidden(json.loads(text)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ValueError(fault) from None

    return ask


def local(name):
    """`ask` of a model for transformers, a folder or a hub id, in safetensors only."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        vocabulary = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)
    except ImportError as error:
        hint = f"{shipped.install_hint('torch')}, or give --address"
        raise ValueError(f"a local model needs torch ({error}): {hint}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"--model {name!r} cannot be loaded: {error}") from error

    def ask(messages):
        # A base model has no template: it continues plain text.
        if vocabulary.chat_template:
            settings = {"add_generation_prompt": True, "return_dict": True}
            inputs = vocabulary.apply_chat_template(messages, return_tensors="pt", **settings)
        else:
            text = "".join(message["content"] + "\n\n" for message in messages)
            inputs = vocabulary(text, return_tensors="pt")
        (row,) = model.generate(**inputs, max_new_tokens=1024, do_sample=False)
        return vocabulary.decode(row[inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return torch.inference_mode()(ask)


def paste(messages):
    """`ask` of the person at the terminal."""
    end = "Paste the answer, then end the input (Ctrl-D; on Windows Ctrl-Z, Enter):"
    print(f"{messages[-1]['content']}\n\n{end}", flush=True)
    return sys.stdin.read(LONGEST_ANSWER + 1)


def target(folder, output, task):
    """The path of the new file, by --output or the task; ValueError if it exists or leaves."""
    name = output or re.sub(r"[^a-z0-9]+", "_", task.lower()).strip("_")[:60] + ".json"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json", name):
        expected = "expected --output=<letters, digits, _ - .>.json"
        raise ValueError(f"the file's name is {shown(name)}; {expected}")
    if os.path.lexists(folder / name):
        raise ValueError(f"{folder / name} is there; remove it, or give another --output")
    return folder / name


def _parser():
    # Keeps the lines of the docstring as they are.
    layout_kept = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout_kept)

    def add(name, help, **settings):
        settings = settings or {"default": ""}
        parser.add_argument(f"--{name}", help=help, **settings)

    add("task", 'the label in words: "age of the person in a photograph"', required=True)
    add("low", "lowest label", type=float, required=True)
    add("high", "highest label", type=float, required=True)
    add("step", "between neighbouring labels; 0 for real numbers", type=float, default=1.0)
    add("count", "number of concepts", type=int, default=5)
    add("unit", "of the labels: years")
    add("address", "of a server with OpenAI's chat interface: http://localhost:8000/v1")
    add("model", "the server's name of a model; without --address a folder or hub id")
    add("tokenizer", "folder of CLIP's vocabulary, which the texts must pass; else bytes")
    add("output", "name of the file in configs/concepts; else named after the task")
    add("attempts", "answers to ask for before giving up", type=int, default=3)
    return parser


def main(arguments=None, folder=CONCEPTS):
    args = _parser().parse_args(arguments)
    scale = {name: getattr(args, name) for name in ("low", "high", "step", "count", "unit")}
    try:
        path = target(folder, args.output, args.task)
        words = tokens.clip_tokenizer(args.tokenizer) if args.tokenizer else None
        if args.address:
            ask = server(args.address, args.model)
        else:
            ask = local(args.model) if args.model else paste
        content = make(ask, args.task, **scale, words=words, attempts=args.attempts)
    except ValueError as error:
        sys.exit(f"error: {error}")
    today = datetime.date.today().isoformat()
    content["source"] |= {"model": args.model or "pasted", "address": args.address, "date": today}
    with path.open("x", encoding="utf-8") as file:  # never over a file that appeared meanwhile
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    ranges = [f"{c['text']} {c['low']} to {c['high']}" for c in content["concepts"]]
    print(f"{path}: {', '.join(ranges)}")


if __name__ == "__main__":
    main()
