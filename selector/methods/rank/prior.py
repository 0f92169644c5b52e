"""The selector without its eyes: how valuable each place is in general, whatever the clip shows."""

from __future__ import annotations

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod
from selector.methods.spread import spread_offsets
from selector.training.model import TokenSelector

_SURE = 1e-6  # mean scores closer to 0 or 1 than this have no log-odds worth telling apart


class PriorMethod(RankingMethod):
    """Ranks by the mean score of a token's place over a selector's training clips.

    So every clip has the same mask. What LITE is above this is what looking at the clip gains.

    Args:
        selector: its training left the means; the network itself does not run.
        spread: how evenly the kept tokens lie; see `selector.methods.spread`.

    Raises:
        ConfigError: an earlier release trained the selector, and kept no means.
    """

    ties = True

    def __init__(self, selector: TokenSelector, spread: float = 0.0) -> None:
        if selector.prior is None:
            raise ConfigError(
                "an earlier release trained this selector and kept no mean score per place: "
                "train it again with `lite-pipeline train-selector`, into another folder"
            )
        self._config, self._spread = selector.config, spread
        odds = selector.prior.double().logit(_SURE)
        self._scores = odds + spread_offsets(selector.config.grid, spread).double()

    def __str__(self) -> str:
        return "prior-spread" if self._spread else "prior"

    def fits(self, backbone: Backbone) -> str | None:
        """As its selector does."""
        try:
            self._config.check_fits(backbone)
        except ConfigError as error:
            return str(error)
        return None

    def rank(self, batch: ClipBatch) -> Ranking:
        """Log-odds of the means, moved by the offsets of the spread, (B, N) float64."""
        return Ranking(self._scores.expand(batch.num_clips, -1))
