"""The folder: equal bytes, resumed where it stopped, never mixed, readable as SSv2."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from datasets_spec import DatasetSpecError, load_spec, read_label_names, read_videos
from datasets_spec.synthetic import benchmark, make
from datasets_spec.synthetic.actions import ACTIONS
from datasets_spec.synthetic.actors import NO_ACTION, read_actors, token_cover
from datasets_spec.synthetic.annotations import video_path
from datasets_spec.synthetic.render import render
from datasets_spec.synthetic.scene import draw_scene
from pipeline.decode import DecodeRequest
from selector.methods.rank.motion_vectors import read_vectors

COUNT, SEED = 40, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "data"
    make(root, COUNT, SEED, workers=0)
    return root


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_parallel_rendering_gives_the_same_bytes(folder, tmp_path):
    make(tmp_path / "b", COUNT, SEED, workers=2)
    assert contents(tmp_path / "b") == contents(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_rendering_leaves_no_process_and_resumes(how, tmp_path):
    root = tmp_path / "b"
    call = f"if __name__ == '__main__': make({str(root)!r}, 400, 5, workers=2)"
    script = tmp_path / "render.py"
    script.write_text(f"from datasets_spec.synthetic import make\n{call}\n")
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, process_group=0)
    while len(list(root.glob("*/*.webm"))) < 20:
        assert parent.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) >= 2
    parent.send_signal(how)
    assert parent.wait(20) != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a rendering process outlived its parent"
        time.sleep(0.1)
    assert 20 <= len(list(root.glob("*/*.webm"))) < 400
    assert not (root / "labels").exists()
    make(root, 400, 5, workers=2)
    assert len(contents(root)) == 400 + 1 + 5 + 3


def test_an_interrupted_rendering_resumes_to_the_same_bytes(folder, tmp_path, monkeypatch):
    root = tmp_path / "b"
    rendered = 0

    def stop_in_the_middle(scene):
        nonlocal rendered
        rendered += 1
        if rendered == 7:
            raise KeyboardInterrupt
        return render(scene)

    monkeypatch.setattr(benchmark, "render", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        make(root, COUNT, SEED, workers=0)
    assert not (root / "labels").exists()
    killed = root / benchmark.VIDEO_FOLDER / ".9.webm.4711"  # what a killed process leaves
    killed.write_bytes(b"half a video")
    seen = []
    make(root, COUNT, SEED, workers=0, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (6, COUNT)
    assert seen[-1] == (COUNT, COUNT)
    assert rendered == 7 + COUNT - 6
    assert contents(root) == contents(folder)


def test_a_video_that_fails_halfway_is_not_there(tmp_path, monkeypatch):
    frames = render(draw_scene(SEED, 0))
    monkeypatch.setattr(benchmark, "render", lambda scene: np.concatenate([frames, frames[:0]]))
    real = av.VideoFrame.from_ndarray
    calls = 0

    class Broken:
        @staticmethod
        def from_ndarray(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > 5:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

    monkeypatch.setattr(av, "VideoFrame", Broken)
    with pytest.raises(DatasetSpecError, match="cannot write the benchmark to .*No space left"):
        make(tmp_path / "b", 1, SEED, workers=0)
    assert list((tmp_path / "b" / benchmark.VIDEO_FOLDER).iterdir()) == []


def test_other_settings_and_foreign_folders_are_refused(folder, tmp_path):
    with pytest.raises(DatasetSpecError, match=r"num_videos 40 -> 41\): repeat those"):
        make(folder, 41, SEED, workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetSpecError, match="not an empty folder"):
        make(tmp_path, 5, SEED, workers=0)
    with pytest.raises(DatasetSpecError, match="not an empty folder"):
        make(tmp_path / "notes.txt", 5, SEED, workers=0)
    with pytest.raises(DatasetSpecError, match="cannot write"):
        make(tmp_path / "notes.txt" / "below", 5, SEED, workers=0)
    with pytest.raises(DatasetSpecError, match="at least 1 video"):
        make(tmp_path / "none", 0, SEED, workers=0)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_ssv2_reader_reads_it(folder):
    spec = load_spec("synthetic")
    assert read_label_names(spec, folder) == [action.class_name for action in ACTIONS]
    found = {split: read_videos(spec, folder, split) for split in spec.splits}
    assert {split: len(videos) for split, videos in found.items()} == {
        "train": 28,
        "validation": 10,
        "test": 2,
    }
    for video in found["train"] + found["validation"]:
        assert video.label == draw_scene(SEED, int(video.video_id) - 1).label
        assert (folder / video.path).is_file()
    assert [video.label for video in found["test"]] == [None, None]  # held back, as in SSv2
    entry = json.loads((folder / "labels" / "train.json").read_text())[0]
    assert set(entry) == {"id", "label", "template", "placeholders"}
    assert "[something]" in entry["template"]


def test_the_files_are_vp9_at_12_frames_a_second_and_show_the_scene(folder):
    scene = draw_scene(SEED, 0)
    with av.open(str(video_path(folder, 0))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) in (
            ("vp9", 12),
            ("libvpx-vp9", 12),
        )
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
    assert frames.shape == (scene.num_frames, scene.height, scene.width, 3)
    assert np.abs(frames.astype(int) - render(scene)).mean() < 6


def test_token_cover_follows_the_labelled_actor(folder):
    grid = (8, 6, 6)
    bodies = read_actors(folder, "train")
    assert len(bodies) == 28
    for video_id, found in bodies.items():
        scene = draw_scene(SEED, int(video_id) - 1)
        assert found[0].action == scene.label
        sampled = (2 * np.arange(16) + 1) * scene.num_frames // 32
        path = scene.actors[0].paths[0]
        cover = token_cover(found[0], sampled, grid)
        assert cover.shape == grid
        assert 0 <= cover.min() <= cover.max() <= 1
        for t in range(8):
            frame = sampled[2 * t]
            x, y = int(path.x[frame] // 8), int(path.y[frame] // 8)
            if path.opacity[frame] > 0.5 and 0 <= x < 6 and 0 <= y < 6:
                assert cover[t, y, x] > 0.2


def test_a_folder_without_competitors_has_none_and_is_recorded(tmp_path):
    make(tmp_path / "alone", 3, SEED, workers=0, competitors=False)
    assert json.loads((tmp_path / "alone" / "synthetic.json").read_text())["competitors"] is False
    for bodies in read_actors(tmp_path / "alone", "train").values():
        assert {body.salience for body in bodies if body.action != NO_ACTION} == {1}
    with pytest.raises(DatasetSpecError, match="competitors False -> True"):
        make(tmp_path / "alone", 3, SEED, workers=0)


def test_a_dataset_without_actors_says_so(tmp_path):
    with pytest.raises(DatasetSpecError, match="only datasets made by"):
        read_actors(tmp_path, "train")


def test_h264_holds_the_same_frames_and_vectors_and_is_recorded(folder, tmp_path):
    root = tmp_path / "h264"
    make(root, 6, SEED, workers=0, codec="h264")
    assert json.loads((root / "synthetic.json").read_text())["codec"] == "h264"
    paths = [video_path(root, index, "mp4") for index in range(6)]
    assert sorted(paths) == sorted((root / benchmark.VIDEO_FOLDER).iterdir())
    for index, path in enumerate(paths):
        assert read_vectors(DecodeRequest(path=str(path))).frame.size
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            shown = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        meant = render(draw_scene(SEED, index))
        assert shown.shape == meant.shape
        assert np.abs(shown.astype(int) - meant).mean() < 4
    files = {split: read_videos(load_spec("synthetic"), root, split) for split in ("train",)}
    assert files["train"][0].path.endswith("1.mp4")
    first = contents(root)
    make(root, 6, SEED, workers=0, codec="h264")
    make(tmp_path / "again", 6, SEED, workers=0, codec="h264")
    assert contents(root) == contents(tmp_path / "again") == first
    with pytest.raises(DatasetSpecError, match="codec h264 -> vp9"):
        make(root, 6, SEED, workers=0)


def test_a_folder_that_names_no_codec_is_one_of_vp9(folder, tmp_path):
    root = tmp_path / "old"
    make(root, 2, SEED, workers=0)
    recipe = json.loads((root / "synthetic.json").read_text())
    del recipe["codec"]
    (root / "synthetic.json").write_text(json.dumps(recipe))
    make(root, 2, SEED, workers=0)


def test_an_encoder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9"})
    with pytest.raises(DatasetSpecError, match="has no encoder libx264, which h264 needs"):
        make(tmp_path / "h264", 6, codec="h264")
    with pytest.raises(DatasetSpecError, match="one of vp9, h264, got 'av1'"):
        make(tmp_path / "av1", 6, codec="av1")
    assert not list(tmp_path.iterdir())
