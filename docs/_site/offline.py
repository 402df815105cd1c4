"""Refuses a built site that a browser could not show without a network.

python docs/_site/offline.py site
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect)[^>]*\bhref=[\"']?(?:https?:)?//"
    r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect)"
    r"|@import\s+[\"']?(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//[^)]+",
)


def loaded(folder: Path) -> Iterator[str]:
    """Yield what pages and styles of a site would load from elsewhere."""
    for path in sorted([*folder.rglob("*.html"), *folder.rglob("*.css")]):
        for match in LOADED.finditer(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(folder)}: {match[0]}"


if __name__ == "__main__":
    found = list(loaded(Path(sys.argv[1])))
    sys.exit("\n".join(["The site has to work offline:", *found]) if found else 0)
