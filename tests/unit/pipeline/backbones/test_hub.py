"""Fetching from the hub: what lies here is not asked for, a hiccup is not the end of a run."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from pipeline.backbones import hub, load_backbone
from pipeline.backbones.checkpoint import pinned_revision
from pipeline.errors import BackboneError, HubError


class Busy(Exception):
    """What the client raises for an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status_code=status)


class TransportError(Exception):
    """The base of what httpx raises for a network that stumbles."""


class ConnectError(TransportError):
    """One of them."""


class Hub:
    """A hub of one repository, and a cache; `faults` are raised by the next calls that reach it."""

    def __init__(self, repo: Path, cache: Path) -> None:
        self.repo, self.cache = repo, cache
        self.faults: list[Exception] = []
        self.calls = 0

    def _reach(self) -> None:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)

    def snapshot_download(self, repo_id, *, revision, allow_patterns, local_files_only=False):
        if local_files_only:
            if not self.cache.exists():
                raise FileNotFoundError(repo_id)
            return str(self.cache)
        self._reach()
        self.cache.mkdir(exist_ok=True)
        for name in filter_repo_objects(self.names(), allow_patterns=allow_patterns):
            shutil.copy(self.repo / name, self.cache / name)
        return str(self.cache)

    def list_repo_files(self, repo_id, *, revision):
        self._reach()
        return self.names()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.repo.iterdir())


@pytest.fixture
def remote(tiny_backbone, tmp_path, monkeypatch) -> Hub:
    """A checkpoint in both formats on the hub, and waits that are counted and not waited."""
    repo = Path(shutil.copytree(tiny_backbone, tmp_path / "repo"))
    torch.save(load_file(repo / "model.safetensors"), repo / "pytorch_model.bin")
    (repo / "ema.safetensors").write_bytes(b"other")
    stand_in = Hub(repo, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in.snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: stand_in)
    return stand_in


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def test_only_the_weights_that_are_loaded_are_fetched(remote, waits):
    assert load_backbone("me/model").num_classes == 5
    assert sorted(path.name for path in remote.cache.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert waits == []


def test_what_lies_in_the_cache_is_not_asked_for(remote, waits):
    load_backbone("me/model")
    remote.calls = 0
    remote.faults = [AssertionError("asked the hub")]
    assert load_backbone("me/model").num_classes == 5
    assert remote.calls == 0


@pytest.mark.parametrize("lacking", ["model.safetensors", "preprocessor_config.json"])
def test_a_partial_cache_is_completed(remote, waits, lacking):
    load_backbone("me/model")
    (remote.cache / lacking).unlink()
    assert load_backbone("me/model").num_classes == 5
    assert (remote.cache / lacking).is_file()


def test_the_old_format_in_the_cache_serves_only_where_the_hub_cannot(remote, waits):
    shutil.copytree(remote.repo, remote.cache)
    (remote.cache / "model.safetensors").unlink()
    remote.faults = [OfflineModeIsEnabled("offline")]
    assert load_backbone("me/model").num_classes == 5
    assert not (remote.cache / "model.safetensors").exists()
    load_backbone("me/model")
    assert (remote.cache / "model.safetensors").exists()


@pytest.mark.parametrize(
    "fault",
    [
        ConnectError("no route"),
        ConnectionResetError("peer"),
        TimeoutError("slow"),
        Busy(429),
        Busy(503),
    ],
    ids=repr,
)
def test_a_hiccup_is_tried_again_after_a_wait_that_differs(remote, waits, fault):
    wrapped = FileNotFoundError("cannot find the snapshot locally")
    wrapped.__cause__ = fault  # as the client has it where nothing is cached
    remote.faults = [fault, wrapped]
    assert load_backbone("me/model").num_classes == 5
    assert len(waits) == 2
    assert 1 <= waits[0] <= 2 <= waits[1] <= 4


def test_a_hub_out_of_reach_is_one_error_after_a_bounded_number_of_tries(remote, waits):
    remote.faults = [ConnectError("no route")] * 99
    with pytest.raises(BackboneError, match=r"'me/model'.*tried 4 times.*ConnectError: no route"):
        load_backbone("me/model")
    assert remote.calls == 4
    assert sum(waits) < 15


def test_a_client_that_tries_for_long_by_itself_is_not_asked_again(remote, waits, monkeypatch):
    """Newer ones do, for half a minute a call."""
    clock = itertools.count(step=11)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    remote.faults = [ConnectError("no route")] * 99
    with pytest.raises(BackboneError, match="tried 2 times in 22 s"):
        load_backbone("me/model")


@pytest.mark.parametrize(
    "fault",
    [Busy(401), Busy(404), OfflineModeIsEnabled("offline"), ValueError("no such id"),
     OSError(28, "No space left on device")],
    ids=repr,
)  # fmt: skip
def test_what_will_not_change_is_not_tried_again(remote, waits, fault):
    remote.faults = [fault] * 9
    with pytest.raises(BackboneError, match=type(fault).__name__):
        load_backbone("me/model")
    assert remote.calls == 1
    assert waits == []


def test_an_error_says_what_was_asked_for(waits):
    def fail() -> None:
        raise Busy(404)

    with pytest.raises(HubError, match=r"'me/model' \(revision v2\): Busy: HTTP 404"):
        hub.retried("me/model", "v2", fail)


def test_a_port_that_refuses_counts_as_a_hiccup(monkeypatch):
    """With the installed client's own errors, whichever library it is built on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        HfApi(endpoint="http://127.0.0.1:9").model_info("me/model", timeout=5)
    assert hub.is_transient(raised.value)


def test_a_hub_id_is_pinned_to_the_commit_that_was_found(remote, waits, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    remote.cache = remote.cache / "models--me--model" / "snapshots" / commit
    remote.cache.parent.mkdir(parents=True)
    assert pinned_revision("me/model", "main") == commit
    asked = remote.calls
    assert pinned_revision("me/model", "main") == commit
    assert remote.calls == asked, "the second time it lies here"
    assert pinned_revision(str(remote.repo)) is None
    assert pinned_revision("synthetic") is None
