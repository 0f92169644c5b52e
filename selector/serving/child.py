"""The process that holds the model: batches of videos from standard input, answers to its output.

Started by `ModelProcess` as `python -m selector.serving.child PARENT_PID`, with which it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.decode import DecodedVideo
from pipeline.decode.child import end_with, own_pipes
from pipeline.decode.pipes import PipeClosedError, receive, send
from pipeline.errors import ClipStatus, DecodeError, LiteError
from selector.deploy.model import LiteModel
from selector.deploy.predict import predict_decoded, to_json
from selector.serving.messages import Answer, ModelOptions
from selector.training.train import resolve_device

logger = logging.getLogger(__name__)


def classify(
    model: LiteModel, options: ModelOptions, videos: Sequence[DecodedVideo]
) -> list[Answer | DecodeError]:
    """Answers for a batch; one by one where it fails as a whole."""
    try:
        found = predict_decoded(
            model,
            videos,
            keep_ratio=options.keep_ratio,
            adaptive=options.adaptive,
            top=options.top,
        )
    except Exception as error:  # out of memory, for one
        if len(videos) > 1:
            return [answer for video in videos for answer in classify(model, options, [video])]
        logger.exception("the model fails on a video")
        return [DecodeError(ClipStatus.MODEL_ERROR, f"the model fails: {type(error).__name__}")]
    answers: list[Answer | DecodeError] = []
    for each in found:
        if isinstance(each, DecodeError):
            answers.append(each)
            continue
        fields = to_json("", each)
        del fields["video"]  # its name is the client's, and was not looked at
        tokens = each.num_tokens * len(each.kept_tokens)
        answers.append(
            Answer(
                fields={**fields, "keep_ratio": sum(each.kept_tokens) / tokens},
                kept=each.kept,
                scores=each.scores,
                group=each.group,
                method=model.config.drawn_as,
            )
        )
    return answers


def _load(options: ModelOptions) -> tuple[LiteModel, dict[str, Any]]:
    """The model, and what the server must know of it."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = LiteModel.from_pretrained(
        options.model, device=str(resolve_device(options.device)), precision=options.precision
    )
    clip_format = model.backbone.clip_format
    side = clip_format["size"]
    black = DecodedVideo(
        clips=np.zeros((1, clip_format["num_frames"], side, side, 3), np.uint8),
        num_frames_total=1,
        padded=False,
        damaged=False,
        decoder="",
        decoder_version="",
    )
    # The first pass is the slowest, and says whether the budget can be reached.
    predict_decoded(model, [black], keep_ratio=options.keep_ratio, adaptive=options.adaptive)
    return model, {**clip_format, "sampling": model.sampling}


def main(parent: int) -> None:
    """Be the child of the process `parent`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    requests, answers = own_pipes()
    try:
        options: ModelOptions = receive(requests)
        try:
            model, facts = _load(options)
        except LiteError as error:
            send(answers, error)
            return
        send(answers, facts)
        while True:
            send(answers, classify(model, options, receive(requests)))
    except PipeClosedError:
        os._exit(0)  # the parent is gone: nobody waits for an orderly end


if __name__ == "__main__":
    main(int(sys.argv[1]))
