"""The Hugging Face hub on this machine: its protocol, and file lists of real repositories."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import socket
import struct
import threading
import urllib.parse

TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
TOKENIZER += ("vocab.json",)
COMMON = (".gitattributes", "README.md", *TOKENIZER)
FLAX_AND_TF = ("flax_model.msgpack", "tf_model.h5")
CLIP = (*COMMON, "config.json", "preprocessor_config.json")
OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SHARDS = tuple(f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2))
SHARDS += ("pytorch_model.bin.index.json",)
# As the repositories' pages list them; the last three are kinds, not names.
FILES = {
    "openai/clip-vit-base-patch16": (*CLIP, *FLAX_AND_TF, "pytorch_model.bin"),
    "openai/clip-vit-base-patch32": (*CLIP, *FLAX_AND_TF, "pytorch_model.bin"),
    "openai/clip-vit-large-patch14": (
        *CLIP,
        *FLAX_AND_TF,
        "model.safetensors",
        "pytorch_model.bin",
    ),
    "openai/clip-vit-large-patch14-336": (*CLIP, *FLAX_AND_TF[1:], "pytorch_model.bin"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (*CLIP, *OPEN_CLIP, "model.safetensors", *SHARDS),
    "laion/CLIP-ViT-B-16-plain": (*COMMON, *OPEN_CLIP),
    "made/sharded": (*CLIP, *SHARDS),
    "timm/vit_base_patch16_clip_224.openai": (
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
    ),
}


@dataclasses.dataclass
class Repository:
    """A repository of the hub.

    Attributes:
      commits: commit -> {file: content}; the last is main's.
      references: name -> commit, beside main.
      pulls: the list of discussions, as the hub gives it.
      gated: whether files need the terms to be accepted.
      hashes: whether the hub's hashes are told; a mirror may have neither them nor ETags of them.
      drops: file -> number of times that its download ends in the middle.
      resets: whether the connection is then reset, which huggingface_hub itself does not retry.
    """

    commits: dict
    references: dict = dataclasses.field(default_factory=dict)
    pulls: list = dataclasses.field(default_factory=list)
    gated: bool = False
    hashes: bool = True
    drops: dict = dataclasses.field(default_factory=dict)
    resets: bool = False

    def commit_of(self, revision):
        return self.references.get(
            revision, list(self.commits)[-1] if revision == "main" else revision
        )


def sha(path, data):
    """As the hub does: large files by the hash of their content, small ones by git's of a blob."""
    if path.endswith((".safetensors", ".bin", ".h5", ".msgpack")):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pull(number, author="SFconvertbot", title="Adding `safetensors` variant of this model"):
    """A pull request in the hub's list of discussions."""
    kind = {"isPullRequest": True, "status": "open", "repo": {"type": "model", "name": "made/clip"}}
    date = "2023-05-01T00:00:00.000Z"
    return kind | {"num": number, "title": title, "author": {"name": author}, "createdAt": date}


class Handler(http.server.BaseHTTPRequestHandler):
    """The part of the protocol that huggingface_hub speaks to read a model."""

    repositories, asked = {}, []

    def do_GET(self, body=True):
        self.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/")
        about = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repository = self.repositories.get(f"{owner}/{name}")
        rest = [urllib.parse.unquote(part) for part in rest]
        if repository is None:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if about and rest[:1] == ["discussions"]:
            content = {"discussions": repository.pulls, "count": len(repository.pulls), "start": 0}
            return self.answer(200, json.dumps(content).encode(), {}, body)
        commit = repository.commit_of(rest[1] if len(rest) > 1 else "main")
        files = repository.commits.get(commit)
        if files is None:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        if about:
            content = self.describe(f"{owner}/{name}", repository, commit, files)
            return self.answer(200, json.dumps(content).encode(), {}, body)
        return self.send_file(repository, commit, "/".join(rest[2:]), files, body)

    def describe(self, name, repository, commit, files):
        siblings = [{"rfilename": path} for path in files]
        for entry, (path, data) in zip(siblings, files.items(), strict=True):
            if repository.hashes:
                entry |= {"size": len(data), "blobId": "e" * 40}
                digest = sha(path, data)
                large = {"sha256": digest, "size": len(data), "pointerSize": 134}
                entry |= {"lfs": large} if len(digest) == 64 else {"blobId": digest}
        return {"id": name, "sha": commit, "siblings": siblings, "private": False}

    def send_file(self, repository, commit, path, files, body):
        if repository.gated:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        if path not in files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = files[path]
        etag = sha(path, data) if repository.hashes else f"mirror-{len(data)}"
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        status, start = 200, 0
        if self.headers.get("Range"):
            start, status = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body and repository.drops.get(path):
            repository.drops[path] -= 1
            self.answer(status, data[start:], headers, body, end=len(data) // 2)
            if repository.resets:
                self.wfile.flush()
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
            return None
        return self.answer(status, data[start:], headers, body)

    def answer(self, status, data, headers, body, end=None):
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:end])

    def do_HEAD(self):
        self.do_GET(body=False)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(repositories):
    """(address, paths that were asked) of a server of {name: Repository}."""
    asked = []
    handler = type("Hub", (Handler,), {"repositories": repositories, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
