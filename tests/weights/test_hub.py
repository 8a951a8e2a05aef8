"""Weights by their hub id: the protocol of the Hugging Face hub, spoken by a server of this test's
own."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxord.models.clip import ClipSettings, Tower
from jaxord.weights import hf_clip

OLD, NEW = "1" * 40, "2" * 40  # commits
TOWER = Tower(width=8, layers=1, heads=2, mlp=8)
SETTINGS = ClipSettings(
    vision=TOWER,
    text=TOWER,
    image_size=8,
    patch_size=8,
    vocab_size=16,
    max_positions=9,
    projection_dim=4,
    eos_token_id=15,
)
CODE = """
import json, sys
from jaxord.weights import hf_clip, hub
for source in sys.argv[1:]:
    folder = hub.resolve(source)
    scale = hf_clip.load(folder, hf_clip.parameters(hf_clip.read_settings(folder)))["logit_scale"]
    names = sorted(file.name for file in folder.iterdir())
    print(json.dumps([folder.name, names, float(scale)]), flush=True)
"""


@contextlib.contextmanager
def hub(repositories):
    """(address, requests) of a server of {"name": {commit: {file name: bytes}}}, whose `main` is
    the last commit."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self, body=True):
            asked.append(self.path)
            parts = self.path.partition("?")[0].strip("/").split("/")
            about = parts[:2] == ["api", "models"]
            name, verb, revision, *rest = (
                ["/".join(parts[2:4]), *parts[4:]] if about else ["/".join(parts[:2]), *parts[2:]]
            )
            commits = repositories.get(name, {})
            commit = list(commits)[-1] if commits and revision == "main" else revision
            files = commits.get(commit, {})
            if about and verb == "tree":
                content = [
                    {"type": "file", "path": path, "size": len(data), "oid": sha(path, data)}
                    for path, data in files.items()
                ]
            else:
                content = {
                    "id": name,
                    "sha": commit,
                    "siblings": [{"rfilename": path} for path in files],
                }
            data = json.dumps(content).encode() if about else files.get("/".join(rest), b"")
            self.send_response(200 if files and (about or data) else 404)
            headers = {
                "X-Repo-Commit": commit,
                "ETag": f'"{sha(parts[-1], data)}"',
                "Content-Length": str(len(data)),
            }
            for key, value in (
                headers if files else {"X-Error-Code": "RepoNotFound", "Content-Length": "0"}
            ).items():
                self.send_header(key, value)
            self.end_headers()
            if body and files:
                self.wfile.write(data)

        def do_HEAD(self):
            self.do_GET(body=False)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def sha(path, data):
    """As the hub does: large files by the hash of their content, those of git by that of their
    blob."""
    large = path.endswith((".safetensors", ".bin"))
    return (
        hashlib.sha256(data).hexdigest()
        if large
        else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    )


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """Two commits of a checkpoint, which differ in logit_scale, each with a pickle and a program
    beside it."""
    found = {}
    for commit, scale in ((OLD, 1.0), (NEW, 2.0)):
        folder = tmp_path_factory.mktemp("weights")
        arrays = {
            path: np.full(spec.shape, scale, np.float32)
            for path, spec in hf_clip.parameters(SETTINGS).items()
        }
        hf_clip.save(folder, arrays, SETTINGS)
        found[commit] = {file.name: file.read_bytes() for file in folder.iterdir()}
        found[commit] |= {"pytorch_model.bin": b"a pickle", "run.py": b"raise SystemExit"}
    return found


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
    done = subprocess.run(
        [sys.executable, "-c", CODE, *sources],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_hub_id_is_downloaded_once_without_what_can_run_and_a_commit_stays_that_commit(
    commits, tmp_path
):
    with hub({"made/clip": commits}) as (address, asked):
        code, (newest,), errors = resolved(address, tmp_path, "made/clip")
        name, files, scale = newest
        assert (code, name, scale) == (0, NEW, 2.0), errors
        assert {"config.json", "model.safetensors"} <= set(files) and not {
            "pytorch_model.bin",
            "run.py",
        } & set(files)
        asked.clear()
        code, (again, older), errors = resolved(address, tmp_path, "made/clip", f"made/clip@{OLD}")
        assert (code, again, older[::2]) == (0, newest, [OLD, 1.0]), errors
        assert sum(path.endswith(f"{OLD}/model.safetensors") for path in asked) > 0
        assert not any(
            path.endswith(f"{NEW}/model.safetensors") for path in asked
        )  # it is in the cache
    # The server has gone: a pinned commit is on disk.
    code, found, errors = resolved(address, tmp_path, f"made/clip@{OLD}", "made/other")
    assert (code, found) == (1, [older]) and "no weights at 'made/other'" in errors
    for name in ("model.safetensors", "config.json"):  # a bit flips in the cache
        (file,) = tmp_path.glob(f"*/snapshots/{OLD}/{name}")
        content = bytearray(file.read_bytes())
        content[-9] ^= 1
        file.resolve().write_bytes(content)
        code, found, errors = resolved(address, tmp_path, f"made/clip@{OLD}")
        assert (
            (code, found) == (1, [])
            and f"{name} has the hash" in errors
            and "to have it downloaded again" in errors
        )
        content[-9] ^= 1
        file.resolve().write_bytes(content)
