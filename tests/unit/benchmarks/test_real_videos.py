"""The folds of the experiment on real videos: whole groups, every clip judged once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from datasets_spec import load_spec
from datasets_spec.read import read_split

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def real_videos():
    """The script, whose second file lies beside it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import real_videos

        yield real_videos
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_every_clip_is_judged_once_by_what_never_saw_its_group(real_videos, tmp_path):
    clips = [
        real_videos.Clip(f"{label}{group}{number}.mp4", label, f"{label}{group}")
        for label in ("hop", "jump", "run")
        for group in "abcdefghi"
        for number in range(2)
    ]
    dealt, judged = real_videos.deal(clips, 2), []
    for fold in range(2):
        root = real_videos.write_fold(tmp_path, fold, clips, dealt, tmp_path)
        spec = load_spec(root / "real.yaml")
        groups = {}
        for split in ("train", "validation", "test"):
            found = read_split(spec, root, split)  # refuses a group in two of them
            assert found.label_names == ["hop", "jump", "run"]
            assert {video.label for video in found.videos} == {0, 1, 2}
            groups[split] = {video.group for video in found.videos}
            judged += [v.path.removeprefix("clips/") for v in found.videos if split == "test"]
        assert len(set().union(*groups.values())) == 27 == sum(map(len, groups.values()))
        halves = [
            read_split(load_spec(root / f"{half}.yaml"), root, "train")
            for half in real_videos.HALVES
        ]
        assert [{v.label for v in half.videos} for half in halves] == [{0, 2}, {1}]
        assert halves[1].label_names == ["hop", "jump", "run"]
        assert {v.group for half in halves for v in half.videos} == groups["train"]
    assert sorted(judged) == sorted(clip.path for clip in clips)


def test_the_other_benchmarks_numbers_are_read_off_its_page(real_videos, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "| tokens' cost | .9 | .5 | against random |\n|---|---|---|---|\n"
        "| lite | 80.1 | 70.2 | +1.0 [+0.1, +2.0] |\n| sta | 79.0 |  | |\n\n| x | 1 | 2 |\n"
    )
    found = sys.modules["real_videos_table"].rendered_top1(page)
    assert found == {("lite", 0.9): 80.1, ("lite", 0.5): 70.2, ("sta", 0.9): 79.0}
    assert sys.modules["real_videos_table"].rendered_top1()["lite-spread", 0.5] > 50
