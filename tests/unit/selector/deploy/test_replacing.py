"""A folder's entries are exchanged together; a process killed at any point leaves no mixture."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from selector.deploy.replacing import check_whole, replacing

NAMES = ("a.json", "b.json", "weights", "gone.json")


def old_folder(folder: Path) -> Path:
    (folder / "weights").mkdir(parents=True)
    for name in ("a.json", "weights/1", "weights/2", "gone.json", "theirs.txt"):
        (folder / name).write_text("old")
    return folder


def write_new(new: Path) -> None:
    (new / "weights").mkdir()
    for name in ("a.json", "b.json", "weights/1"):
        (new / name).write_text("new")


OLD = dict.fromkeys(("a.json", "weights/1", "weights/2", "gone.json", "theirs.txt"), "old")
NEW = {"a.json": "new", "b.json": "new", "weights/1": "new", "theirs.txt": "old"}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_entries_are_exchanged_and_others_left_alone(tmp_path):
    folder = old_folder(tmp_path / "f")
    with replacing(folder, NAMES) as new:
        write_new(new)
        visible = {k: v for k, v in contents(folder).items() if not k.startswith(".")}
        assert visible == OLD
    assert contents(folder) == NEW


@pytest.mark.parametrize("at", range(6))
def test_a_failure_while_exchanging_puts_all_back(tmp_path, monkeypatch, at):
    folder = old_folder(tmp_path / "f")
    rename, count = Path.rename, iter(range(99))

    def failing(source: Path, target: Path) -> Path:
        if next(count) == at:
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"), replacing(folder, NAMES) as new:
        write_new(new)
    assert contents(folder) == OLD


DYING = """
import itertools, os, pathlib, signal, sys
from selector.deploy.replacing import replacing
from tests.unit.selector.deploy.test_replacing import NAMES, write_new

rename, count = pathlib.Path.rename, itertools.count()

def dying(source, target):
    if next(count) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(source, target)

pathlib.Path.rename = dying
with replacing(pathlib.Path(sys.argv[1]), NAMES) as new:
    write_new(new)
"""


def killed_at(folder: Path, at: int) -> bool:
    """Replaces in a process of its own that dies before a rename; whether it died there."""
    command = [sys.executable, "-c", DYING, str(folder), str(at)]
    code = subprocess.run(command, cwd=Path(__file__).parents[4]).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_kill_while_exchanging_leaves_a_folder_that_is_refused_until_it_is_saved(tmp_path):
    for at in range(99):
        folder = old_folder(tmp_path / str(at))
        if not killed_at(folder, at):
            break
        with pytest.raises(ConfigError, match="save again, or move"):
            check_whole(folder)
        with replacing(folder, NAMES) as new:  # what is advised
            write_new(new)
        check_whole(folder)
        assert contents(folder) == NEW
    # Three entries go away and three come, and then all is marked as done.
    assert at == 7
    check_whole(folder)
    assert contents(folder) == NEW


def test_a_folder_made_for_nothing_is_gone(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "f", NAMES):
        raise ZeroDivisionError
    assert not (tmp_path / "f").exists()
