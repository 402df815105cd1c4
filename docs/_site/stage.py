"""Gathers the site's pages in one folder: those of docs/, READMEs of other folders, made ones.

    python docs/_site/stage.py build/docs

mkdocs builds the site from there (`make docs`). Links inside the repository, which work where the
files are read, become links inside the site; one that would lead nowhere is an error. A picture
that was not made yet is named instead of shown.
"""

import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

import api  # noqa: E402
import commands  # noqa: E402
import failures  # noqa: E402
import outputs  # noqa: E402
import schema  # noqa: E402
import settings  # noqa: E402
import sources  # noqa: E402
import terminal  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "db_config/README.md": "databases.md",
    "flows/README.md": "campaign-files.md",
    "flows/references/README.md": "shipped-phases.md",
    "model/README.md": "models.md",
    "model/pccd-default/README.md": "model-card.md",
    "model/paper/README.md": "model-paper.md",
    "tests/vasp_standin/README.md": "vasp-standin.md",
}
"""Pages of the site by their place in the repository; those of docs/ keep their names."""
INSTEAD = {
    "CITATION.cff": "cite.md",
    "LICENSE": "cite.md",
    "flows": "campaign-files.md",
    "db_config": "databases.md",
    "model": "models.md",
}
"""What a link to something that is no page leads to."""
OUTPUTS = """
## What they print

On a terminal of 80 columns, from an example with made-up numbers. Columns that do not fit are named
below a table; ids are as short as they can be told apart.

"""
FILLED: dict[str, Callable[[str], str]] = {
    "job-failed.md": failures.filled,
    "install.md": settings.filled,
    "cite.md": sources.filled,
    "tour.md": outputs.filled,
}
"""Pages with parts that are made."""
MADE: dict[str, Callable[[], dict[str, str]]] = {
    "commands": lambda: {"commands.md": commands.page() + OUTPUTS + terminal.page()},
    "schema": lambda: {"schema.md": schema.page()},
    "api": api.pages,
}

LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


class NowhereError(Exception):
    """A link leads to no page of the site."""


def stage(folder: Path) -> None:
    """Write the sources of the site into a folder, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("_site"))
    made = {name: text for make in MADE.values() for name, text in make().items()}
    for name, text in made.items():
        _write(folder / name, text)
    for place, name in ELSEWHERE.items():
        _write(folder / name, (ROOT / place).read_text(encoding="utf-8"))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(name for name in names - {*made} if name.endswith(".md")):
        text = (folder / name).read_text(encoding="utf-8")
        _write(folder / name, FILLED.get(name, str)(turned(text, name, names)))


def turned(text: str, name: str, names: set[str]) -> str:
    """Return a page whose links inside the repository lead to pages of the site.

    name: of the page in the site. names: of all files of the site.
    """
    place = next((place for place, uri in ELSEWHERE.items() if uri == name), f"docs/{name}")

    def turn(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        uri = ELSEWHERE.get(meant) or INSTEAD.get(meant) or meant.removeprefix("docs/")
        if uri not in names and (ROOT / meant).is_dir():
            return match[1].lstrip("!")[1:-2]  # a folder is no page: its name is left
        if uri not in names and match[1].startswith("!"):
            print(f"{place}: there is no {target} (make pictures, make screenshots)")  # noqa: T201
            return f"*{match[1][2:-2]}*"
        if uri not in names:
            raise NowhereError(f"{place}: the site has no page for the link to {match[2]}")
        relative = posixpath.relpath(uri, posixpath.dirname(name) or ".")
        return match[1] + relative + (f"#{anchor}" if anchor else "") + match[3]

    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(turn, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(turn, text[end:])])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
