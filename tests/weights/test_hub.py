"""Weights by their hub id, and which of a repository's files are read, on a hub of this machine."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxord.models.clip import ClipSettings, Tower
from jaxord.weights import hf_clip, hub, open_clip
from tests.conftest import write_vocabulary
from tests.weights.hub_server import FILES, Repository, pull, serve

torch = pytest.importorskip("torch")
OLD, NEW, CONVERTED = "1" * 40, "2" * 40, "c" * 40  # commits
# OpenCLIP's heads are 64 channels wide unless its config says another width.
TOWER = Tower(width=8, layers=1, heads=2, mlp=8)
SETTINGS = ClipSettings(
    vision=TOWER,
    text=TOWER,
    image_size=8,
    patch_size=8,
    vocab_size=527,
    max_positions=9,
    projection_dim=4,
    eos_token_id=526,
)
SHAPES = hf_clip.parameters(SETTINGS)
CODE = """
import json, sys
from jaxord.weights import hf_clip, hub
for source in sys.argv[1:]:
    scale = hf_clip.load(source, hf_clip.parameters(hf_clip.read_settings(source)))["logit_scale"]
    folder = hub.resolve(source)
    names = sorted(file.name for file in folder.iterdir())
    print(json.dumps([folder.name, names, float(scale)]), flush=True)
"""


def saved(state):
    """Bytes of torch.save."""
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(x)) for name, x in state.items()}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Contents of every file that a repository may hold: {scale: {name: bytes}}."""
    return {scale: make_contents(tmp_path_factory.mktemp("clip"), scale) for scale in (1.0, 2.0)}


def make_contents(folder, scale):
    from safetensors.numpy import save as save_tensors

    generator = np.random.default_rng(int(scale))
    params = {p: generator.normal(size=x.shape).astype(np.float32) for p, x in SHAPES.items()}
    params["logit_scale"] = np.float32(scale)
    hf_clip.save(write_vocabulary(folder), params, SETTINGS)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    named = {hf_clip.source_name(path): hf_clip.to_source(path, x) for path, x in params.items()}
    theirs = {name: np.array(x, order="C") for name, x in open_clip.from_hf(named).items()}
    files["pytorch_model.bin"] = saved(named)
    files["open_clip_pytorch_model.bin"] = saved(theirs)
    files["open_clip_model.safetensors"] = save_tensors(theirs)
    eos = dataclasses.replace(SETTINGS, eos_token_id=SETTINGS.vocab_size - 1)
    files["open_clip_config.json"] = json.dumps(open_clip.config(eos)).encode()
    names, shards = list(named), {}
    for i, part in enumerate((names[:9], names[9:]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        files[file] = saved({name: named[name] for name in part})
        shards |= dict.fromkeys(part, file)
    files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": shards}).encode()
    return files


def tree(contents, names, **others):
    """A repository's files: those of `contents`, others never to be opened."""
    return {name: contents.get(name, b"not to be fetched") for name in names} | others


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A function that has huggingface_hub ask a server, with an empty cache."""
    from huggingface_hub import constants

    def ask(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PAUSES", (0, 0))
    forget()
    yield ask
    forget()


def forget():
    """What a new process would not know."""
    for function in (hub._listing, hub._settings, hub._hub_weights):
        function.cache_clear()


def fetched(asked):
    """Names of the files whose content was asked for."""
    return {path.rpartition("/")[2] for path in asked if "/resolve/" in path}


def scale_of(source):
    return hf_clip.load(source, SHAPES)["logit_scale"]


TAKEN = {
    "openai/clip-vit-base-patch16": ["pytorch_model.bin"],
    "openai/clip-vit-base-patch32": ["pytorch_model.bin"],
    "openai/clip-vit-large-patch14": ["model.safetensors"],
    "openai/clip-vit-large-patch14-336": ["pytorch_model.bin"],
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ["model.safetensors"],
    "laion/CLIP-ViT-B-16-plain": ["open_clip_model.safetensors"],
    "made/sharded": [
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ],
}


@pytest.mark.parametrize("name", TAKEN)
def test_each_repository_loads_from_its_first_format_alone(contents, client, name):
    files = tree(contents[1.0], FILES[name])
    with serve({name: Repository({NEW: files})}) as (address, asked):
        client(address)
        assert hf_clip.read_settings(name) == SETTINGS
        assert not any(file.endswith((".bin", ".safetensors")) for file in fetched(asked))
        params = hf_clip.load(name, SHAPES)
    assert params["logit_scale"] == 1.0 and set(params) == set(SHAPES)
    found = hub.weights(name)
    assert [file.name for file in found.files] == TAKEN[name]
    known = {*TAKEN[name], *hub.SETTINGS, *hub.TOKENIZER} & set(files)
    assert fetched(asked) == known == set(found.facts["files"])
    assert (found.facts["id"], found.facts["commit"]) == (name, NEW)
    assert hub.facts(name) == found.facts
    line = hub.describe(name)
    assert line.startswith(f"weights {name}@{NEW[:12]}: {TAKEN[name][0]}") and "\n" not in line
    assert ("without unpickling" in line) == TAKEN[name][-1].endswith(".bin")


def test_a_folder_has_the_same_ladder(contents, tmp_path):
    for name, taken in TAKEN.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, content in tree(contents[1.0], FILES[name]).items():
            (folder / file).write_bytes(content)
        assert scale_of(folder) == 1.0
        assert [file.name for file in hub.weights(folder).files] == taken
        facts = hub.facts(folder)
        assert (facts["id"], facts["commit"]) == (str(folder), "")
        assert set(taken) <= set(facts["files"]) and len(facts["files"]["vocab.json"]) == 64
        assert hub.describe(folder).startswith(f"weights {folder}: {taken[0]}")


def with_conversion(contents, pulls, pickle=None, commit=CONVERTED):
    main = tree(contents[1.0], FILES["openai/clip-vit-base-patch16"])
    converted = main | {"model.safetensors": contents[1.0]["model.safetensors"]}
    converted |= {"pytorch_model.bin": pickle} if pickle else {}
    return Repository({commit: converted, NEW: main}, {"refs/pr/7": commit}, pulls)


def test_the_hubs_conversion_goes_before_a_pickle(contents, client):
    name = "made/clip"
    pulls = [pull(3, "somebody"), pull(4, title="Adds weights"), pull(7)]
    with serve({name: with_conversion(contents, pulls)}) as (address, asked):
        client(address)
        assert scale_of(name) == 1.0
        assert "pytorch_model.bin" not in fetched(asked)
        line = f"weights made/clip@{NEW[:12]}: model.safetensors of refs/pr/7, the hub's conversion"
        assert hub.describe(name) == line
        facts = hub.facts(name)
        assert (facts["commit"], facts["weights_commit"]) == (NEW, CONVERTED)
        forget()
        assert scale_of(f"{name}@{NEW}") == 1.0  # a commit is that commit
        assert [file.name for file in hub.weights(f"{name}@{NEW}").files] == ["pytorch_model.bin"]
    # The server has gone: the cache has the conversion too.
    forget()
    assert scale_of(name) == 1.0
    head, tail = line.split(" of refs")
    assert hub.describe(name).startswith(f"{head}, from the cache (ConnectError: ")
    assert hub.describe(name).endswith(tail)
    assert hub.facts(name) == facts


@pytest.mark.parametrize(
    "pulls, pickle",
    [
        ([pull(7, "somebody")], None),  # not by the hub
        ([pull(7) | {"isPullRequest": False}], None),
        ([pull(7)], b"other weights"),
        ([pull(8)], None),  # a reference that is not there
        ([{"num": 7}], None),  # another protocol
    ],
)
def test_any_other_pull_request_is_not_taken(contents, client, pulls, pickle):
    with serve({"made/clip": with_conversion(contents, pulls, pickle)}) as (address, _):
        client(address)
        assert hub.weights("made/clip").files[0].name == "pytorch_model.bin"


@pytest.mark.parametrize("resets", [False, True])
def test_a_dropped_download_goes_on(contents, client, resets):
    name = "openai/clip-vit-base-patch16"
    repository = Repository({NEW: tree(contents[1.0], FILES[name])}, resets=resets)
    repository.drops = {"pytorch_model.bin": 2, "config.json": 1}
    with serve({name: repository}) as (address, _):
        client(address)
        assert scale_of(name) == 1.0
    assert not any(repository.drops.values())


def test_a_mirror_without_hashes_is_said_and_loads(contents, client):
    name = "openai/clip-vit-large-patch14"
    mirror = Repository({NEW: tree(contents[1.0], FILES[name])}, hashes=False)
    with serve({name: mirror}) as (address, _):
        client(address)
        assert scale_of(name) == 1.0
        words = "model.safetensors, hashes not compared: the hub gave none"
        assert hub.describe(name).endswith(words)


def test_a_cache_that_something_else_filled(contents, client, tmp_path):
    """Offline, without our record: the cache's newest commit, whose hashes nobody can tell."""
    from huggingface_hub import hf_hub_download

    name = "openai/clip-vit-large-patch14"
    repository = Repository({NEW: tree(contents[1.0], FILES[name])}, hashes=False)
    with serve({name: repository}) as (address, _):
        client(address)
        for file in ("config.json", "pytorch_model.bin"):
            hf_hub_download(name, file)
    assert scale_of(name) == 1.0
    assert "pytorch_model.bin, read without unpickling, from the cache (" in hub.describe(name)


def test_what_cannot_be_had_ends_in_one_sentence(contents, client, monkeypatch):
    from huggingface_hub import constants

    whole = tree(contents[1.0], FILES["openai/clip-vit-base-patch16"])
    timm = tree(contents[1.0], FILES["timm/vit_base_patch16_clip_224.openai"])
    timm["config.json"] = json.dumps({"architecture": "vit_base_patch16_clip_224"}).encode()
    half = {"config.json": whole["config.json"], "model.fp16.safetensors": b""}
    repositories = {
        "made/gated": Repository({NEW: whole}, gated=True),
        "made/clip": Repository({NEW: whole}),
        "made/half": Repository({NEW: half}),
        "made/timm": Repository({NEW: timm}),
        "made/words": Repository({NEW: {"README.md": b""}}),
        "made/old": Repository({NEW: whole | {"pytorch_model.bin": b"\x80\x02."}}),
    }
    with serve(repositories) as (address, asked):
        client(address)
        for source, words in {
            "made/gated": f"It is gated: accept its terms at {address}/made/gated, set HF_TOKEN",
            "made/nothing": "Check the id, set HF_TOKEN if it is private",
            "made/clip@v9": "It has no revision 'v9'",
            "made/half": "in half precision only .model.fp16.safetensors.",
            "made/timm": "is of model_type None, expected 'clip'",
            "made/words": r"has no config.json, .* found \['README.md'\]",
            "made/old": "pytorch_model.bin cannot be read safely: it is no zip",
            "./weights/clip": "Give an existing folder, an id like openai/",
        }.items():
            with pytest.raises(ValueError, match=words) as error:
                scale_of(source)
            assert "\n" not in str(error.value)
        assert fetched(asked) & {"model.safetensors", "model.fp16.safetensors"} == set()
    with pytest.raises(ValueError, match=r"ConnectError.*Check the network, HTTPS_PROXY"):
        scale_of("made/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = "HF_HUB_OFFLINE is set: unset it, fill the cache by `hf download made/away`"
    with pytest.raises(ValueError, match=words):
        scale_of("made/away")


def resolved(address, cache, *sources):
    """(exit code, what each source is, errors)."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
        "XLA_FLAGS": "",
        "no_proxy": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", CODE, *sources]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_hub_id_is_downloaded_once_without_what_can_run_and_a_commit_stays_that_commit(
    contents, tmp_path
):
    names = ("config.json", "model.safetensors", "pytorch_model.bin", "run.py")
    commits = {OLD: tree(contents[1.0], names), NEW: tree(contents[2.0], names)}
    with serve({"made/clip": Repository(commits)}) as (address, asked):
        code, (newest,), errors = resolved(address, tmp_path, "made/clip")
        name, files, scale = newest
        assert (code, name, scale) == (0, NEW, 2.0), errors
        assert files == ["config.json", "model.safetensors"]
        asked.clear()
        code, (again, older), errors = resolved(address, tmp_path, "made/clip", f"made/clip@{OLD}")
        assert (code, again, older[::2]) == (0, newest, [OLD, 1.0]), errors
        assert sum(path.endswith(f"{OLD}/model.safetensors") for path in asked) > 0
        # The newest is in the cache.
        assert not any(path.endswith(f"{NEW}/model.safetensors") for path in asked)
    # The server has gone: a pinned commit is on disk.
    code, found, errors = resolved(address, tmp_path, f"made/clip@{OLD}", "made/other")
    assert (code, found) == (1, [older]) and "no weights at 'made/other'" in errors
    for name in ("model.safetensors", "config.json"):  # a bit flips in the cache
        (file,) = tmp_path.glob(f"*/snapshots/{OLD}/{name}")
        content = bytearray(file.read_bytes())
        content[-9] ^= 1
        file.resolve().write_bytes(content)
        code, found, errors = resolved(address, tmp_path, f"made/clip@{OLD}")
        assert (code, found) == (1, [])
        assert f"{name} has the hash" in errors and "to have it downloaded again" in errors
        content[-9] ^= 1
        file.resolve().write_bytes(content)
