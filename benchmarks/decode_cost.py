"""What it costs to make clips of videos, beside decoding them and throwing the frames away.

    python benchmarks/decode_cost.py FOLDER               # a row for each of its subfolders
    python benchmarks/decode_cost.py FOLDER --decoders pyav --sampling stride:4 --views 2x3

`plain` is PyAV alone: every frame decoded in one thread, none converted. The decoders also count,
convert, resize and crop, once for each view. Each file is decoded by all in turn, round after
round, so a busy machine slows all of them alike; processor seconds (of all threads) are the
smallest of the rounds, summed over the files. `plain / decoder` is the share of the codec's own
speed: 1 would be clips for free. A decoder that refuses or fails on some files is compared on the
others alone.

`least` is what two library calls take that give a backbone its processor's own bytes, on the frames
of the first view: FFmpeg's conversion to RGB and torch's resize. `plain / (plain + least)` is
what no decoder made of them can exceed.

All of it runs in this process, decord too, which a run keeps in a child because it may hang.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import torch
from av.video.reformatter import VideoReformatter

from pipeline.clips.views import frame_indices, list_views, parse_views, resized_shape
from pipeline.config import DECODERS
from pipeline.decode import DecodeRequest, decode_version
from pipeline.decode.backends import decode_here
from pipeline.decode.container import open_video
from pipeline.decode.resize import resize_frame
from pipeline.errors import ConfigError, DecodeError

SUFFIXES = {".avi", ".flv", ".gif", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm", ".wmv"}
PLAIN, LEAST = "plain", "least"


def plain(request: DecodeRequest) -> int:
    """Decode every frame with PyAV alone; how many there were."""
    with open_video(request) as (container, stream):
        return sum(1 for _ in container.decode(stream))


def least(request: DecodeRequest) -> float:
    """Processor seconds to convert and resize the frames of the first view, decoded before."""
    with open_video(request) as (container, stream):
        frames = list(container.decode(stream))
    view = request.views[0]
    wanted = frame_indices(
        len(frames), request.num_frames, request.sampling, view.segment, view.num_segments
    )
    reformatter = VideoReformatter()
    shape = resized_shape(frames[0].height, frames[0].width, request.short_side)
    start = time.process_time()
    for index in wanted:
        rgb = reformatter.reformat(frames[index], format="rgb24", threads=1)
        resize_frame(rgb.to_ndarray(), *shape)
    return time.process_time() - start


def measure(
    requests: dict[str, DecodeRequest], rounds: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Smallest processor seconds of each variant on one file, and why the others have none."""
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name, request in requests.items():
            if name in failed:
                continue
            if name == LEAST:
                seconds[name] = min(seconds.get(name, float("inf")), least(request))
                continue
            run: Callable[[DecodeRequest], Any] = plain if name == PLAIN else decode_here
            start = time.process_time()
            try:
                run(request)
            except (DecodeError, av.error.FFmpegError) as error:
                failed[name] = str(error)
                continue
            seconds[name] = min(seconds.get(name, float("inf")), time.process_time() - start)
    return {name: value for name, value in seconds.items() if name not in failed}, failed


def summary(
    group: str, files: list[dict[str, float]], decoders: Iterable[str]
) -> list[dict[str, Any]]:
    """One row per decoder: milliseconds per file, and plain's over its, on what it decodes."""
    rows = []
    for decoder in (LEAST, *decoders):
        both = [file for file in files if decoder in file and PLAIN in file]
        plain_s, own_s = (sum(file[name] for file in both) for name in (PLAIN, decoder))
        whole_s = plain_s + own_s if decoder == LEAST else own_s
        rows.append(
            {
                "clips": group,
                "decoder": decoder,
                "files": f"{len(both)} of {len(files)}",
                "plain ms": round(1e3 * plain_s / len(both), 1) if both else None,
                "decoder ms": round(1e3 * own_s / len(both), 1) if both else None,
                "plain / decoder": round(plain_s / whole_s, 2) if both else None,
            }
        )
    return rows


def installed(decoders: Iterable[str]) -> list[str]:
    """Those that are."""
    found = []
    for decoder in decoders:
        try:
            print(f"{decoder}: {decode_version(decoder)}")
            found.append(decoder)
        except ConfigError as error:
            print(f"{decoder}: left out, {error}")
    return found


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decoders", default=",".join(DECODERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sampling", default="uniform")
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    decoders = installed(args.decoders.split(","))
    views = list_views(*parse_views(args.views))
    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    rows: list[dict[str, Any]] = []
    for group, found in groupby(paths, key=lambda p: p.relative_to(args.folder).parts[0]):
        files = []
        for path in found:
            requests = {PLAIN: DecodeRequest(path=str(path))}
            requests[LEAST] = replace(requests[PLAIN], sampling=args.sampling, views=views)
            for decoder in decoders:
                requests[decoder] = DecodeRequest(
                    path=str(path), decoder=decoder, sampling=args.sampling, views=views
                )
            seconds, failed = measure(requests, args.rounds)
            files.append(seconds)
            for name, reason in failed.items():
                print(f"{path.name}: {name}: {reason}")
        rows += summary(group, files, decoders)
    if not rows:
        raise SystemExit(f"no video in {args.folder}")
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join("" if v is None else str(v) for v in row.values()) + " |")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
