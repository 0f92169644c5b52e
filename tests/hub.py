"""A stand-in for the Hugging Face hub: what its client asks over HTTP to upload and download."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

Files = dict[str, bytes]


class Hub:
    """A hub with any number of repositories; weights go by LFS, other files with the commit.

    Attributes:
        url: its address.
        repos: for each, its commits in order: an id, and all files by path.
        stumbles: paths of requests (regular expressions) that get a 503, each once.
    """

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, Files]]] = {}
        self.created: list[dict[str, Any]] = []
        self.blobs: Files = {}
        self.stumbles: list[str] = []
        self.url = ""

    def files(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """Commit id and files of a revision, `main` or an id."""
        for commit, files in reversed(self.repos.get(repo, [])):
            if revision in ("main", commit):
                return commit, files
        return None

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> str:
        """Take in a commit as the client writes it; its id."""
        files = dict(self.repos[repo][-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        number = str(len(self.repos[repo]))
        self.repos[repo].append((hashlib.sha1(number.encode()).hexdigest(), files))
        return self.repos[repo][-1][0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        for stumble in self.hub.stumbles:
            if re.search(stumble, path):
                self.hub.stumbles.remove(stumble)
                return self._answer(503)
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return method(self, body, *found.groups())
        return self._answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        self.hub.created.append(asked)
        repo = f"{asked['organization']}/{asked['name']}"
        there = repo in self.hub.repos
        self.hub.repos.setdefault(repo, [("0" * 40, {".gitattributes": b""})])
        self._answer(409 if there else 200, {"url": f"{self.hub.url}/{repo}"})

    def _validate(self, body: bytes) -> None:
        """As the hub does with a card: its metadata must be YAML, with fields of known types."""
        found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.S)
        metadata = yaml.safe_load(found[1]) if found else {}
        wrong = [name for name in metadata if not isinstance(metadata[name], str | list | dict)]
        errors = [{"message": f"{name} is of no known type"} for name in wrong]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _preupload(self, body: bytes, repo: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def _lfs_batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        self._answer(200, {"objects": objects, "transfer": "basic"})

    def _lfs_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self._answer(200)

    def _commit(self, body: bytes, repo: str, branch: str) -> None:
        commit = self.hub.commit(repo, [json.loads(line) for line in body.splitlines()])
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self._answer(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def _info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        found = self.hub.files(repo, revision or "main")
        if found is None:
            return self._answer(404, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": name} for name in found[1]]
        return self._answer(200, {"id": repo, "sha": found[0], "siblings": siblings})

    def _tree(self, body: bytes, repo: str, revision: str) -> None:
        found = self.hub.files(repo, revision)
        if found is None:
            return self._answer(404, X_Error_Code="RevisionNotFound")
        return self._answer(
            200,
            [
                {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
                for path, data in found[1].items()
            ],
        )

    def _resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        found = self.hub.files(repo, revision)
        if found is None or path not in found[1]:
            return self._answer(404, X_Error_Code="EntryNotFound")
        data = found[1][path]
        etag = f'"{_git_oid(data)}"'
        return self._answer(200, data, ETag=etag, X_Repo_Commit=found[0])


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    (r"POST /api/repos/create", _Handler._create),
    (r"POST /api/validate-yaml", _Handler._validate),
    (rf"POST /api/models/{_REPO}/preupload/main", _Handler._preupload),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", _Handler._lfs_batch),
    (r"PUT /lfs/(\w+)", _Handler._lfs_put),
    (rf"POST /api/models/{_REPO}/commit/(main)", _Handler._commit),
    (rf"GET /api/models/{_REPO}", _Handler._info),
    (rf"GET /api/models/{_REPO}/revision/(\w+)", _Handler._info),
    (rf"GET /api/models/{_REPO}/tree/(\w+)", _Handler._tree),
    (rf"(?:GET|HEAD) /{_REPO}/resolve/(\w+)/(.+)", _Handler._resolve),
]


_port: dict[str, int] = {}
"""Of the process's first hub: libraries remember the address from when they were imported."""


@contextlib.contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub and transformers take for the real one, and an empty cache."""
    hub = _Handler.hub = Hub()  # of the class: connections that a client keeps open ask it, too
    server = ThreadingHTTPServer(("127.0.0.1", _port.get("first", 0)), _Handler)
    _port["first"] = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        # Its server speaks another protocol, of which there is no stand-in.
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
