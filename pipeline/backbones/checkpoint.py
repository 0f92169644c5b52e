"""Finding a checkpoint, the files it consists of, and its identity.

A checkpoint is a local folder, a hub id (fetched once into Hugging Face's cache), or `synthetic`,
the small one shipped with this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.backbones import hub
from pipeline.backbones.preprocessing import PROCESSOR_NAMES
from pipeline.errors import BackboneError, HubError

SHIPPED = Path(__file__).parent / "checkpoints"
CONFIG_NAME = "config.json"
_ADAPTER = "adapter_config.json"
# In the order in which transformers looks for them; an index names the files of its shards.
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_WEIGHTS = (*_SAFETENSORS, "pytorch_model.bin", "pytorch_model.bin.index.json")


def find_checkpoint(name_or_path: str, revision: str | None = None) -> Path:
    """Return the local folder of a checkpoint, downloading a hub id if need be.

    A hub id that lies complete in the local cache is not looked up on the hub; of another one only
    the weights that are loaded are fetched, not their copies in other formats.

    Raises:
        BackboneError: neither a folder with a `config.json`, nor shipped, nor reachable on the hub.
    """
    return _local(name_or_path) or _from_hub(name_or_path, revision, _download)


def pinned_revision(name_or_path: str, revision: str | None = None) -> str | None:
    """The commit that a hub id and revision stand for here and now; None for a folder.

    Raises:
        BackboneError: see `find_checkpoint`.
    """
    folder = find_checkpoint(name_or_path, revision)
    # The hub's cache has one folder a commit: models--NAME/snapshots/COMMIT.
    return folder.name if folder.parent.name == "snapshots" else None


def find_config(name_or_path: str, revision: str | None = None) -> Path:
    """`find_checkpoint` for its `config.json` alone: no weights are downloaded."""
    return _local(name_or_path) or _from_hub(
        name_or_path, revision, lambda name, at: hub.download(name, at, [CONFIG_NAME])
    )


def _local(name_or_path: str) -> Path | None:
    if (SHIPPED / name_or_path / CONFIG_NAME).is_file():
        return SHIPPED / name_or_path
    folder = Path(name_or_path).expanduser()
    if folder.is_file():
        hint = ", or convert VideoMAE's own file first: lite-pipeline import-checkpoint"
        raise BackboneError(
            f"{folder} is a file; give the folder that save_pretrained wrote"
            + hint * (folder.suffix in (".pth", ".pt"))
        )
    if not folder.is_dir():
        return None
    if not (folder / CONFIG_NAME).is_file():
        raise BackboneError(
            f"{folder} holds no {CONFIG_NAME}: give the folder that save_pretrained wrote"
        )
    return folder


def _from_hub(name: str, revision: str | None, fetch: Callable[[str, str | None], Path]) -> Path:
    try:
        return fetch(name, revision)
    except HubError as error:
        raise BackboneError(
            f"backbone {name!r} is neither a folder here nor a checkpoint on the hub: {error}"
        ) from error


def _download(repo_id: str, revision: str | None) -> Path:
    there = hub.cached(repo_id, revision, ["*.json"])
    if there is not None and _is_complete(there, _SAFETENSORS):
        return there
    try:
        folder = hub.download(repo_id, revision, ["*.json"])
        names = hub.list_files(repo_id, revision)
        wanted = _weight_names(names, lambda name: (folder / name).read_bytes(), repo_id)
        return hub.download(repo_id, revision, ["*.json", *wanted])
    except HubError:
        if there is not None and _is_complete(there, _WEIGHTS):
            return there  # in a format that is not preferred, but all that can be had
        raise


def _is_complete(folder: Path, accepted: Collection[str]) -> bool:
    has = [(folder / name).is_file() for name in (CONFIG_NAME, *PROCESSOR_NAMES)]
    if not has[0] or not any(has[1:]):
        return False
    try:
        weight_files(folder)
    except BackboneError:
        return False
    return any((folder / name).is_file() for name in accepted)


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that hold the weights which transformers loads, and no others.

    Raises:
        BackboneError: there are none, one of them is missing, or an adapter would be loaded too.
    """
    names = [path.name for path in folder.iterdir()]
    files = [
        folder / name
        for name in _weight_names(names, lambda name: (folder / name).read_bytes(), str(folder))
    ]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BackboneError(
            f"{folder} lacks {', '.join(missing[:3])}, which its index lists: copy the whole "
            "checkpoint"
        )
    return files


def _weight_names(names: Collection[str], read: Callable[[str], bytes], where: str) -> list[str]:
    """Sorted names of the weight files among all names of a checkpoint's files.

    Args:
        names: of all files.
        read: the content of one.
        where: names the checkpoint in errors.
    """
    first = _opened_first(names, read, where)
    if not first.endswith(".index.json"):
        return [first]
    shards = _parsed(read, first, where).get("weight_map")
    listed = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    if not listed or any(Path(name).name != name for name in listed):
        raise BackboneError(f"{where}: {first} does not list the files of this folder's weights")
    return sorted(listed)


def _opened_first(names: Collection[str], read: Callable[[str], bytes], where: str) -> str:
    """The weights in one file, or the index of their shards; see `_weight_names`."""
    if _ADAPTER in names:
        # With peft installed, transformers loads the adapter on top of the weights; without, not.
        raise BackboneError(
            f"{where} holds an adapter ({_ADAPTER}), whose weights may or may not be in the "
            "checkpoint's already: save the model with the adapter merged "
            "(merge_and_unload().save_pretrained) into a folder of its own, or remove that file"
        )
    explicit = _parsed(read, CONFIG_NAME, where).get("transformers_weights")
    first = next((name for name in ([explicit] if explicit else _WEIGHTS) if name in names), None)
    if first is None:
        others = sorted(n for n in names if n.endswith((".safetensors", ".bin", ".pt", ".pth")))
        seen = f" (it has {', '.join(others[:3])}, which transformers does not load)" * bool(others)
        raise BackboneError(
            f"{where} holds no weights: {explicit or ', '.join(_WEIGHTS)}{seen}; give the folder "
            "that save_pretrained wrote"
        )
    return first


def checkpoint_files(folder: Path) -> list[Path]:
    """All files that a checkpoint consists of: configurations, weights, and their index.

    Raises:
        BackboneError: see `weight_files`.
    """
    names = [path.name for path in folder.iterdir()]
    opened = _opened_first(names, lambda name: (folder / name).read_bytes(), str(folder))
    named = {CONFIG_NAME, *PROCESSOR_NAMES, opened} & set(names)
    return sorted({folder / name for name in named} | set(weight_files(folder)))


def checkpoint_digest(folder: Path) -> str:
    """Hex SHA-256 over weights, model and processor configuration: the checkpoint's identity."""
    digest = hashlib.sha256()
    configs = [folder / name for name in (CONFIG_NAME, *PROCESSOR_NAMES)]
    for path in [*(path for path in configs if path.is_file()), *weight_files(folder)]:
        stat = path.stat()
        stamp = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        digest.update(path.name.encode())
        digest.update(_file_digest(path.resolve(), stamp))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_digest(path: Path, stamp: tuple[int, ...]) -> bytes:
    """SHA-256 of a file; a command that opens a checkpoint several times reads gigabytes once.

    Args:
        path: of the file.
        stamp: what changes when the file does.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`.

    Raises:
        BackboneError: it is not JSON.
    """
    return _parsed(lambda name: (folder / name).read_bytes(), CONFIG_NAME, str(folder))


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Silences the bars of transformers: one a worker is noise."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _parsed(read: Callable[[str], bytes], name: str, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(read(name)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BackboneError(f"cannot read {name} in {where}: {error}") from error
