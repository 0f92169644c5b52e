"""A selector that is taught where the actors are, in place of what an oracle finds valuable.

    python benchmarks/actor_targets.py --store STORE --data-root DATA --who labelled --out SELECTOR
    lite-pipeline evaluate --selector SELECTOR --selector ordinary=... --data-root DATA ...

Takes clips and embeddings from a store of the rendered benchmark, whose side file knows the actors.
The target of a token is the share of it that the actor covers. `--who all` counts everybody who
acts, which a selector can see; whose action the label is, it can only guess.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets_spec.synthetic.actors import NO_ACTION, Body, read_actors, token_cover
from pipeline.backbones import load_backbone
from pipeline.clips.grid import TokenGrid
from pipeline.clips.views import frame_indices
from pipeline.errors import ClipStatus
from pipeline.store.reader import ShardData, Store
from pipeline.store.root import Root
from selector.training.config import TrainConfig
from selector.training.files import load_selector, save_selector
from selector.training.train import train_selector

LABELLED, ACTING = "labelled", "all"


class ActorStore(Store):
    """A store whose maps say how much of each token an actor covers.

    Args:
        root: of a store of one centre view a video of the rendered benchmark.
        data_root: its videos' folder.
        who: `LABELLED` or `ACTING`.
    """

    def __init__(self, root: Root, data_root: Path, who: str) -> None:
        super().__init__(root)
        self._who = who
        self._bodies = read_actors(data_root, self.config.split)
        self._num_frames = load_backbone(self.config.backbone, self.config.revision).num_frames

    def read_shard(
        self, shard: int, *, embeddings: bool = True, oracle: str | None = None
    ) -> ShardData:
        """See `Store.read_shard`; `scores` and `cam` are the cover."""
        data = super().read_shard(shard, embeddings=embeddings, oracle=oracle)
        cover = np.full_like(data.scores, np.nan)
        columns = zip(
            data.clips["video_id"],
            data.clips["status"],
            data.clips["num_frames_total"],
            strict=True,
        )
        for row, (video, status, num_total) in enumerate(columns):
            if status == ClipStatus.OK:
                frames = frame_indices(num_total, self._num_frames, self.config.sampling)
                cover[row] = actor_cover(self._bodies[video], frames, self.grid, self._who)
        return replace(data, scores=cover, cam=cover)


def actor_cover(
    bodies: list[Body], frames: npt.NDArray[np.int64], grid: TokenGrid, who: str
) -> npt.NDArray[np.float32]:
    """Share of each token that the actor, or anybody who acts, covers: (t, y, x) in [0, 1]."""
    chosen = [b for b in bodies if (b.actor == 0 if who == LABELLED else b.action != NO_ACTION)]
    return np.max([token_cover(body, frames, grid) for body in chosen], axis=0)


def main() -> None:
    """Trains, and saves with the target's name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--who", choices=(LABELLED, ACTING), default=LABELLED)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    work = asked.out / "training"
    result = train_selector(
        ActorStore(Root(asked.store), asked.data_root, asked.who),
        work,
        TrainConfig(epochs=asked.epochs, seed=asked.seed),
        device="cpu",
    )
    selector = load_selector(work)
    selector.config = replace(selector.config, oracle=f"cover by the actors: {asked.who}")
    save_selector(selector, asked.out)
    found = result.methods["selector"]
    print(f"{asked.out}: epoch {result.best_epoch} of {result.num_epochs}, held out {found}")


if __name__ == "__main__":
    main()
