"""Pictures of every page for the documents, wide and narrow, light and dark: `make screenshots`.

Needs chromium. A made-up campaign is stored in a database of its own, which goes away afterwards.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import explorer_demo as demo
import ledger_factory as factory
from pymatgen.core import Structure

from pccd_workflows.execution import mongo, mongod
from pccd_workflows.explorer.server import HEADERS, Explorer
from pccd_workflows.figures import write_figures
from pccd_workflows.report import write_report
from pccd_workflows.report.statistics import summarize
from pccd_workflows.settings import Settings

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTHS = {"wide": 1300, "narrow": 390}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ID = demo.CAMPAIGN.candidate_id
FIGURES = ("funnel", "energies", "diagram")
FORMATION = "formation_energy_ev_per_atom"
PAGES = {  # name: address, height wide and narrow
    "explorer-list": ("/?sort=energy_above_hull", 1100, 1500),
    "explorer-scatter": (
        "/scatter?x=nsites&y=formation_energy_ev_per_atom&colour=novel",
        1150,
        1500,
    ),
    "explorer-crystal": (f"/candidate/{ID(demo.REAL)}", 1500, 2600),
    "explorer-compare": (f"/compare?id={ID(160)}&id={ID(162)}", 1700, 1700),
    "explorer-campaigns": ("/campaigns", 420, 480),
    "explorer-campaign": (f"/campaign/{demo.CAMPAIGN.campaign_id}", 1500, 1700),
    "explorer-job": (f"/job/{demo.FAILED}", 1150, 1500),
    "explorer-diagrams": (f"/diagrams/{demo.CAMPAIGN.campaign_id}", 950, 1500),
}
DARK = (
    *("explorer-list", "explorer-scatter", "explorer-crystal", "explorer-campaign"),
    *("explorer-job", "explorer-diagrams", "report"),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def explorer(folder: Path) -> Iterator[Explorer]:
    """Run the explorer over the made-up campaign."""
    settings = Settings(mongodb_uri=None, data_dir=folder, mongod_port=free_port(), database="demo")
    mongod.start(settings)
    try:
        database = mongo.database(settings)
        demo.fill(database, demo.real_crystal(database, magnesia(), "chgnet"))
        # narrow pages are shown in a frame, which the explorer forbids
        policy = HEADERS["Content-Security-Policy"]
        HEADERS["Content-Security-Policy"] = policy.replace("frame-ancestors 'none'", "").strip()
        with Explorer("127.0.0.1", 0, lambda: database) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield server
            server.shutdown()
            thread.join()
    finally:
        mongod.stop(settings)


def magnesia() -> Structure:
    return factory.rock_salt()


def shoot(address: str, path: Path, size: tuple[int, int], profile: Path, *, dark: bool) -> None:
    """Take a picture of a page as chromium shows it."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--hide-scrollbars"]
    command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
    command += ["--virtual-time-budget=20000", f"--screenshot={path}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=180)


def main(out: Path = OUT) -> None:
    """Write all pictures."""
    if CHROMIUM is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report = write_report(
            folder / "report.html",
            campaign=factory.campaign_document(),
            candidates=factory.demo(),
            reference_sets=[factory.reference_set()],
        )
        draw_figures(folder / "figures", out)
        with explorer(folder / "data") as server:
            pages = {
                name: (framed(server.url, address), wide, narrow)
                for name, (address, wide, narrow) in PAGES.items()
            }
            pages["report"] = (report.as_uri(), 3200, 3600)
            for name, (address, *heights) in pages.items():
                for (kind, width), height in zip(WIDTHS.items(), heights, strict=True):
                    take(address, out / f"{name}-{kind}.png", (width, height), folder)
            for name in DARK:
                address, height, _ = pages[name]
                size = (WIDTHS["wide"], height)
                take(address, out / f"{name}-dark.png", size, folder, dark=True)


def draw_figures(folder: Path, out: Path) -> None:
    """Write some of the figures of the made-up campaign."""
    summary = summarize(factory.demo(), demo.CAMPAIGN)
    for figure in write_figures(folder, summary, [factory.reference_set()]):
        if figure.name.split("-")[0] in FIGURES:
            shutil.copy(figure.files[1], out / f"figure-{figure.name.split('-')[0]}.svg")


def take(
    address: str, path: Path, size: tuple[int, int], folder: Path, *, dark: bool = False
) -> None:
    """Take one picture.

    Chromium's window is never narrower than 500 pixels: a narrow page is shown in a frame.
    """
    width, height = size
    page = folder / "frame.html"
    style = "border:0;display:block;background:white"
    page.write_text(
        "<!doctype html><body style=margin:0>"
        f'<iframe src="{address}" width={width} height={height} style="{style}"></iframe>'
    )
    shown = (max(width, 500), height)
    shoot(page.as_uri() if width < 500 else address, path, shown, folder / "profile", dark=dark)
    finish(path, size)


def finish(path: Path, size: tuple[int, int]) -> None:
    """Cut a picture to its size and store it in few colours: a third of the bytes."""
    from PIL import Image

    image = Image.open(path).convert("RGB").crop((0, 0, *size))
    image.quantize(192, kmeans=3).save(path, optimize=True)


def framed(url: str, address: str) -> str:
    """Return an address with the token that the server asks for."""
    base, _, token = url.partition("/?")
    return f"{base}{address}{'&' if '?' in address else '?'}{token}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
