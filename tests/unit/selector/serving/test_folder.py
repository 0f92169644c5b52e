"""A server's folder goes with it; what a killed one left goes with the next one's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from selector.serving.folder import upload_folder

SERVE = """
from selector.serving.folder import upload_folder
with upload_folder() as folder:
    (folder / "upload").write_bytes(b"a video")
    print(folder, flush=True)
    input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def there(place):
    return {path.name for path in place.iterdir()}


def test_only_what_a_dead_server_left_is_removed(temporary):
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    folders = [Path(server.stdout.readline().strip()).name for server in (killed, living)]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # What has the name and is none: without a lock (just being made), a link, a file.
    (temporary / "lite-serve-new").mkdir()
    (temporary / "others").mkdir()
    (temporary / "others" / "lock").touch()
    (temporary / "lite-serve-link").symlink_to(temporary / "others")
    (temporary / "lite-serve-file").touch()
    assert set(folders) < there(temporary)
    kept = there(temporary) - {folders[0]}
    with upload_folder() as folder:
        assert there(temporary) == kept | {folder.name}
        assert folder.stat().st_mode & 0o777 == 0o700
    assert there(temporary) == kept
    assert there(temporary / "others") == {"lock"}
    living.communicate("\n")
    assert living.returncode == 0
    assert there(temporary) == kept - {folders[1]}


def test_the_folder_of_another_user_is_left(temporary, monkeypatch):
    (temporary / "lite-serve-x").mkdir()
    (temporary / "lite-serve-x" / "lock").touch()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with upload_folder():
        assert (temporary / "lite-serve-x" / "lock").is_file()
