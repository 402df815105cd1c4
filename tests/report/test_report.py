"""The report: complete, self-contained, escaped; its scripts run in a browser."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import ledger_factory as factory
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.report import write_report
from pccd_workflows.report.panels import xrd_panel
from pccd_workflows.report.statistics import summarize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_report(
        tmp_path_factory.mktemp("report") / "report.html",
        campaign=factory.campaign_document(),
        candidates=factory.demo(n_judged=20),
        reference_sets=[factory.reference_set()],
    )


def embedded(text):
    match = re.search(r'<script type="application/json" id="documents-json">(.*?)</script>', text)
    assert match
    return json.loads(match[1])


def test_report_names_campaign_model_and_protocol(page):
    text = html.unescape(page.read_text())
    which = factory.campaign()
    for fact in (
        which.campaign_id,
        which.hash,
        f"weights sha256 {'3f7a' * 16}",
        "2026-11-22 14:03 UTC",
        factory.reference_set().reference_id,
        "ltol 0.2, stol 0.3, angle_tol 5°",
        "raw samples, before any filter",
    ):
        assert fact in text


def test_report_shows_funnel_figures_and_shares(page):
    text = page.read_text()
    assert text.count('class="fill"') == 8
    assert "too close <b>14</b>" in text
    assert "pccd candidate list --campaign" in text or "The first 25" not in text
    for title in ("Energy above hull of 26 crystals", "Cumulative share", "Phase diagram of"):
        assert f"<title>{title}" in text
    assert text.count("<title>Structure of") == 6
    assert text.count("<title>Phonon bands") == 3
    assert "Share of 26 unique" in text
    assert "Share of 56 screened" in text
    assert "Share of 112 raw" in text


def test_report_says_of_which_kind_the_kept_crystals_are(tmp_path):
    """In the line of the terminal, as shares, in table, cards and data; few that were tried."""
    docs = [
        factory.judged(0, above=0.05, kind="substitution", phonons="stable"),
        factory.judged(1, "MgMnO3", above=0.02, kind="new_structure_type"),
        factory.judged(2, "MgO", above=0.0, novel=False, kind="duplicate"),
        *(factory.undecoded(number) for number in range(3, 96)),
    ]
    path = write_report(
        tmp_path / "r.html",
        campaign=factory.campaign_document(),
        candidates=docs,
        reference_sets=[factory.reference_set()],
    )
    text = html.unescape(path.read_text())
    share = "2 of 3 (67 %, 21-94 %)"
    assert f"New {share}: 1 substitution, 1 new structure type; 1 known" in text
    assert f"<dt>new</dt><dd>{share}</dd>" in text
    assert re.findall(r'class="percent">([^<]*)<', text)[-2:] == ["of 3", "of 1"]
    assert "of 3 within 250 meV/atom (chgnet)" in text  # in the tiles
    assert "of 1 tried" in text
    first, second, last = (row for row in re.findall(r"<tr>.*?</tr>", text) if "#doc-" in row)
    assert ">substitution<" in first
    assert ">mp-1<" in first
    assert ">new structure type<" in second
    assert ">duplicate<" in last
    kinds = [(row["kind_of_new"], row["known_id"]) for row in embedded(text)]
    assert kinds == [("substitution", "mp-1"), ("new_structure_type", None), ("duplicate", "mp-1")]
    badges = [
        ("new" if ">new<" in card else "known" if ">known<" in card else "")
        for card in re.findall(r'<p class="badges">.*?</p>', text)
    ]
    assert badges == ["new", "new", "known"]
    assert text.count(">substitution of mp-1<") == 1


def test_every_shown_crystal_leads_to_its_document(page):
    text = page.read_text()
    rows = embedded(text)
    assert len(rows) == 26
    for row in rows:
        candidate_id = row["candidate_id"]
        assert f'id="doc-{candidate_id}"' in text
        assert f"pccd candidate show {candidate_id}" in text
        assert row["jobs"]["hull:chgnet"] in text
        assert row["levels"] == ["chgnet"]
        assert row["references"] == [factory.reference_set().reference_id]
    linked = set(re.findall(r'href="#doc-([^"]+)"', text))
    assert linked == {row["candidate_id"] for row in rows}


def test_report_loads_nothing_from_anywhere(page):
    text = page.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"<(link|iframe|object|embed|base)\b", text)
    assert not re.search(r"<script[^>]+src", text)
    assert "@import" not in text
    assert page.stat().st_size < 1_500_000


def test_text_from_outside_is_never_markup(tmp_path):
    which = factory.campaign(description=EVIL)
    doc = factory.judged(0, which=which)
    sets = {EVIL: doc.novelty.sets["references"].model_copy(update={"matched_id": EVIL})}
    stability = doc.stabilities[0].model_copy(update={"reason": EVIL, "decomposition": {EVIL: 1.0}})
    doc = doc.model_copy(
        update={
            "status": "rejected",
            "reason": EVIL,
            "formula_pretty": EVIL,
            "spacegroup": EVIL,
            "reason_class": EVIL,
            "stabilities": [stability],
            "novelty": doc.novelty.model_copy(update={"sets": sets}),
            "jobs": {"hull:chgnet": EVIL},
        }
    )
    lost = factory.rejected(1, "too_close").model_copy(
        update={"reason": EVIL, "formula_pretty": EVIL, "reason_class": EVIL}
    )
    text = write_report(
        tmp_path / "evil.html",
        campaign=factory.campaign_document(which) | {"hash": EVIL},
        candidates=[doc, lost],
        reference_sets=[],
    ).read_text()
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert embedded(text)[0]["reason"] == EVIL


@pytest.mark.parametrize(
    ("docs", "sentences"),
    [
        ([], ["No sample of this campaign is stored", "No crystal has an energy above the hull"]),
        (
            [factory.undecoded(0)],
            ["of 1 samples 0 decoded", "No reference set was used", "none to rank"],
        ),
        ([factory.rejected(0, "charge")], ["1 decoded, 0 passed the screen"]),
        (
            [factory.judged(0, above=0.2)],
            ["No reference set was used"],
        ),
    ],
)
def test_empty_campaigns_say_so_instead_of_drawing(tmp_path, docs, sentences):
    text = write_report(
        tmp_path / "empty.html",
        campaign=factory.campaign_document(),
        candidates=docs,
        reference_sets=[],
    ).read_text()
    for sentence in sentences:
        assert sentence in text
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).lower().split()


def test_failed_relaxations_and_phonons_are_told(tmp_path):
    doc = factory.judged(0, phonons="stable")
    phonons = doc.phonons[0].model_copy(
        update={"verdict": "error", "bands": None, "reason": "Supercell too large."}
    )
    relaxation = doc.relaxations[0].model_copy(update={"energies": []})
    doc = doc.model_copy(
        update={"phonons": [phonons], "relaxations": [relaxation], "phonon_stable": None}
    )
    text = write_report(
        tmp_path / "failed.html",
        campaign=factory.campaign_document(),
        candidates=[doc],
        reference_sets=[],
    ).read_text()
    assert "Supercell too large." in text
    assert "there is no curve to draw" in text


def test_an_unwritable_path_is_one_sentence_and_the_old_file_stays(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(
            tmp_path / "file" / "report.html",
            campaign=factory.campaign_document(),
            candidates=[],
            reference_sets=[],
        )
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_scripts_run_in_a_browser(page, tmp_path):
    """Scripts run without an error, and redraw every structure."""
    probe = tmp_path / "probe.html"
    watch = (
        "<script>window.failures = [];"
        "addEventListener('error', (e) => failures.push(e.message));"
        "addEventListener('securitypolicyviolation', (e) => failures.push(e.violatedDirective));"
        "addEventListener('load', () => {"
        "document.querySelector('.best th:nth-child(4)').click();"
        "const box = document.querySelector('.viewer');"
        "const before = box.querySelector('circle.atom').getAttribute('cx');"
        "box.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}));"
        "const turned = before !== box.querySelector('circle.atom').getAttribute('cx');"
        "const first = document.querySelector('.best td:nth-child(4)').dataset.sort;"
        "document.title = JSON.stringify({failures, turned, first,"
        "atoms: document.querySelectorAll('.viewer circle.atom').length,"
        "figures: document.querySelectorAll('svg.figure').length});"
        "});</script>"
    )
    probe.write_text(page.read_text().replace("<style>", watch + "<style>", 1))
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr[-2000:]
    found = json.loads(html.unescape(title[1]))
    assert found["failures"] == []
    assert found["turned"]
    assert float(found["first"]) == -0.004
    assert found["atoms"] > 100
    assert found["figures"] >= 3 + 6 + 6 + 3


def test_the_protocol_names_every_source(tmp_path):
    crystal = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])
    crystal.to(str(tmp_path / "a.cif"), fmt="cif")
    one = factory.campaign()
    both = one.resolved() | {
        "generate": [
            {**one.resolved()["generate"], "conditions": {"band_gap": 1.0}},
            {"source": "files", "path": str(tmp_path)},
        ]
    }
    which = Campaign.model_validate(both)
    text = write_report(
        tmp_path / "several.html",
        campaign=factory.campaign_document(which),
        candidates=[],
        reference_sets=[],
    ).read_text()
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    assert re.search(r"Source 1, conditions\s+band_gap = 1\.0", plain)
    assert re.search(r"Source 2, elements\s+Cl, Cs", plain)
    assert re.search(r"Source 2, sampling\s+1 samples of files", plain)
    assert f"of {which.n_samples} asked for" in plain
    assert which.n_samples == one.n_samples + 1


def test_files_lie_in_the_report_itself(page):
    text = page.read_text()
    files = dict(
        re.findall(
            r'<a download="([^"]+)" href="data:application/octet-stream;base64,([^"]+)"', text
        )
    )
    which = factory.campaign()
    rows = list(csv.DictReader(io.StringIO(b64decode(files[f"{which.campaign_id}.csv"]).decode())))
    assert len(rows) == 26
    name = f"{which.candidate_id(161)}_MgMn2O4.cif"
    cif = b64decode(files[name]).decode()
    assert "# symmetry: Fd-3m (No. 227), spglib with a tolerance of 0.1 Å" in cif
    assert Structure.from_str(cif, fmt="cif").matches(factory.crystal("MgMn2O4")[0])
    document = json.loads(b64decode(files[f"{which.candidate_id(161)}.json"]))
    assert document["candidate_id"] == which.candidate_id(161)
    assert sum(name.endswith(".cif") for name in files) == 6


def test_what_relaxed_to_the_same_crystal_counts_once():
    twice = [factory.judged(i, "MgMnO2", above=0.02) for i in range(2)]
    same = twice[1].novelty.model_copy(update={"duplicate_of": twice[0].candidate_id})
    update = {"novelty": same, "passed": False, "reason_class": "duplicate", "reason": "The same."}
    stability = twice[1].stabilities[0].model_copy(update=update)
    twice[1] = twice[1].model_copy(update={"stabilities": [stability]})
    summary = summarize(twice, factory.campaign())
    within = next(step for step in summary.steps if step.label.startswith("within"))
    assert within.count == 1
    assert summary.thresholds("chgnet")[1].count == 1


def test_the_report_has_patterns_and_says_what_a_residual_is(page):
    text = html.unescape(page.read_text())
    assert text.count("<title>Simulated X-ray powder pattern</title>") == 6
    assert "indices of the conventional cell" in text
    assert text.count("Γ residual -0.02 THz") >= 2
    assert text.count("how far from 0 the acoustic modes were at Γ") == 1
    # the strongest reflection of rock salt is (200)
    panel = xrd_panel(factory.judged(0, "MgO"))
    tips = re.findall(r'data-tip="\((\S+)\) at ([\d.]+)°, (\d+) %"', str(panel.picture))
    assert max(tips, key=lambda tip: int(tip[2]))[0] == "200"
