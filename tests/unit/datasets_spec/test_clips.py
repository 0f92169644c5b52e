"""The readers on real clips in the layouts of the public datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_spec import list_splits, load_spec, read_label_names, read_videos
from datasets_spec.check import check_dataset

pytestmark = pytest.mark.clips


@pytest.mark.parametrize(
    ("name", "splits", "missing"),
    [
        ("ssv2", {"train": 3, "validation": 3, "test": 1}, {"validation": "7.webm"}),
        ("kinetics400", {"validation": 6}, {"validation": "notdownloaded_000003_000013.mp4"}),
        ("ucf101", {"train": 1, "test": 2}, {}),
        ("hmdb51", {"train": 2, "test": 1}, {}),
    ],
)
def test_every_video_is_listed_and_all_but_the_known_ones_are_found(
    clips_dir: Path, name: str, splits: dict[str, int], missing: dict[str, str]
) -> None:
    spec, root = load_spec(name), clips_dir / name
    assert list_splits(spec, root) == list(splits)
    num_classes = len(read_label_names(spec, root))
    for split, count in splits.items():
        videos = read_videos(spec, root, split)
        assert len(videos) == count
        gone = [Path(v.path).name for v in videos if not (root / v.path).is_file()]
        assert gone == ([missing[split]] if split in missing else [])
        for video in videos:
            assert video.label is None or 0 <= video.label < num_classes
            assert (video.label is None) == (split == "test" and name == "ssv2")
    assert check_dataset(spec, root).obstacles() == []


def test_labels_say_what_is_seen(clips_dir: Path) -> None:
    wanted = {
        "ssv2": ("train", "1", "Turning something upside down"),
        "kinetics400": ("val", "cleaningpool_000000_000010", "cleaning pool"),
        "ucf101": ("test", "v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup"),
        "hmdb51": ("train", "RATRACE_wave_f_nm_np1_fr_goo_37", "wave"),
    }
    for name, (split, video_id, label) in wanted.items():
        spec, root = load_spec(name), clips_dir / name
        names = read_label_names(spec, root)
        labels = {v.video_id: v.label for v in read_videos(spec, root, split)}
        number = labels[video_id]
        assert number is not None
        assert names[number] == label


def test_the_same_videos_as_class_folders(clips_dir: Path) -> None:
    videos = read_videos(load_spec("folder"), clips_dir / "hmdb51" / "videos", "all")
    assert [video.label for video in videos] == [0, 1, 1, 1]
