"""What a selector gains from being told places, on a model whose tokens carry none.

    python benchmarks/rotary_selector.py --data-root DATA --out OUT [--minutes 5]

DATA is a folder of `lite-pipeline datasets make synthetic`. A small V-JEPA 2 starts from the
shipped VideoMAE's blocks, without its positions, and is trained for so many minutes. Its oracle is
then stored several times: with what the backbone embeds alone, and with sinusoids of the places
added at some amplitudes, of which `VJEPA2Backbone.selector_input` has 1. A selector learns from
each, and is judged on videos held out. Then the same with the shipped VideoMAE: its positions taken
away, kept, and replaced by those sinusoids.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2VideoProcessor
from transformers.utils.logging import disable_progress_bar

from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.tokens import Reduction, Tokens, reduce
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.backbones.vjepa2 import VJEPA2Backbone, sinusoids
from pipeline.config import OracleConfig, RunConfig
from pipeline.oracle.build import build
from pipeline.standin.clips import Clips, load_clips
from pipeline.standin.config import BackboneConfig
from pipeline.standin.model import MEAN, STD
from pipeline.store.reader import open_store
from selector.training.config import TrainConfig
from selector.training.train import train_selector

Told = Callable[[Any, Tokens], torch.Tensor]
SHAPE = BackboneConfig()
AMPLITUDES = (0.0, 0.3, 1.0, 3.0)
PAIRS = {
    "norm1": "layernorm_before",
    "attention.query": "attention.attention.query",
    "attention.key": "attention.attention.key",
    "attention.value": "attention.attention.value",
    "attention.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def begin(folder: Path) -> Backbone:
    """A V-JEPA 2 with the patch embedding and the blocks of the shipped VideoMAE."""
    source = load_backbone("synthetic")
    torch.manual_seed(0)
    config = VJEPA2Config(
        patch_size=SHAPE.patch_size,
        crop_size=SHAPE.image_size,
        frames_per_clip=SHAPE.num_frames,
        tubelet_size=SHAPE.tubelet_size,
        hidden_size=SHAPE.hidden_size,
        num_attention_heads=SHAPE.num_heads,
        num_hidden_layers=SHAPE.num_layers,
        mlp_ratio=4.0,
        num_pooler_layers=1,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        id2label=source.model.config.id2label,
        label2id=source.model.config.label2id,
    )
    model = VJEPA2ForVideoClassification(config)
    state, given = model.state_dict(), source.model.state_dict()
    old = "videomae.embeddings.patch_embeddings.projection"
    for kind in ("weight", "bias"):
        state[f"vjepa2.encoder.embeddings.patch_embeddings.proj.{kind}"] = given[f"{old}.{kind}"]
        for layer in range(SHAPE.num_layers):
            for new, other in PAIRS.items():
                key = f"videomae.encoder.layer.{layer}.{other}.{kind}"
                if key in given:
                    state[f"vjepa2.encoder.layer.{layer}.{new}.{kind}"] = given[key]
    model.load_state_dict(state)
    _save(model, folder)
    return load_backbone(str(folder))


def _save(model: VJEPA2ForVideoClassification, folder: Path) -> None:
    model.save_pretrained(folder)
    side = SHAPE.image_size
    VJEPA2VideoProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(MEAN),
        image_std=list(STD),
    ).save_pretrained(folder)


def train(backbone: Backbone, clips: Clips, minutes: float, batch: int = 32) -> int:
    """Steps of AdamW in so many minutes, on 30 to 100 % of the tokens drawn at random."""
    backbone.requires_grad_(True)
    model = backbone.model
    used = [p for name, p in model.named_parameters() if "predictor" not in name]
    optimizer = torch.optim.AdamW(used, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    begun, step = time.monotonic(), 0
    while (spent := (time.monotonic() - begun) / 60 / minutes) < 1:
        rate = 1e-3 * min(1, (step + 1) / 50) * min(1, (1 - spent) / 0.4)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(clips), (batch,), generator=generator).numpy()
        pixels = backbone.pixel_values(clips.frames[rows])
        keep = 0.3 + 0.7 * float(torch.rand((), generator=generator)) ** 2
        num = backbone.grid.num_tokens
        order = torch.rand(batch, num, generator=generator).argsort(1)[:, : int(keep * num)]
        with torch.autocast("cpu", torch.bfloat16):
            some = reduce(backbone.embed(pixels), Reduction(order))
            loss = F.cross_entropy(backbone.run(some), torch.from_numpy(clips.labels[rows]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(used, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, loss {loss.item():.3f}", flush=True)
    backbone.requires_grad_(False)
    return step


@torch.no_grad()
def accuracy(backbone: Backbone, clips: Clips, num: int = 500) -> float:
    """Top-1 on the first clips, with all tokens."""
    right = 0
    for at in range(0, min(num, len(clips)), 50):
        logits = backbone(backbone.pixel_values(clips.frames[at : at + 50]))
        right += int((logits.argmax(1).numpy() == clips.labels[at : at + 50]).sum())
    return right / min(num, len(clips))


def main() -> None:
    """Print one line an input and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clips", type=int, default=1500)
    asked = parser.parse_args()
    disable_progress_bar()
    folder = asked.out / "backbone"
    if not (folder / "config.json").is_file():
        split = (asked.out / "clips", SHAPE, 1, lambda done, total: None)
        training, validation = (
            load_clips(asked.data_root, name, *split) for name in ("train", "validation")
        )
        backbone = begin(asked.out / "start")
        steps = train(backbone, training, asked.minutes)
        print(f"{steps} steps, top-1 {accuracy(backbone, validation):.3f} of all tokens")
        _save(backbone.model, folder)
    for amplitude in AMPLITUDES:
        judge(str(folder), f"vjepa2, amplitude {amplitude}", added(amplitude), asked)
    judge("synthetic", "videomae, its own", lambda backbone, x: x.on_grid, asked)
    for amplitude in (0.0, 1.0):
        told = added(amplitude)

        def instead(backbone: Backbone, x: Tokens, told: Told = told) -> torch.Tensor:
            positions = backbone.model.videomae.embeddings.position_embeddings
            return told(backbone, x) - positions.to(x.values)

        judge("synthetic", f"videomae, amplitude {amplitude}", instead, asked)


def added(amplitude: float) -> Told:
    """Sinusoids of the places, times `amplitude`, on top of the embeddings."""

    def told(backbone: Backbone, x: Tokens) -> torch.Tensor:
        places = sinusoids(x.place, backbone.grid, backbone.hidden_size)
        return x.on_grid + amplitude * places

    return told


def judge(backbone: str, name: str, told: Told, asked: argparse.Namespace) -> None:
    """Build a store of what `told` shows a selector, train three, print what they rank."""
    family = VideoMAEBackbone if backbone == "synthetic" else VJEPA2Backbone
    family.selector_input = told  # type: ignore[assignment, method-assign]
    store = asked.out / name.replace(", ", "-").replace(" ", "-")
    wanted = OracleConfig(
        dataset="synthetic", split="train", backbone=backbone, limit=asked.clips,
        num_segments=1, num_crops=1, embeddings_per_clip=-1,
    )  # fmt: skip
    build(wanted, str(store), RunConfig(data_root=str(asked.data_root), decode_workers=0))
    for seed in (0, 1, 2):
        config = TrainConfig(epochs=10, held_out=0.2, seed=seed)
        out = asked.out / f"selector-{store.name}-{seed}"
        found = train_selector(open_store(store), out, config).methods["selector"]
        recall = ", ".join(f"{100 * found.recall[ratio]:.1f} % at {ratio}" for ratio in (0.5, 0.3))
        print(f"{name}, seed {seed}: rank correlation {found.spearman:.3f}, recall {recall}")


if __name__ == "__main__":
    main()
