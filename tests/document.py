"""Blocks of documents, to be run: files that they show, and what stands between them."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
FILE = re.compile(r'"""(\w+\.py)"""')


def blocks(name: str, language: str) -> list[str]:
    """Return the blocks of a language in a document, in order."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return [block for found, block in FENCE.findall(text) if found == language]


def file_name(block: str) -> str | None:
    """Return the name of the file that a block is; None if it is to be run."""
    found = FILE.match(block)
    return found[1] if found else None
