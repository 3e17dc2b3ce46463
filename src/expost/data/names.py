"""Names that options are typed with; nothing is imported for them."""

from __future__ import annotations

from typing import Literal

CodecName = Literal["grammar", "characters"]
"""How strings become rows of symbols: the names in `CODECS`."""
