"""Makes what README and tour show of the example campaign, from the campaign itself.

    python docs/_site/pictures.py

It takes the latest campaign of the name from the database (`make discover` runs it) and a headless
Chromium. Written are docs/images/ and the table of README.md.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
CAMPAIGN = "quickstart"
ROWS = 6
WINDOW = "1300,1580"
"""Pixels: the head of a report, its funnel and its phase diagram."""
LEFT_OUT = "<style>#protocol, #energies { display: none }</style></head>"
"""Parts of a report for which the picture has no room."""
TABLE = re.compile(
    r"(<!-- output: quickstart.txt -->\n```text\n).*?(^```$)", re.DOTALL | re.MULTILINE
)


def printed(*arguments: str) -> str:
    """Return what a command of pccd prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "pccd_workflows", *arguments]
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def photograph(page: Path, picture: Path) -> None:
    """Draw the top of a page as Chromium shows it."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--hide-scrollbars"]
    command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += ["--virtual-time-budget=8000", f"--window-size={WINDOW}"]
    subprocess.run(
        [*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True
    )


def main() -> None:
    """Write the table, the picture and README's copy of the table."""
    table = printed("candidate", "list", "--campaign", CAMPAIGN, "--novel", "--limit", str(ROWS))
    (IMAGES / "quickstart.txt").write_text(table, encoding="utf-8")
    readme = ROOT / "README.md"
    text = TABLE.sub(lambda m: m[1] + table + m[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        printed("campaign", "report", CAMPAIGN, "--out", str(page))
        text = page.read_text(encoding="utf-8").replace("</head>", LEFT_OUT, 1)
        page.write_text(text, encoding="utf-8")
        photograph(page, IMAGES / "report.png")


if __name__ == "__main__":
    main()
