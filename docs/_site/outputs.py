"""What commands printed when the pictures were made (`make pictures`), for pages that show it."""

import re
from pathlib import Path

MARKER = re.compile(r"^<!-- output: ([\w.-]+) -->$", re.MULTILINE)
FOLDER = Path(__file__).resolve().parents[1] / "images"


def filled(text: str) -> str:
    """Return a page with the stored output in place of each marker."""

    def replaced(match: re.Match[str]) -> str:
        output = (FOLDER / match[1]).read_text(encoding="utf-8")
        return f"```text\n{output.rstrip()}\n```"

    return MARKER.sub(replaced, text)
