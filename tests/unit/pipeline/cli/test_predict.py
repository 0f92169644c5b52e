"""`lite-pipeline predict` and `export-lite`: from a file on disk to a name and a cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.decode import decode_video
from selector.budgets.clip_budget import MassBudget
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request
from selector.training.config import TrainedOn
from selector.training.files import save_selector
from tests.lite_models import make_model
from tests.videos import sender, write_video


@pytest.fixture(scope="module")
def model(tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_selector(make_model(tiny_backbone).selector, folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "bars.mp4", 12)


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_it_names_the_classes_and_the_cost(model, video):
    result = run("predict", video, "--model", model, "--top", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == str(video)
    assert [line.split("%")[1].strip()[:5] for line in lines[1:4]] == ["class"] * 3
    assert "kept 4 of 8 tokens" in lines[4]
    assert "GMACs" in lines[4]


def test_the_answer_is_the_models_own(model, video):
    shown = json.loads(
        run("predict", video, "--model", model, "--json", "--keep-ratio", 0.25).stdout
    )
    lite = LiteModel.from_pretrained(model)
    clips = decode_video(clip_request(lite, str(video), "uniform", "pyav")).clips
    output = lite(lite.backbone.pixel_values(clips), keep_ratio=0.25)
    probability = output.logits[0].softmax(-1)
    assert [item["class"] for item in shown[0]["top"]] == probability.argsort(
        descending=True
    ).tolist()
    got = torch.tensor([item["probability"] for item in shown[0]["top"]])
    torch.testing.assert_close(got, probability.sort(descending=True).values)
    assert shown[0]["kept_tokens"] == [2]
    assert shown[0]["gmacs"] == lite.cost(2).total < shown[0]["full_gmacs"]


def test_the_frames_are_those_that_the_selector_learnt_from(model, video, tiny_backbone, tmp_path):
    """A stride's, also after an export, unless another sampling is asked for."""
    selector = make_model(tiny_backbone).selector
    learnt = TrainedOn(
        dataset="tiny",
        split="train",
        plan_digest="",
        sampling="stride:2",
        num_segments=1,
        num_crops=1,
        held_out=0.1,
    )
    selector.config = replace(selector.config, trained_on=learnt)
    save_selector(selector, tmp_path / "model")
    done = run("export-lite", "--model", tmp_path / "model", "--out", tmp_path / "whole")
    assert done.exit_code == 0, done.output
    lite = LiteModel.from_pretrained(model)
    expected = {}
    for sampling in ("stride:2", "uniform"):
        clips = decode_video(clip_request(lite, str(video), sampling, "pyav")).clips
        logits = lite(lite.backbone.pixel_values(clips), keep_ratio=1).logits[0]
        expected[sampling] = logits.softmax(-1).max().item()
    assert abs(expected["stride:2"] - expected["uniform"]) > 1e-4

    def answer(*options):
        shown = run("predict", video, "--keep-ratio", 1, "--json", *options)
        return json.loads(shown.stdout)[0]["top"][0]["probability"]

    for folder in ("model", "whole"):
        got = answer("--model", tmp_path / folder)
        assert got == pytest.approx(expected["stride:2"], abs=1e-6)
    got = answer("--model", tmp_path / "whole", "--sampling", "uniform")
    assert got == pytest.approx(expected["uniform"], abs=1e-6)


def test_several_views_are_all_paid(model, video):
    one = json.loads(run("predict", video, "--model", model, "--json").stdout)[0]
    six = json.loads(run("predict", video, "--model", model, "--json", "--views", "2x3").stdout)[0]
    assert six["kept_tokens"] == [4] * 6
    assert six["gmacs"] == pytest.approx(6 * one["gmacs"])


def test_the_mean_probability_of_the_views_decides(tiny_backbone, model, tmp_path):
    """By Hugging Face's model on views cut by hand: halves of the clip, left, middle and right."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 16, 32, 3), dtype=np.uint8)
    video = write_video(
        tmp_path / "noise.mkv",
        8,
        16,
        32,
        "ffv1",
        pixel_format="bgr0",
        frame=lambda i, *_: frames[i],
    )
    shown = run("predict", video, "--model", model, "--json", "--views", "2x3", "--keep-ratio", 1)
    top = json.loads(shown.stdout)[0]["top"]
    got = {item["class"]: item["probability"] for item in top}

    processor = VideoMAEImageProcessor.from_pretrained(tiny_backbone, do_resize=False)
    plain = VideoMAEForVideoClassification.from_pretrained(tiny_backbone).eval()
    probabilities, logits = [], []
    for start in (0, 1):
        for left in (0, 8, 16):
            view = frames[start::2, :, left : left + 16]
            with torch.no_grad():
                found = plain(**processor(list(view), return_tensors="pt")).logits[0].numpy()
            odds = np.exp(found.astype(np.float64))
            logits.append(found)
            probabilities.append(odds / odds.sum())
    expected = np.mean(probabilities, axis=0)
    assert [got[i] for i in range(5)] == pytest.approx(list(expected), abs=1e-6)
    assert [item["class"] for item in top] == np.argsort(-expected).tolist()
    # The views differ, so that neither one of them nor another mean would do.
    odds = np.exp(np.mean(logits, axis=0))
    for other in (*probabilities, odds / odds.sum()):
        assert np.abs(other - expected).max() > 1e-4


def test_a_video_that_fails_is_reported_and_the_others_are_answered(model, video, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    files = [tmp_path / "broken.mp4", video, tmp_path / "none.mp4"]
    result = run("predict", *files, "--model", model)
    assert result.exit_code == 1
    assert "kept 4 of 8" in result.stdout
    assert f"error: {tmp_path / 'broken.mp4'}: " in result.stderr
    assert "2 of 3 videos failed" in result.stderr
    shown = json.loads(run("predict", *files, "--model", model, "--json").stdout)
    assert [item["status"] for item in shown] == ["decode_error", "ok", "missing_file"]


def test_a_folder_stands_for_the_videos_in_it(model, video, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.MP4", "a.mp4", "deep/c.webm", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(video.read_bytes())
    (tmp_path / "a.mp4").write_bytes(b"no video")
    result = run("predict", video, tmp_path, "--model", model, "--json")
    assert result.exit_code == 1
    shown = [(item["video"], item["status"]) for item in json.loads(result.stdout)]
    assert shown == [
        (str(video), "ok"),
        (str(tmp_path / "a.mp4"), "decode_error"),
        (str(tmp_path / "b.MP4"), "ok"),
        (str(tmp_path / "deep" / "c.webm"), "ok"),
    ]
    (tmp_path / "empty").mkdir()
    result = run("predict", tmp_path / "empty", "--model", model)
    assert result.exit_code == 1
    assert f"{tmp_path / 'empty'} holds no video (.mp4, " in result.stderr
    result = run("predict", tmp_path, "--model", model, "--save-mask", tmp_path / "mask.png")
    assert result.exit_code == 1
    assert "is one file, and there are 3 videos" in result.stderr


def test_the_adaptive_budget_needs_a_calibrated_model(model, video, tiny_backbone, tmp_path):
    result = run("predict", video, "--model", model, "--adaptive")
    assert result.exit_code == 1
    assert "lite-pipeline calibrate" in result.stderr
    config = LiteConfig(budget=MassBudget(mass=0.01, levels=(0.25, 0.5)))
    make_model(tiny_backbone, config).save_pretrained(tmp_path)
    shown = json.loads(run("predict", video, "--model", tmp_path, "--adaptive", "--json").stdout)
    assert shown[0]["kept_tokens"] == [2]


@pytest.mark.parametrize("file_format", ["png", "mp4"])
def test_masks_of_a_folder_are_a_file_each_and_one_that_fails_leaves_the_others(
    model, video, tmp_path, file_format
):
    """Also with the oracle's map of the class that a folder is named by."""
    for name in ("class 0/a.mp4", "class 1/a.mp4", "class 1/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(video.read_bytes())
    (tmp_path / "in" / "class 1" / "b.mp4").write_bytes(b"no video")
    words = ("predict", tmp_path / "in", "--model", model, "--json")
    masks = ("--save-mask", tmp_path / "out", "--mask-format", file_format)
    result = run(*words, *masks, "--label-by-folder")
    assert result.exit_code == 1
    assert "1 of 3 videos failed" in result.stderr
    files = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
    assert list(map(str, files)) == [f"class {i}/a.mp4.{file_format}" for i in (0, 1)]
    shown = json.loads(result.stdout)
    assert [item.get("mask") for item in shown] == [
        *(str(tmp_path / "out" / name) for name in files),
        None,
    ]
    one, other = ((tmp_path / "out" / name).read_bytes() for name in files)
    assert one != other  # the same video, another label


def test_the_panels_are_the_models_own_answer(model, video, tmp_path):
    """The kept tokens' place in the picture is worked out by hand; the file is a still."""
    done = run("predict", video, "--model", model, "--save-mask", tmp_path / "mask.png")
    assert done.exit_code == 0, done.output
    assert f"mask {tmp_path / 'mask.png'}" in done.stdout
    lite = LiteModel.from_pretrained(model)
    clips = decode_video(clip_request(lite, str(video), "uniform", "pyav")).clips
    kept = lite(lite.backbone.pixel_values(clips)).kept[0].reshape(lite.backbone.grid).numpy()
    picture = np.asarray(Image.open(tmp_path / "mask.png")).astype(int)
    t, y, x = kept.shape
    assert (t, y, x) == (2, 2, 2)
    # Two columns of 180 and 3 between; of three panels the third begins the last line.
    side, step = 180, clips.shape[1] // t
    shown = picture[len(picture) - 16 - side : len(picture) - 16, 16 : 16 + 2 * side + 3]
    for place in np.ndindex(t, y, x):
        inside = 45 + 90 * place[1], 45 + 90 * place[2]  # the middle of a token of 90 pixels
        frame = clips[0, place[0] * step]
        row, column = (i * len(frame) // side for i in inside)
        expected = frame[row, column].astype(float)
        if not kept[place]:  # a fifth as light, and blue
            expected = 0.2 * expected + [15, 30, 90]
        pixel = shown[inside[0], inside[1] + place[0] * (side + 3)]
        assert np.abs(pixel - expected).max() <= 1, place


def test_windows_are_pictures_in_a_folder_or_one_film_in_real_time(model, tmp_path):
    video = write_video(tmp_path / "long.mp4", 20)
    words = ("predict", video, "--model", model, "--window", "8f", "--stride", "6f")
    assert run(*words, "--save-mask", tmp_path / "out").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out" / "long.mp4.windows").iterdir())
    starts = [0, 6, 12]
    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate)
    assert names == [f"{start / rate:010.3f}s.png" for start in starts]
    assert run(*words, "--save-mask", tmp_path / "out.mp4").exit_code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    # Of 8 frames the clip takes the middles of its parts; of each window what lies before the next.
    per_window = LiteModel.from_pretrained(model).backbone.num_frames
    middles = [int((i + 0.5) * 8 / per_window) for i in range(per_window)]
    expected = []
    for start, end in zip(starts, [6, 12, 20], strict=True):
        shown = [start, *(start + m for m in middles[1:])]
        expected += [frame / rate for frame in shown if frame < end]
    assert times == pytest.approx(expected, abs=1e-3)
    refused = run(*words, "--save-mask", tmp_path / "out.png")
    assert "windows are a picture each" in refused.stderr


def test_a_mask_that_cannot_be_written_is_said_and_the_answers_stay(model, video, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", f"{'b' * 240}.mp4"):  # the second is too long with another ending
        (tmp_path / "in" / name).write_bytes(video.read_bytes())
    result = run("predict", tmp_path / "in", "--model", model, "--save-mask", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout.count("kept 4 of 8") == 2
    assert "b.mp4.png is not written: " in result.stderr
    assert "masks that are not written: 1" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-ratio", "0"], "(0, 1]"),
        (["--keep-ratio", "0.5", "--adaptive"], "not both"),
        (["--views", "6"], "SEGMENTSxCROPS"),
        (["--save-mask", "mask.gif"], ".png or .mp4"),
        (["--save-mask", "masks", "--mask-format", "gif"], "mask_format must be"),
        (["--save-mask", "mask.png", "--mask-format", "mp4"], "is no mp4"),
        (
            ["--save-mask", "mask.png", "--label", "dancing"],
            "no class is called 'dancing'; similar:",
        ),
        (["--label", "1"], "--label belongs to --save-mask"),
        (["--save-mask", "masks", "--label", "1", "--label-by-folder"], "not both"),
        (["--precision", "fp8"], "precision must be"),
        (["--decoder", "magic"], "decoder must be"),
        (["--sampling", "some"], "sampling must be"),
        (["--backbone", "synthetic-nowhere/"], "backbone"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_1(model, video, options, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("predict", video, "--model", model, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_exported_model_predicts_the_same(model, video, tmp_path):
    result = run("export-lite", "--model", model, "--out", tmp_path / "whole")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "whole" / "backbone" / "model.safetensors").is_file()
    here, there = (
        json.loads(run("predict", video, "--model", folder, "--json").stdout)
        for folder in (model, tmp_path / "whole")
    )
    assert here == there


def test_a_spread_is_tried_and_then_kept(model, video, tmp_path):
    whole = tmp_path / "whole"
    assert run("export-lite", "--model", model, "--out", whole, "--spread", "2").exit_code == 0
    assert json.loads((whole / "lite.json").read_text())["spread"] == 2
    options = ("--keep-ratio", "0.3", "--json")
    tried = run("predict", video, "--model", model, "--spread", "2", *options)
    kept = run("predict", video, "--model", whole, *options)
    assert json.loads(tried.stdout)[0]["top"] == json.loads(kept.stdout)[0]["top"]
    refused = run("predict", video, "--model", model, "--spread", "-1")
    assert refused.exit_code == 1
    assert "spread must be at least 0" in refused.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--out"),
        (["--out", "x", "--keep-ratio", "0.5"], "--keep-ratio belongs to --onnx"),
        (["--onnx", "/proc/x/model.onnx"], "cannot write into"),
    ],
)
def test_an_export_that_cannot_work_is_refused_before_the_work(model, options, message):
    result = run("export-lite", "--model", model, *options)
    assert result.exit_code == 1
    assert message in result.stderr


def test_windows_are_lines_of_json_and_each_is_the_answer_for_its_frames(model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    lossless = {"pixel_format": "bgr0"}
    whole = write_video(
        tmp_path / "all.mkv", 20, 16, 16, "ffv1", frame=lambda i, *_: noise[i], **lossless
    )
    parts = [
        write_video(
            tmp_path / f"{start}.mkv",
            8,
            16,
            16,
            "ffv1",
            frame=lambda i, *_, start=start: noise[start + i],
            **lossless,
        )
        for start in (0, 6, 12)
    ]
    lines = tmp_path / "lines.jsonl"
    asked = ("--window", "8f", "--stride", "6f", "--model", model)
    result = run("predict", whole, tmp_path / "none.mp4", *asked, "--jsonl", lines)
    assert result.exit_code == 1
    assert f"{whole} 0.25 to 0.58 s" in result.stdout
    assert "none.mp4: no such file" in result.stderr
    *found, missing = map(json.loads, lines.read_text().splitlines())
    assert (missing["status"], len(found)) == ("missing_file", 3)
    alone = json.loads(run("predict", *parts, "--model", model, "--json").stdout)
    for window, part in zip(found, alone, strict=True):
        assert window["top"] == part["top"]
        assert window["gmacs"] == part["gmacs"]
    assert [(w["start_frame"], w["frames"]) for w in found] == [(0, 8), (6, 8), (12, 8)]


def test_lines_of_json_of_whole_videos(model, video):
    result = run("predict", video, video, "--model", model, "--jsonl", "-")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give VIDEO files or folders, or --live"),
        (["a.mp4", "--live", "udp://127.0.0.1:1"], "and not both"),
        (["a.mp4", "--stride", "2s"], "--stride belongs to --window"),
        (["a.mp4", "--window", "2s", "--json"], "--json is for whole files"),
        (["--live", "udp://127.0.0.1:1", "--save-mask", "a"], "a live source has no end"),
        (["a.mp4", "--window", "2h"], "frames, such as 64f, or seconds"),
        (["--live", "clip.mp4"], "is no live source: give /dev/videoN"),
        (["a.mp4", "--json", "--jsonl", "-"], "either --json or --jsonl"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    result = run("predict", *options)
    assert result.exit_code == 1
    assert message in result.stderr


def test_ctrl_c_ends_a_live_watch_cleanly(model, tmp_path):
    """In a program of its own: code 130, what was answered stays, and no process is left."""
    data = write_video(tmp_path / "a.ts", 30, 16, 16, "mpeg2video", rate=25).read_bytes()
    with sender(data, then_close=False) as address:
        lines = tmp_path / "lines.jsonl"
        command = ["predict", "--live", address, "--window", "8f", "--model", str(model)]
        watch = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *command, "--jsonl", str(lines)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while not (lines.is_file() and lines.stat().st_size) and time.monotonic() < deadline:
            assert watch.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{watch.pid}/task/{watch.pid}/children").read_text().split()
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=30)
    assert (watch.returncode, said.decode().splitlines()[-1]) == (130, "interrupted")
    assert json.loads(lines.read_text().splitlines()[0])["video"] == address
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
