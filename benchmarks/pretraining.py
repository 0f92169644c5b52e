"""What masked pre-training and mixup do to a backbone of few real clips.

    python benchmarks/pretraining.py --data-root DIR --clips clips.csv --out OUT

The clips are those of `real_videos.py`, dealt into its folds. On the first fold's training clips
the shipped backbone is fine-tuned in several ways (`ARMS`), and each is judged on the fold's other
clips, which no training saw: its held-out groups and those that validate, which choose nothing
here. Differences are of the same clips, with intervals over their groups; the processor seconds are
those of the trainings.

Each step is a `lite-pipeline` command, printed as it runs, and not done again; `--arms` does some,
so that several processes may share the work, and `--table-only` prints what is there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from real_videos import BACKBONE, Run, deal, read_clips, short_clips, write_fold

from selector.evaluation.config import FULL
from selector.evaluation.files import Evaluation
from selector.evaluation.results import Outcomes, pool, read_outcomes
from selector.statistics import mean_interval

FOLD, FOLDS = "fold-0", 5
ARMS: dict[str, tuple[int, int, float]] = {
    "plain": (0, 400, 0.0),
    "mixup": (0, 400, 0.8),
    "longer": (0, 610, 0.0),
    "pretrained": (200, 400, 0.0),
}
"""Steps of pre-training and of fine-tuning, and mixup's alpha, VideoMAE's own where there is any.
610 steps cost about what 200 and 400 cost."""
AGAINST = ("plain", "longer")
KEEP = (1.0, 0.3)
SPLITS = ("validation", "test")


def do_arm(run: Run, data: Path, arm: str, precision: str) -> None:
    """One way to train, judged on what no training saw."""
    at = data.parent
    pretraining, steps, mixup = ARMS[arm]
    real = ("--dataset", data / "real.yaml", "--data-root", data)
    how = ("--batch-size", 48, "--lr", "8e-4", "--device", "cpu", "--threads", 1)
    how = (*how, "--precision", precision)
    start: object = BACKBONE
    if pretraining:
        start = at / f"{arm}-start"
        words = ("pretrain-backbone", *real, "--out", start, "--init", BACKBONE, *how)
        timed(run, f"{arm}-start", *words, "--steps", pretraining)
    words = ("train-backbone", *real, "--out", at / arm, "--init", start, *how)
    words = (*words, "--steps", steps, "--keep-ratio-range", "0.2,0.6", "--mixup", mixup)
    timed(run, arm, *words, "--validate-every", steps)
    for split in SPLITS:
        run.step(
            *(FOLD, f"{arm}-{split}", "evaluate", *real, "--split", split, "--views", "1x1"),
            *("--backbone", at / arm, "--methods", "random", "--batch-size", 32, "--brief"),
            *("--keep-ratios", ",".join(f"{ratio:g}" for ratio in KEEP)),
            *("--out", at / f"{arm}-{split}"),
        )


def timed(run: Run, name: str, *words: object) -> None:
    """A step whose processor seconds, without those of the decoders, are kept."""
    path = run.out / FOLD / f"{name}.seconds"
    began = time.process_time()
    run.step(FOLD, name, *words)
    if not path.exists():
        path.write_text(f"{time.process_time() - began:.0f}")


def print_table(at: Path) -> None:
    """Top-1 of the finished arms, and differences."""
    arms = [arm for arm in ARMS if (at / f"{arm}-{SPLITS[-1]}.done").is_file()]
    found = {
        arm: pool([read_outcomes(Evaluation(str(at / f"{arm}-{s}"))) for s in SPLITS])
        for arm in arms
    }
    if not found:
        raise SystemExit("no arm is finished")
    first = next(iter(found.values()))
    assert first.groups is not None
    if any((o.video_ids != first.video_ids).any() for o in found.values()):
        raise SystemExit("the arms were not judged on the same clips")
    print(f"{len(first.labels)} clips of {len(np.unique(first.units.astype(str)))} groups")
    against = [arm for arm in AGAINST if arm in found]
    print("arm, processor seconds, tokens kept: top-1 [interval]; against " + ", ".join(against))
    for arm in arms:
        files = [at / f"{name}.seconds" for name in (f"{arm}-start", arm)]
        print(f"{arm}, {sum(int(f.read_text()) for f in files if f.is_file())} s")
        for ratio in KEEP:
            said = [interval(top1(found[arm], ratio), first, (0.0, 1.0))]
            for other in (name for name in against if name != arm):
                gap = top1(found[arm], ratio) - top1(found[other], ratio)
                said.append(f"{other} {interval(gap, first, (-1.0, 1.0))}")
            print(f"  {ratio:g}: {'; '.join(said)}")


def top1(outcomes: Outcomes, ratio: float) -> np.ndarray:
    """(V,) top-1 of each clip, mean over the seeds of what is random."""
    method = FULL if ratio == 1 else "random"
    chosen = [
        i for i, c in enumerate(outcomes.conditions) if (c.method, c.keep_ratio) == (method, ratio)
    ]
    return np.asarray(outcomes.top1[:, chosen].mean(1))


def interval(values: np.ndarray, outcomes: Outcomes, bounds: tuple[float, float]) -> str:
    """Mean and interval over groups, in points."""
    low, high = 100 * mean_interval(values[:, None], bounds, groups=outcomes.units)[:, 0]
    return f"{100 * values.mean():.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    """Runs what is missing, then prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="bf16", help="of the trainings")
    parser.add_argument("--arms", default=",".join(ARMS), help="which ones to do")
    parser.add_argument("--table-only", action="store_true", help="print what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table_only:
        listed = read_clips(options.clips)
        short = short_clips(listed, options.data_root, options.out / "short.json")
        clips = [clip for clip in listed if clip.path not in short]
        data = write_fold(options.out, 0, clips, deal(listed, FOLDS), options.data_root)
        for arm in options.arms.split(","):
            do_arm(Run(options.out), data, arm, options.precision)
    print_table(options.out / FOLD)


if __name__ == "__main__":
    main()
