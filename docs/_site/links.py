"""The links of documents that lead out of the repository: a list, and whether their form is right.

    python docs/_site/links.py --external > links.txt

Every line is an address and the files that hold it. Exit code 1, with a sentence for each, if some
cannot be right: no https, a DOI of another form than its publisher's, two spellings of one address.
Nothing is asked of a network; where there is one, `xargs` and `curl` ask (CONTRIBUTING.md).
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "flows", "db_config", "model", "tests")
READ = ("*.md", "*.cff", "pyproject.toml", *(f"{folder}/**/*.md" for folder in FOLDERS))
ADDRESS = re.compile(r"https?://[^\s<>\"'`\]}|\\]+")
HERE = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\]|www\.w3\.org/2000/svg)")
"""Addresses of this machine, and names that look like one."""
EXAMPLE = re.compile(r"https?://[^/]*(?:\.example|example\.(?:com|org))\b")
DOI = re.compile(r"https://doi\.org/(10\.\d{4,9})/(\S+)")
FORMS = {
    "10.1002": r"[a-z]+\.\d+",
    "10.1016": r"j\.[a-z]+\.\d{4}\.\d{2,6}(?:\.\d{3})?",
    "10.1021": r"acs\.[a-z]+\.\d[a-z]\d{5}",
    "10.1038": r"s\d{5}-\d{3}-\d{5}-[\da-z]",
    "10.1039": r"[A-Z]\d[A-Z]{2}\d{5}[A-Z]",
    "10.1063": r"\d\.\d{7}",
    "10.1080": r"\d{8}\.\d{4}\.\d{7}",
    "10.1088": r"\d{4}-[\dX]{4}/[\da-f]+",
    "10.1103": r"(?:PhysRev(?:Lett|[A-EX]|Materials)|RevModPhys)\.\d+\.\d+",
    "10.21105": r"joss\.\d{5}",
    "10.7566": r"JPSJ\.\d+\.\d{6}",
}
"""What publishers' DOIs look like behind the slash."""


def external() -> dict[str, list[str]]:
    """Return every address outside this machine with the files that hold it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted({path for place in READ for path in ROOT.glob(place)}):
        for address in dict.fromkeys(addresses(path.read_text(encoding="utf-8"))):
            found[address].append(path.relative_to(ROOT).as_posix())
    return dict(sorted(found.items()))


def addresses(text: str) -> Iterator[str]:
    """Yield the external addresses of a text, without the sentence around them."""
    for match in ADDRESS.finditer(text):
        address = match[0].rstrip(".,;:!?*")
        while address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(".,;:")
        if not HERE.match(address) and not EXAMPLE.match(address):
            yield address


def problems(found: Mapping[str, object]) -> Iterator[str]:
    """Yield what cannot be right, one sentence each."""
    spelled: dict[str, str] = {}
    for address in found:
        if not address.startswith("https://"):
            yield f"{address} is not https."
        plain = re.sub(r"^https?://(?:www\.)?", "", address).rstrip("/").lower()
        if (other := spelled.setdefault(plain, address)) != address:
            yield f"{address} and {other} are one address in two spellings."
        if "doi.org" in address and (problem := _doi_problem(address)):
            yield problem


def _doi_problem(address: str) -> str:
    match = DOI.fullmatch(address)
    if match is None:
        return f"{address} is not of the form https://doi.org/10.NNNN/..."
    form = FORMS.get(match[1])
    if form is None:
        return f"{address}: {match[1]} is a publisher unknown here; add its form to FORMS."
    return "" if re.fullmatch(form, match[2]) else f"{address} is no DOI of {match[1]}."


def main() -> None:
    """Print the list; say what is wrong."""
    if sys.argv[1:] != ["--external"]:
        sys.exit("usage: python docs/_site/links.py --external")
    found = external()
    for address, names in found.items():
        sys.stdout.write(f"{address}  {' '.join(names)}\n")
    sys.exit("\n".join(problems(found)) or 0)


if __name__ == "__main__":
    main()
