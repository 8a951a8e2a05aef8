"""Where a CLIP checkpoint lies and which of its files are read: a folder, or an id of the hub.

A repository holds the same weights in several formats. The first of WEIGHTS is taken; of a hub id
that has only pickles, the hub's own conversion to safetensors goes before them. Only the files that
are read are downloaded, each by the commit's hash, and compared with the hash that the hub gave.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import time

from jaxord.weights import reading

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TOKENIZER += ("vocab.json", "merges.txt")
SETTINGS = ("config.json", "open_clip_config.json")
SETTINGS += ("preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors")
WEIGHTS += ("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin")
CONVERT = reading.PICKLED.format(".pt, .pth") + ", and pass that folder"
# The account and the title of the hub's conversions, as transformers knows them.
CONVERTER = ("SFconvertbot", "Adding `safetensors` variant of this model")
# What huggingface_hub does not retry itself; seconds between attempts.
PAUSES = (1, 2, 4)
RECORD = "jaxord.json"


@dataclasses.dataclass(frozen=True)
class Weights:
    """The files of a checkpoint's tensors.

    Attributes:
      files: paths; an index comes first.
      note: what is special about them, for people.
      facts: dict(id, commit, files): the source, "" or a commit, file name -> SHA-256.
    """

    files: tuple
    note: str
    facts: dict


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a commit: name -> hash that the hub gave, "" if it gave none."""

    commit: str
    hashes: dict
    note: str = ""


def choose(names):
    """The weight files to read: the first of WEIGHTS among `names`, with its shards, or ()."""
    first = next((name for name in WEIGHTS if name in names), "")
    if not first.endswith(".index.json"):
        return (first,) if first else ()
    stem, suffix = first.removesuffix(".index.json").split(".")
    shard = re.compile(rf"{stem}-\d+-of-\d+\.{suffix}")
    return (first, *sorted(name for name in names if shard.fullmatch(name)))


def resolve(source):
    """The local folder of a checkpoint's settings and tokenizer: a folder itself, or a hub id.

    "<hub id>@<commit>" is that commit for ever, the id alone the newest of its branch. A missing
    folder or repository and a changed file are a ValueError.
    """
    folder = _folder(source)
    return folder if folder else _settings(str(source))


def copy_tokenizer(source, folder):
    """Copies the files of a checkpoint's tokenizer into a folder, made if need be."""
    origin = resolve(source)
    for name in TOKENIZER:
        if (origin / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, folder / name)


def weights(source):
    """The Weights of a folder or hub id; ValueError if it holds none that can be read."""
    folder = _folder(source)
    if folder is None:
        return _hub_weights(str(source))
    files = tuple(folder / name for name in choose([file.name for file in folder.iterdir()]))
    if not files:
        raise ValueError(_lacking(folder, sorted(file.name for file in folder.iterdir())))
    return Weights(files, "", {"id": str(folder), "commit": "", "files": {}})


def facts(source):
    """What a run records of its weights: dict(id, commit, files), with SHA-256 by file name."""
    found = weights(source)
    folder = _folder(source)
    if folder is None:
        return found.facts
    files = {*found.files, *(folder / name for name in (*SETTINGS, *TOKENIZER))}
    if found.files[0].name.endswith(".index.json"):
        files |= {folder / name for name in reading.read_shards(found.files[0]).values()}
    states = {file: file.stat() for file in sorted(files) if file.is_file()}
    digests = {f.name: _sha256_once(f, s.st_size, s.st_mtime_ns) for f, s in states.items()}
    return found.facts | {"files": digests}


def describe(source):
    """One line for the log: which files of which source were taken."""
    found = weights(source)
    place = f"{found.facts['id']}@{found.facts['commit'][:12]}".removesuffix("@")
    names = found.files[0].name
    if len(found.files) > 1:
        names += f" and {len(found.files) - 1} shards"
    unpickled = ", read without unpickling" if found.files[-1].suffix == ".bin" else ""
    return f"weights {place}: {names}{unpickled}{found.note}"


def _folder(source):
    """The path of a local source, None for a hub id; ValueError for a file."""
    folder = pathlib.Path(source).expanduser()
    if folder.is_file():
        expected = "weights are a folder with config.json and model.safetensors"
        raise ValueError(f"{folder} is a file; {expected}. {CONVERT}")
    return folder if folder.is_dir() else None


def _lacking(place, names):
    half = [name for name in names if ".fp16." in name and name.endswith(".safetensors")]
    if half:
        return (
            f"{place} has its weights in half precision only ({', '.join(half)}), and those lost "
            "digits; choose a source with model.safetensors, or rename the file to that"
        )
    return f"{place} has no model.safetensors; found {names}. {CONVERT}"


@functools.cache  # a process takes one commit, and hashes it once
def _listing(source):
    """The Listing of a hub id, from the hub, or from its cache where the hub does not answer."""
    from huggingface_hub import HfApi, errors  # 0.3 s, and not needed for a folder

    name, _, revision = source.partition("@")
    record = _read_record(name)
    if revision in record["commits"]:
        return Listing(revision, record["commits"][revision])
    with _refusing(source):
        try:
            info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
        except (OSError, errors.HTTPError) as error:
            cached = None if 400 <= _status(error) < 500 else _cached(name, revision, record)
            if cached is None:
                raise
            return dataclasses.replace(cached, note=f", from the cache ({_first_line(error)})")
    listing = Listing(info.sha, _hashes(info))
    record["revisions"][revision or "main"] = listing.commit
    _write_record(name, record, listing)
    return listing


def _cached(name, revision, record):
    """The Listing of what the hub's cache holds of a revision; None if it holds none."""
    from huggingface_hub import try_to_load_from_cache

    commit = record["revisions"].get(revision or "main", "")
    if commit in record["commits"]:
        return Listing(commit, record["commits"][commit])
    for file in SETTINGS[:2]:
        path = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(path, str):
            folder = pathlib.Path(path).parent
            return Listing(folder.name, {file.name: "" for file in folder.iterdir()})
    return None


@functools.cache
def _settings(source):
    listing = _listing(source)
    names = [name for name in (*SETTINGS, *TOKENIZER) if name in listing.hashes]
    if not set(names) & set(SETTINGS):
        kind = "no config.json, so no CLIP of transformers or OpenCLIP"
        raise ValueError(f"{source} has {kind}; found {sorted(listing.hashes)}")
    return next(iter(_fetch(source, listing, names))).parent


@functools.cache
def _hub_weights(source):
    listing, name = _listing(source), source.partition("@")[0]
    chosen, taken, note = choose(listing.hashes), listing, listing.note
    if not chosen:
        raise ValueError(_lacking(source + listing.note, sorted(listing.hashes)))
    if chosen[-1].endswith(".bin") and "@" not in source:
        reference, conversion = _conversion(name, listing, chosen)
        if conversion:
            chosen, taken = choose(conversion.hashes), conversion
            note += f" of {reference}, the hub's conversion"
    settings = [n for n in (*SETTINGS, *TOKENIZER) if n in listing.hashes]
    files = _fetch(source, taken, chosen)
    digests = {path.name: digest for path, digest in files.items()}
    digests |= {path.name: digest for path, digest in _fetch(source, listing, settings).items()}
    unknown = [file for file in chosen if not taken.hashes[file]]
    note += ", hashes not compared: the hub gave none" if unknown else ""
    about = {"id": name, "commit": listing.commit, "files": dict(sorted(digests.items()))}
    if taken is not listing:
        about["weights_commit"] = taken.commit
    return Weights(tuple(files), note, about)


def _conversion(name, listing, pickles):
    """(reference, Listing) of the hub's own pull request with the same weights as safetensors.

    ("", None) if it has none. It counts if its pickles have the hashes of the commit's, so that a
    conversion of other weights is never taken.
    """
    from huggingface_hub import HfApi, errors

    record = _read_record(name)
    reference, commit = record["conversions"].get(listing.commit, ("", ""))
    if commit in record["commits"] and listing.note:
        return reference, Listing(commit, record["commits"][commit])
    author, title = CONVERTER
    form = dict(author=author, discussion_type="pull_request", discussion_status="open")
    # Mirrors and repositories without discussions have no list of them.
    with contextlib.suppress(OSError, ValueError, KeyError, errors.HTTPError):
        for pull in HfApi().get_repo_discussions(name, **form):
            if (pull.author, pull.title, pull.is_pull_request) != (author, title, True):
                continue
            reference = f"refs/pr/{pull.num}"
            info = HfApi().model_info(name, revision=reference, files_metadata=True)
            converted = Listing(info.sha, _hashes(info))
            same = all(
                listing.hashes[file] and listing.hashes[file] == converted.hashes.get(file)
                for file in pickles
            )
            if same and choose(converted.hashes)[0] in WEIGHTS[:2]:
                record["conversions"][listing.commit] = (reference, info.sha)
                _write_record(name, record, converted)
                return reference, converted
    return "", None


def _hashes(info):
    """{file: hash} of a ModelInfo: SHA-256 of large files, git's SHA-1 of small ones, or ""."""
    hashes = {
        file.rfilename: (file.lfs["sha256"] if file.lfs else file.blob_id) or ""
        for file in info.siblings or ()
    }
    known = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
    return {name: value if known.fullmatch(value) else "" for name, value in hashes.items()}


def _fetch(source, listing, names):
    """{path in the hub's cache: its SHA-256} of files of a commit, downloaded once."""
    from huggingface_hub import hf_hub_download

    name, paths = source.partition("@")[0], []
    with _refusing(source):
        for file in names:
            download = functools.partial(hf_hub_download, name, file, revision=listing.commit)
            paths.append(pathlib.Path(_patiently(download)))
    return {path: _check_hash(path, listing.hashes[path.name]) for path in paths}


def _patiently(download):
    """Repeats a download that broke off; the answers no, missing and offline are final."""
    from huggingface_hub import constants, errors

    for pause in PAUSES:
        try:
            return download()
        except (OSError, errors.HTTPError) as error:
            final = constants.HF_HUB_OFFLINE or isinstance(error, PermissionError)
            if final or 400 <= _status(error) < 500:
                raise
            time.sleep(pause)
    return download()


def _check_hash(file, expected):
    """Compares a file with the hub's hash and returns its SHA-256; ValueError if they differ."""
    digest = sha256 = _sha256(file)
    if len(expected) == 40:  # git's hash of a small file
        blob = b"blob %d\0" % file.stat().st_size + file.read_bytes()
        digest = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if expected and digest != expected:
        raise ValueError(
            f"{file} has the hash {digest}, the hub says {expected}: it is damaged, or was "
            f"changed; remove {file.resolve()} to have it downloaded again"
        )
    return sha256


def _sha256(file):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache  # folds and stages begin from one folder
def _sha256_once(file, size, changed):
    return _sha256(file)


def _record_file(name):
    from huggingface_hub import constants

    return pathlib.Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / RECORD


def _read_record(name):
    """The listings that the hub gave before: they tell the hashes where it cannot be asked."""
    empty = {"revisions": {}, "commits": {}, "conversions": {}}
    try:
        return empty | json.loads(_record_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return empty


def _write_record(name, record, listing):
    record["commits"][listing.commit] = listing.hashes
    file = _record_file(name)
    temporary = file.with_name(f".{RECORD}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a shared cache may be read-only
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(temporary, file)


@contextlib.contextmanager
def _refusing(source):
    """Turns the errors of huggingface_hub into a ValueError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    # ValueError: not the form of an id, or of a proxy; ImportError: a proxy's package is missing.
    except (OSError, ValueError, ImportError, errors.HTTPError) as error:
        folder = "or download its files elsewhere and pass their folder"
        raise ValueError(
            f"no weights at {source!r}: it is not a folder, and the Hugging Face hub did not give "
            f"it ({_first_line(error)}). {_advice(error, source)}, {folder}: "
            "--config.model.weights=<folder>"
        ) from error


def _advice(error, source):
    """What to do about an error of huggingface_hub."""
    from huggingface_hub import constants, errors

    name, _, revision = source.partition("@")
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{name}"
        return f"It is gated: accept its terms at {page}, set HF_TOKEN to a token of your account"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"It has no revision {revision!r}: choose another behind the @"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "Check the id, set HF_TOKEN if it is private"
    if _status(error) in (401, 403):
        return "Set HF_TOKEN to a valid token that may read it"
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set: unset it, fill the cache by `hf download {name}`"
    if isinstance(error, errors.HFValidationError):
        return "Give an existing folder, an id like openai/clip-vit-base-patch16"
    return "Check the network, HTTPS_PROXY and HF_ENDPOINT"


def _status(error):
    response = getattr(error, "response", None)
    return 0 if response is None else response.status_code


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(":. ")
