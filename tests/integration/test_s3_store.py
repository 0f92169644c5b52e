"""The store on an object store: a local S3 server gives the same bytes as a folder."""

from __future__ import annotations

import gc
import hashlib
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ClipStatus, StoreError, StoreMismatchError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.inventory import remove_leftovers
from pipeline.store.reader import open_store
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from tests.stores import file_hashes, make_result, make_store

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

pytestmark = [
    # botocore and moto, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto.*"),
    # Nobody closes the connections of the file system that Zarr makes for itself.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FAILED = {3: ClipStatus.DECODE_ERROR}


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; found through the environment alone, as a user's would be."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    gc.collect()  # so that the warning above is given here, where it is ignored


def object_hashes(url: str) -> dict[str, str]:
    root = Root(url)
    return {rel: hashlib.sha256(root.get(rel)).hexdigest() for rel in root.walk()}


def test_the_same_bytes_as_on_a_folder(bucket: str, tmp_path: Path) -> None:
    make_store(tmp_path / "s", 10, failed=FAILED)
    store = make_store(f"{bucket}/stores/s", 10, failed=FAILED, shards=[2, 0])
    assert store.summary() == {"ok": 5, "decode_error": 1, "pending": 4}
    make_store(f"{bucket}/stores/s", 10, failed=FAILED)  # resumed
    assert object_hashes(f"{bucket}/stores/s") == file_hashes(tmp_path / "s")


def test_reading_it(bucket: str, tmp_path: Path) -> None:
    local = make_store(tmp_path / "s", 10, failed=FAILED)
    store = make_store(f"{bucket}/s", 10, failed=FAILED)
    assert store.clips().equals(local.clips())
    assert store.tokens(min_score=0.5).equals(local.tokens(min_score=0.5))
    assert store.plan().equals(local.plan())
    np.testing.assert_array_equal(store.scores()[2:6], local.scores()[2:6])
    got, expected = store.read_shard(1), local.read_shard(1)
    np.testing.assert_array_equal(got.cam, expected.cam)
    assert got.embeddings is not None
    np.testing.assert_array_equal(got.embeddings, expected.embeddings)


def test_continuing_retrying_and_cleaning(bucket: str) -> None:
    store = make_store(f"{bucket}/s", 10, failed=FAILED)
    with pytest.raises(StoreMismatchError, match="method: gradcam -> hirescam"):
        make_store(f"{bucket}/s", 10, method="hirescam")
    before = object_hashes(f"{bucket}/s")
    ShardWriter(store.root).write(0, ShardWriter(store.root).load(0))
    assert object_hashes(f"{bucket}/s") == before
    ShardWriter(store.root).write(0, make_result(store, 0))
    assert store.summary() == {"ok": 10, "pending": 0}
    store.root.remove(layout.clips_path(1))
    assert remove_leftovers(store.root, store.info) == sorted(store.info.shard_files(1))


def test_verify_sees_damage(bucket: str) -> None:
    store = make_store(f"{bucket}/s", 10, failed=FAILED)
    assert verify_store(store.root) == []
    store.root.put("oracle.zarr/cam/c.1.0.0.0", b"garbage")
    store.root.remove(layout.tokens_path(2))
    store.root.put("clips/notes.txt", b"hello")
    assert [p.where for p in verify_store(f"{bucket}/s")] == [
        "oracle.zarr/cam/c.1.0.0.0",
        "tokens/shard-00002.parquet",
        "clips/notes.txt",
    ]


def test_another_process_sees_what_this_one_wrote(bucket: str) -> None:
    """And this one sees what another removes: no listing is taken from a cache."""
    store = make_store(f"{bucket}/s", 10, shards=[0, 1])
    assert store.shards() == [0, 1]
    script = (
        "import sys\n"
        "from pipeline.store.root import Root\n"
        "from pipeline.store.reader import open_store\n"
        "root = Root(sys.argv[1])\n"
        "assert open_store(root).shards() == [0, 1]\n"
        "root.remove('clips/shard-00001.parquet')\n"
    )
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, f"{bucket}/s"], check=True, cwd=folder)
    assert store.shards() == [0]


def test_no_store_and_no_bucket(bucket: str) -> None:
    with pytest.raises(StoreNotFoundError, match="no store at s3://"):
        open_store(f"{bucket}/nothing")
    Root(f"{bucket}/other").put("thesis.tex", b"precious")
    with pytest.raises(StoreError, match="no store and not empty"):
        make_store(f"{bucket}/other", 4)
    with pytest.raises(StoreNotFoundError):
        open_store("s3://no-such-bucket-anywhere/s")
