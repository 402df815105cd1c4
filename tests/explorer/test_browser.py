"""The explorer in a real browser: clicks, keys, narrow windows, accessibility."""

import json
import os
import re
import shutil
import subprocess
import threading
from html import unescape
from pathlib import Path

import explorer_demo as demo
import ledger_factory as factory
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.execution import mongo
from pccd_workflows.explorer import server as server_module
from pccd_workflows.explorer.answers import Answer
from pccd_workflows.explorer.pages import answer
from pccd_workflows.explorer.server import Explorer
from pccd_workflows.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = Path(__file__).with_name("driver.js")
REPOSITORY = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("AXE_CORE", REPOSITORY / "node_modules/axe-core/axe.min.js"))
"""`npm install --no-save axe-core` brings it; without it accessibility is not audited."""
ID = demo.CAMPAIGN.candidate_id
CRYSTAL = f"/candidate/{ID(demo.REAL)}"
CAMPAIGN = f"/campaign/{demo.CAMPAIGN.campaign_id}"
PAGES = [
    "/",
    "/scatter",
    CRYSTAL,
    f"/compare?id={ID(160)}&id={ID(162)}",
    "/campaigns",
    CAMPAIGN,
    f"/job/{demo.FAILED}",
    f"/jobs/{demo.CAMPAIGN.campaign_id}",
    f"/compare-campaigns?a={demo.CAMPAIGN.campaign_id}&b={demo.CAMPAIGN.campaign_id}",
    f"/diagrams/{demo.CAMPAIGN.campaign_id}",
    "/nothing",
    "/report",
]


@pytest.fixture
def explored(settings, monkeypatch, tmp_path):
    """Run the explorer with one page more: the driver, which shows the others in a frame."""
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)
    database = mongo.database(settings)
    cell = Structure(Lattice.cubic(3.0), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    demo.fill(database, demo.real_crystal(database, cell, "emt"))
    axe = AXE.read_text() if AXE.exists() else ""
    known = {"AXE": axe, "CRYSTAL": CRYSTAL, "CAMPAIGN": CAMPAIGN, "PAGES": PAGES}
    script = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items())
    script += DRIVER.read_text()
    script = script.replace("</script", "<\\/script")
    driver = f"<!doctype html><title>driver</title><body><script>{script}</script>"

    report = write_report(
        tmp_path / "report.html",
        campaign=factory.campaign_document(),
        candidates=factory.demo(n_judged=5),
        reference_sets=[factory.reference_set()],
    )
    own = {"/driver": driver, "/report": report.read_text()}

    def respond(database, path, query):
        return Answer(own[path]) if path in own else answer(database, path, query)

    policy = server_module.HEADERS["Content-Security-Policy"]
    policy = policy.replace("frame-ancestors 'none'", "frame-src 'self'; frame-ancestors 'self'")
    monkeypatch.setitem(server_module.HEADERS, "Content-Security-Policy", policy)
    monkeypatch.setattr(server_module, "answer", respond)
    with Explorer("127.0.0.1", 0, lambda: database) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_drives_it(explored, tmp_path):
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,1700",
            "--virtual-time-budget=60000",
            "--dump-dom",
            explored.url.replace("/?", "/driver?"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, (done.stdout[:500], done.stderr[-2000:])
    seen = json.loads(unescape(title[1]))
    audit = seen.pop("audit", None)
    assert "THz" in seen.pop("said", ""), seen
    assert seen == {
        "failures": [],
        "picked": "Mn, O",
        "address": "?elements=Mn%2C+O",
        "pressed": "true",
        "compared": 2,
        "grown": True,
        "back": True,
        "faces": 0,
        "primitive": True,
        "supercell": True,
        "mode": True,
        "moves": True,
        "marked": True,
        "keyboard": True,
        "hidden": True,
        "through": True,
        "job": "relax chgnet 2/2",
        "folded": True,
        "unfolded": True,
        "command": f"pccd job rerun --job {demo.FAILED} --set INCAR.NCORE=4",
        "cut": 0,
        "wide": {},
    }
    if not AXE.exists():
        pytest.skip("driven; not audited: axe-core is not installed")
    serious = {
        page: bad
        for page, found in audit.items()
        if (bad := [one for one in found if one.startswith(("serious", "critical"))])
    }
    assert serious == {}, json.dumps(audit, indent=1)
