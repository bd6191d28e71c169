"""Texts that a database keeps: everything but the sign NUL, which Postgres takes in no text column. It is refused where
it comes in, in an address, a form or a short field, so that all databases answer alike. Pure.
"""

from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

NUL: Final = "\0"
NO_NUL: Final = "it holds the sign NUL, which no database keeps: leave it out"


def _without_nul(text: str) -> str:
    if NUL in text:
        raise PydanticCustomError("nul", NO_NUL)
    return text


Kept = Annotated[str, AfterValidator(_without_nul)]
"""A short text of a body that goes into a column of its own. Prompts are kept as JSON, in which NUL is a sign."""
