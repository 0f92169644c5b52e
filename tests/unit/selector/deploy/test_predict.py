"""Answers for videos, by hand, of a model that says what it was told to say."""

from __future__ import annotations

import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.backbones.base import TokenGrid
from pipeline.clips.views import View, list_views
from pipeline.decode import DecodedVideo, DecodeRequest
from pipeline.decode.windows import Span, Window, WindowRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from selector.deploy import predict
from selector.deploy.output import LiteOutput
from selector.deploy.predict import (
    clip_request,
    list_videos,
    predict_decoded,
    predict_videos,
    predict_windows,
    to_json,
)

FORMAT = {"num_frames": 2, "size": 4, "short_side": 6}
GRID = TokenGrid(1, 2, 2)
PROBABILITY = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]
KEPT = [[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0]]


class Model:
    """Says the rows of `PROBABILITY` in turn; a clip of k tokens costs k, and 0.5 where it adapts.

    Without a selector in front it costs 8 a clip at half of the tokens.
    """

    sampling = "stride:2"

    def __init__(self, *, selects=True, by_content=False, names=("a", "b", "c"), confident=False):
        self.config = SimpleNamespace(
            selects=selects,
            adapts=lambda ratio, asked: asked if asked is not None else confident and ratio is None,
        )
        self.by_content, self.confident = by_content, confident
        self.backbone = SimpleNamespace(
            grid=GRID, label_names=names, clip_format=FORMAT, pixel_values=torch.from_numpy
        )
        self.logits = torch.tensor(PROBABILITY).log()
        self.calls = []

    def __call__(self, pixels, keep_ratio, adaptive):
        self.calls.append((pixels.numpy(), keep_ratio, adaptive))
        rows, kept = slice(len(pixels)), torch.tensor(KEPT, dtype=torch.bool)
        return LiteOutput(
            logits=self.logits[rows],
            kept=kept[rows],
            budget=kept.sum(1)[rows],
            confidence=torch.tensor([0.5, 0.25, 0.75])[rows] if self.confident else None,
        )

    def cost(self, num, adaptive=False):
        return SimpleNamespace(total=num + (0.5 if adaptive else 0.0))

    def cost_of(self, keep_ratio=None):
        return SimpleNamespace(total=16 * (0.25 if keep_ratio is None else keep_ratio))


def video(first, *, views=1, damaged=False, padded=False):
    """Whose view v shows `first` + v."""
    shown = np.arange(first, first + views, dtype=np.uint8)
    clips = np.broadcast_to(shown[:, None, None, None, None], (views, 2, 4, 4, 3))
    return DecodedVideo(
        clips=np.ascontiguousarray(clips),
        num_frames_total=9,
        padded=padded,
        damaged=damaged,
        decoder="pyav",
        decoder_version="0",
    )


def test_videos_of_one_batch_are_answered_each_from_its_own_views():
    model = Model()
    first, second = predict_decoded(model, [video(10, views=2), video(30, damaged=True)], top=2)
    ((pixels, ratio, adaptive),) = model.calls
    assert pixels[:, 0, 0, 0, 0].tolist() == [10, 11, 30]
    assert (ratio, adaptive) == (None, False)
    # (0.7 + 0.1) / 2, (0.2 + 0.6) / 2, (0.1 + 0.3) / 2: a tie, and the third is not shown.
    assert sorted((index, name) for index, name, _ in first.top) == [(0, "a"), (1, "b")]
    assert [share for _, _, share in first.top] == pytest.approx([0.4, 0.4])
    assert second.top[0][:2] == (2, "c")
    assert second.top[0][2] == pytest.approx(0.5)
    assert (first.kept_tokens, second.kept_tokens) == ([3, 1], [2])
    assert (first.gmacs, second.gmacs) == (4, 2)
    assert (first.full_gmacs, second.full_gmacs) == (8, 4)
    assert (first.num_tokens, second.num_tokens) == (4, 4)
    assert (first.damaged, second.damaged) == (False, True)
    assert (first.confidence, second.confidence) == (None, None)
    assert (first.frames == 10).all()
    assert first.frames.shape == (2, 4, 4, 3)
    assert (second.frames == 30).all()
    assert first.kept.tolist() == [[[True, True], [False, True]]]
    assert second.kept.tolist() == [[[True, False], [True, False]]]


def test_more_classes_than_there_are_are_all_of_them():
    (answer,) = predict_decoded(Model(names=None), [video(0)], top=9)
    assert [name for _, name, _ in answer.top] == ["class 0", "class 1", "class 2"]
    assert [share for _, _, share in answer.top] == pytest.approx(PROBABILITY[0])


def test_five_classes_are_shown_unless_another_number_is_asked_for():
    model = Model(names=tuple("abcdefg"))
    model.logits = torch.arange(7.0).expand(3, 7)
    (answer,) = predict_decoded(model, [video(0)])
    assert [name for _, name, _ in answer.top] == list("gfedc")
    (answer,) = predict_videos(model, ["x"], Pool([video(0)]))
    assert [name for _, name, _ in answer.top] == list("gfedc")


def test_what_the_adaptive_rule_costs_is_counted_and_its_confidence_shown():
    model = Model(confident=True)
    first, second = predict_decoded(model, [video(0), video(1, views=2)])
    assert model.calls[0][1:] == (None, True)
    assert (first.gmacs, second.gmacs) == (3.5, 1.5 + 2.5)
    assert (first.full_gmacs, second.full_gmacs) == (4, 8)
    assert first.confidence == [0.5]
    assert second.confidence == [0.25, 0.75]
    (fixed,) = predict_decoded(model, [video(0)], adaptive=False)
    assert model.calls[1][1:] == (None, False)
    assert fixed.gmacs == 3
    predict_decoded(model, [video(0)], keep_ratio=0.5)
    assert model.calls[2][1:] == (0.5, False)


@pytest.mark.parametrize(
    ("by_content", "keep_ratio", "gmacs"),
    [(False, None, 2 * 4), (False, 0.5, 2 * 8), (True, None, 3 + 1), (True, 0.5, 2 * 8)],
)
def test_a_method_inside_the_blocks_costs_its_course_and_rlt_what_each_clip_kept(
    by_content, keep_ratio, gmacs
):
    model = Model(selects=False, by_content=by_content)
    (answer,) = predict_decoded(model, [video(0, views=2)], keep_ratio=keep_ratio)
    assert answer.gmacs == gmacs


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_one_video_whose_logits_are_no_numbers_is_an_error_and_its_neighbour_is_answered(wrong):
    model = Model()
    model.logits[1, 2] = wrong
    first, second = predict_decoded(model, [video(0, views=2), video(2)])
    assert isinstance(first, DecodeError)
    assert first.status == ClipStatus.MODEL_ERROR
    assert str(first) == "the model's logits are not finite"
    assert second.top[0][:2] == (2, "c")


class Pool:
    """Hands out what it was given, and notes what was asked for."""

    def __init__(self, results):
        self.results = results

    def imap(self, requests):
        self.requests = list(requests)
        return iter(self.results)


def test_files_are_asked_for_as_the_model_takes_them_and_failures_keep_their_place():
    broken = DecodeError(ClipStatus.MISSING_FILE, "gone")
    model, pool = Model(), Pool([video(0), broken, video(1)])
    views = list_views(1, 3)
    options = {"views": views, "keep_ratio": 0.5, "adaptive": True, "top": 1}
    answers = list(predict_videos(model, ["x", "y", "z"], pool, **options))
    assert [request.path for request in pool.requests] == ["x", "y", "z"]
    assert pool.requests[0] == DecodeRequest(
        path="x", views=views, sampling="stride:2", decoder="pyav", **FORMAT
    )
    assert answers[1] is broken
    assert [len(answer.top) for answer in answers[::2]] == [1, 1]
    assert [(answer.frames == n).all() for n, answer in enumerate(answers[::2])] == [True, True]
    assert [call[1:] for call in model.calls] == [(0.5, True)] * 2
    list(predict_videos(model, ["x"], pool, sampling="uniform", decoder="decord"))
    assert pool.requests == [
        DecodeRequest(path="x", sampling="uniform", decoder="decord", **FORMAT)
    ]
    assert clip_request(model, "x", "uniform", "pyav").views == (View(),)


def test_windows_are_answered_as_they_come_and_closed_with_their_reader(monkeypatch):
    ended = []

    def slide(request):
        assert request is asked
        try:
            for number in range(3):
                decoded = video(number)
                yield Window(decoded=decoded, start_s=number, end_s=number + 2.0, start_frame=0)
        finally:
            ended.append(True)

    monkeypatch.setattr(predict, "slide", slide)
    model = Model()
    asked = WindowRequest(clip=clip_request(model, "x", "uniform", "pyav"), window=Span.parse("2s"))
    answers = predict_windows(model, asked, keep_ratio=0.5, adaptive=True, top=2)
    window, answer = next(answers)
    assert (window.start_s, (answer.frames == 0).all(), len(answer.top)) == (0, True, 2)
    window, answer = next(answers)
    assert (window.start_s, (answer.frames == 1).all()) == (1, True)
    assert model.calls[0][1:] == (0.5, True)
    assert ended == []
    answers.close()
    assert ended == [True]
    assert len(next(predict_windows(model, asked))[1].top) == 3


def test_lines_of_json_say_everything_and_no_more():
    model = Model(confident=True)
    (answer,) = predict_decoded(model, [video(0, padded=True)], top=1)
    window = Window(decoded=video(0), start_s=1 / 3, end_s=2 / 3, start_frame=4, num_skipped=5)
    told = json.loads(json.dumps(to_json("x.mp4", answer, window)))
    assert told.pop("top") == [{"class": 0, "label": "a", "probability": pytest.approx(0.7)}]
    answered = {
        "video": "x.mp4", "status": "ok", "kept_tokens": [3], "num_tokens": 4, "gmacs": 3.5,
        "full_gmacs": 4, "confidence": [0.5], "damaged": False, "padded": True,
    }  # fmt: skip
    place = {
        "start": 0.333333, "end": 0.666667, "start_frame": 4, "frames": 9, "skipped_windows": 5
    }  # fmt: skip
    assert told == answered | place
    alone = to_json("x.mp4", answer)
    alone.pop("top")
    assert alone == answered
    failed = to_json("x.mp4", DecodeError(ClipStatus.MISSING_FILE, "gone"), window)
    assert failed == place | {"video": "x.mp4", "status": "missing_file", "error": "gone"}


def test_a_folder_stands_for_its_videos_and_what_is_none_is_counted(tmp_path, caplog):
    for name in ("in/b.mp4", "in/deeper/a.webm", "in/notes.txt", "alone.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    alone, missing = str(tmp_path / "alone.mp4"), str(tmp_path / "missing.mp4")
    with caplog.at_level(logging.WARNING):
        found = list_videos([missing, str(tmp_path / "in"), alone])
    assert found[0] == missing
    assert sorted(found[1:3]) == [str(tmp_path / "in/b.mp4"), str(tmp_path / "in/deeper/a.webm")]
    assert found[3:] == [alone]
    assert "1 files or folders are no video" in caplog.text
    assert ".txt" in caplog.text
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"none holds no video \(\.mp4, \.webm, [^ ]"):
        list_videos([str(tmp_path / "none")])
    caplog.clear()
    list_videos([alone])
    assert caplog.text == ""
