"""A decoder that cannot work is found out at the start of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.clips.views import frame_indices
from pipeline.decode import DecodeRequest, check_decoder, decode_version, decode_video
from pipeline.errors import ConfigError, DecodeError
from tests.videos import read_markers, write_video


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    check_decoder.cache_clear()
    yield
    check_decoder.cache_clear()


def test_the_default_decoder_works_and_names_its_versions() -> None:
    check_decoder("pyav")
    assert decode_version("pyav").startswith("av ")
    assert "libavcodec " in decode_version("pyav")


def test_decord_works_where_it_is_installed() -> None:
    pytest.importorskip("decord", reason="DECORD IS NOT INSTALLED")
    check_decoder("decord")
    assert "decord" in decode_version("decord")


def test_an_unknown_decoder_is_refused_with_the_choice() -> None:
    with pytest.raises(ConfigError, match="one of pyav, decord, torchcodec, got 'opencv'"):
        check_decoder("opencv")


def test_a_missing_library_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.delitem(sys.modules, "pipeline.decode.torchcodec", raising=False)
    with pytest.raises(ConfigError, match=r"lite-pipeline\[torchcodec\].*FFmpeg.*--decoder pyav"):
        check_decoder("torchcodec")


def test_a_library_that_fails_only_when_used_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(request: DecodeRequest) -> None:
        raise RuntimeError("Could not load libtorchcodec.\nLikely causes: ...")

    monkeypatch.setattr("pipeline.decode.pyav.decode", no_library)
    with pytest.raises(ConfigError, match="does not work here: .*Could not load libtorchcodec"):
        check_decoder("pyav")


def test_it_is_found_out_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """But a failure may have been mended since, and is found out again."""
    probes: list[str] = []

    def broken(request: DecodeRequest) -> None:
        probes.append(request.path)
        raise RuntimeError("no library")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.decode.pyav.decode", broken)
        for _ in range(2):
            with pytest.raises(ConfigError, match="no library"):
                check_decoder("pyav")
    assert len(probes) == 2
    check_decoder("pyav")
    monkeypatch.setattr("pipeline.decode.pyav.decode", broken)
    check_decoder("pyav")
    assert len(probes) == 2


def test_torchcodec_gives_pyavs_frames(tmp_path: Path) -> None:
    try:
        check_decoder("torchcodec")
    except ConfigError as error:
        pytest.skip(f"TORCHCODEC IS NOT TESTED: {error}")
    for name, refused in (("a.mp4", False), ("a.avi", True)):
        kind = {"codec": "mpeg4", "options": {"bf": "2"}} if refused else {}
        path = write_video(tmp_path / name, 40, **kind)
        request = DecodeRequest(
            path=str(path), num_frames=8, size=64, short_side=64, decoder="torchcodec"
        )
        if refused:
            with pytest.raises(DecodeError, match="AVI file with B-frames"):
                decode_video(request)
        else:
            video = decode_video(request)
            assert video.clips.dtype == np.uint8
            assert read_markers(video.clips[0]) == frame_indices(40, 8).tolist()
