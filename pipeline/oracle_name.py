"""An oracle's name, `METHOD@LAYER:TARGET`: how it values tokens, where it looks, and for whom.

    hirescam@embeddings        gradcam@blocks.11.output:predicted

Commands, configurations and readers of a store call an oracle by it; it needs no backbone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.errors import ConfigError

LABEL = "label"
TARGETS = (LABEL, "predicted")

_PATTERN = re.compile(r"([a-z0-9+-]+)(?:@([a-z0-9.-]+))?(?::(\w+))?")


class OracleName(NamedTuple):
    """One oracle; which methods and layers there are, `pipeline.oracle.names` knows."""

    method: str
    """`gradcam`, `hirescam`, ..., `occlusion`."""
    layer: str = ""
    """Module whose output is scored; empty where the method's default is still to be found."""
    target: str = LABEL
    """Class whose logit is explained: the true `label` or the `predicted` one."""

    @classmethod
    def parse(cls, text: str) -> OracleName:
        """The inverse of `str`; `@LAYER` and `:TARGET` may be left out.

        Raises:
            ConfigError: it is no name.
        """
        match = _PATTERN.fullmatch(text)
        target = (match[3] or LABEL) if match else ""
        if match is None or target not in TARGETS:
            raise ConfigError(
                f"an oracle is called METHOD, METHOD@LAYER or METHOD@LAYER:TARGET, TARGET one of "
                f"{', '.join(TARGETS)}, such as gradcam@blocks.-1.output:predicted; got {text!r}"
            )
        return cls(match[1], match[2] or "", target)

    def __str__(self) -> str:
        layer = f"@{self.layer}" if self.layer else ""
        return f"{self.method}{layer}" + ("" if self.target == LABEL else f":{self.target}")

    @property
    def suffix(self) -> str:
        """What stands in a store after the names of this oracle's arrays and columns.

        Letters, digits and underscores: file systems, SQL and attributes of a data frame take it.
        """
        return "_" + re.sub(r"\W", "_", str(self).replace("+", "p"))
