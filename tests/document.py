"""Blocks of the documents: what is shown, what the invisible comments before it say."""

import re
from dataclasses import dataclass
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
DOCS = CLONE / "docs"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!-- (.*?) -->", flags=re.DOTALL)
FILE = re.compile(r'"""(\w+\.py)\b')
NAMED_FILE = re.compile(r"`([\w-]+\.(?:yaml|json))`")
RUN = ("python", "sh", "yaml", "toml")
"""Languages of blocks that are run or read."""
SHOWN = ("text", "layers")
"""Languages of blocks that show something."""


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes
    ----------
    page
        Where it stands, from the top of the clone.
    line
        Of its first line.
    notes
        The comments right before it, by their first words.
    before
        The paragraph before it.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str]
    before: str

    @property
    def not_run(self) -> str:
        """Why it is not run; empty if it is."""
        return self.notes.get("not run", "")

    @property
    def as_tested(self) -> str:
        """Its text with what `tested with` exchanges."""
        text = self.text
        for change in filter(None, self.notes.get("tested with", "").split("; ")):
            old, new = change.split(" -> ")
            assert old in text, f"{self.page}:{self.line}: there is no {old!r} to exchange"
            text = text.replace(old, new)
        return text

    @property
    def file(self) -> str | None:
        """Name of the file that it is; None if it is none."""
        if self.language == "python":
            found = FILE.match(self.text)
        elif self.language == "yaml":
            named = NAMED_FILE.findall(self.before)
            return named[-1] if named else None
        else:
            found = None
        return found[1] if found else None


def read(path: Path) -> list[Block]:
    """Return the blocks of a document, in order."""
    text = path.read_text(encoding="utf-8")
    found, end = [], 0
    for match in FENCE.finditer(text):
        between, end = text[end : match.start()], match.end()
        tail = between
        notes = {}
        while (comment := re.search(r"<!-- ((?:(?!-->).)*?) -->\s*$", tail, re.DOTALL)) is not None:
            key, _, value = comment[1].partition(": ")
            notes[key] = " ".join(value.split())
            tail = tail[: comment.start()]
        paragraphs = [part for part in tail.strip().split("\n\n") if part]
        found.append(
            Block(
                page=str(path.relative_to(CLONE)),
                line=text.count("\n", 0, match.start()) + 2,
                language=match[1],
                text=match[2],
                notes=notes,
                before=paragraphs[-1] if paragraphs else "",
            )
        )
    return found


def blocks(name: str, language: str) -> list[str]:
    """Return the texts of a language's blocks in a page of docs/, in order."""
    return [block.text for block in read(DOCS / name) if block.language == language]


def pages() -> list[Path]:
    """Return every document that people read."""
    found = {*CLONE.glob("*.md"), *DOCS.rglob("*.md"), *CLONE.glob("db_config/*.md")}
    found |= {*CLONE.glob("flows/**/*.md"), *CLONE.glob("model/**/*.md")}
    return sorted([*found, CLONE / "tests" / "vasp_standin" / "README.md"])
