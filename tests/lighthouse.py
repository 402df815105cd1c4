"""What Lighthouse says of every page of the explorer and of a report: `make lighthouse`.

Needs chromium and Lighthouse (`npm install --no-save lighthouse`, or on PATH). Exit code 1 if a
page's accessibility is below ASKED. `--dark` judges the colours of dark mode. Further arguments are
parts of the names of pages; all without.
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ledger_factory as factory
import screenshots

from pccd_workflows.report import write_report

ASKED = 90
CATEGORIES = ("accessibility", "performance", "best-practices")
FORM = {"desktop": ["--preset=desktop"], "phone": []}
"""Options by kind of device; a phone is Lighthouse's own choice, slowed down four times."""
ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "node_modules" / ".bin" / "lighthouse"
FLAGS = "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's own name
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder: Lighthouse opens no files."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def judge(program: str, address: str, options: list[str], *, dark: bool) -> dict[str, Any]:
    """Return Lighthouse's report of one page."""
    flags = FLAGS + (" --blink-settings=preferredColorScheme=0" if dark else "")
    command = [program, address, "--quiet", "--output=json", *options, f"--chrome-flags={flags}"]
    command.append(f"--only-categories={','.join(CATEGORIES)}")
    environment = os.environ | {"CHROME_PATH": str(screenshots.CHROMIUM)}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=environment
    )
    if done.returncode:
        sys.exit(f"{address}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def findings(report: dict[str, Any]) -> list[str]:
    """Return what an audit that counts did not pass, without how fast the machine was."""
    titles = []
    for name in ("accessibility", "best-practices"):
        for reference in report["categories"][name]["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 1:
                nodes = [item.get("node", {}) for item in audit.get("details", {}).get("items", [])]
                shown = [node.get("snippet", "")[:100] for node in nodes][:3]
                titles.append(": ".join([audit["title"], *filter(None, [" | ".join(shown)])]))
    return titles


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a table of scores, and what was found."""
    dark = "--dark" in sys.argv
    wanted = [argument for argument in sys.argv[1:] if argument != "--dark"]
    program = str(HERE) if HERE.exists() else shutil.which("lighthouse")
    if program is None or screenshots.CHROMIUM is None:
        sys.exit("chromium and Lighthouse are needed: npm install --no-save lighthouse")
    lowest, told = 100, []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "site").mkdir()
        write_report(
            folder / "site" / "report.html",
            campaign=factory.campaign_document(),
            candidates=factory.demo(),
            reference_sets=[factory.reference_set()],
        )
        with screenshots.explorer(folder / "data") as explorer, served(folder / "site") as site:
            pages = {
                name: screenshots.framed(explorer.url, address)
                for name, (address, *_) in screenshots.PAGES.items()
            }
            pages["report"] = f"{site}/report.html"
            say(f"{'page':<22}{'device':<9}" + "".join(f"{name:>15}" for name in CATEGORIES))
            for name, address in pages.items():
                if wanted and not any(part in name for part in wanted):
                    continue
                for device, options in FORM.items():
                    report = judge(program, address, options, dark=dark)
                    scores = [report["categories"][one]["score"] for one in CATEGORIES]
                    lowest = min(lowest, round(100 * scores[0]))
                    shown = "".join(f"{round(100 * score):>15}" for score in scores)
                    say(f"{name:<22}{device:<9}{shown}")
                    told += [f"{name} ({device}): {one}" for one in findings(report)]
    say("\n".join(dict.fromkeys(told)) or "Nothing was found.")
    sys.exit(f"An accessibility below {ASKED}." if lowest < ASKED else 0)


if __name__ == "__main__":
    main()
