"""Parts of a campaign file: strict, immutable, with the field types that several of them share."""

import difflib
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pymatgen.core import Element

NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def _element(symbol: str) -> str:
    if symbol not in Element.__members__ or symbol in {"D", "T"}:
        close = difflib.get_close_matches(symbol, Element.__members__, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{symbol!r} is not a chemical element{hint}")
    return symbol


def _distinct(symbols: list[str]) -> list[str]:
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"an element is named twice in {symbols}")
    return symbols


ElementSymbol = Annotated[str, AfterValidator(_element)]


ElementSet = Annotated[list[ElementSymbol], AfterValidator(_distinct), Field(min_length=1)]


class Section(BaseModel):
    """A part of a campaign file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
