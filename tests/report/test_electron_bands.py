"""Electronic bands as pages, terminal and files show them, asked beside computed."""

import csv
import re

import ledger_factory as factory
import pytest

from pccd_workflows.execution import mongo
from pccd_workflows.explorer.pages import answer
from pccd_workflows.export import export_candidates
from pccd_workflows.report.card import make_card
from pccd_workflows.report.figures import electron_bands
from pccd_workflows.report.render import write_report
from pccd_workflows.report.stages import stage_lines

LEVEL = "vasp/mp-gga"
BUDGET = "The rung's budget of 1 core-hours is spent."


def judged(record, asked=None):
    doc = factory.judged(0, which=factory.campaign(rungs=[{"level": LEVEL}]))
    return factory.with_bands(doc, record, asked)


def rectangle(picture: str) -> tuple[float, float]:
    """Return top and height of the gap, pixels."""
    found = re.search(r'<rect [^>]*class="gap"[^>]*>', picture)
    assert found is not None
    return tuple(float(re.search(rf' {name}="([\d.]+)"', found[0])[1]) for name in ("y", "height"))


def test_a_gap_is_drawn_between_the_edges():
    picture = str(electron_bands(factory.bands_record(2.0)))
    assert picture.count('class="electron"') == 2 * 3
    assert "X|K" in picture
    assert "Gap: 2.00 eV" in picture
    top, height = rectangle(picture)
    zero = float(re.search(r'<line [^>]*y1="([\d.]+)"[^>]*class="zero"', picture)[1])
    assert top + height == pytest.approx(zero, abs=0.02)
    # 12 eV are drawn over 240 pixels
    assert height == pytest.approx(240 * 2.0 / 12, rel=0.01)
    wider = str(electron_bands(factory.bands_record(4.0)))
    assert rectangle(wider)[1] > height


def test_spins_differ_and_a_metal_has_no_gap():
    picture = str(electron_bands(factory.bands_record(0.0, spins=2)))
    assert picture.count('class="electron down"') == picture.count('class="electron"') == 6
    assert 'class="gap"' not in picture


def test_bands_far_from_the_gap_are_cut():
    record = factory.bands_record(1.0)
    far = [[[[-20.0] * 21, *spin] for spin in leg] for leg in record.bands["energies"]]
    bands = record.bands | {"energies": far}
    picture = str(electron_bands(record.model_copy(update={"bands": bands})))
    assert picture.count('class="electron"') == 2 * 3


@pytest.mark.parametrize("bands", [None, {}, {"distances": [[0, 1]], "energies": []}])
def test_a_record_without_bands_is_refused(bands):
    record = factory.bands_record().model_copy(update={"bands": bands})
    with pytest.raises(ValueError, match="no electronic bands"):
        electron_bands(record)


@pytest.mark.parametrize(
    ("record", "verdict", "facts"),
    [
        (
            factory.bands_record(1.37),
            "1.37 eV, indirect",
            ["asked for 1.50 eV", "conduction minimum at k = (0.5, 0, 0.5)", "path Γ-X|K-Γ"],
        ),
        (factory.bands_record(1.37, direct=True), "1.37 eV, direct", ["Fermi level 2.100 eV"]),
        (factory.bands_record(-1.0), "metal", ["asked for 1.50 eV"]),
        (factory.Bands(level=LEVEL, reason=BUDGET), "not computed", [BUDGET]),
    ],
)
def test_computed_stands_beside_asked(record, verdict, facts):
    lines = stage_lines(judged(record, asked=1.5))
    assert [line.stage for line in lines][-2:] == [f"hull:{LEVEL}", f"bands:{LEVEL}"]
    assert lines[-1].verdict == verdict
    for fact in facts:
        assert fact in lines[-1].facts
    panel = make_card(judged(record, asked=1.5), "c0").panels[-1]
    assert panel.title == f"Electronic bands ({LEVEL})"
    if record.is_metal is None:
        assert (panel.picture, panel.absent) == (None, BUDGET)
    else:
        assert panel.caption == f"{verdict}, asked for 1.50 eV, path Γ-X|K-Γ"
        assert panel.picture is not None


def test_the_report_lists_and_draws_them(tmp_path):
    which = factory.campaign(rungs=[{"level": LEVEL, "band_structure": True}], phonons=None)
    path = tmp_path / "report.html"
    write_report(
        path,
        campaign=factory.campaign_document(which),
        candidates=[judged(factory.bands_record(1.37), asked=1.5)],
        reference_sets=[factory.reference_set(LEVEL)],
    )
    text = path.read_text()
    assert "<title>Electronic bands" in text
    assert '<td data-sort="1.37">1.37 eV, indirect' in text
    assert "asked for 1.50 eV" in text
    assert "band structures of those kept" in text


def test_exports_hold_gap_and_wish(tmp_path):
    docs = [judged(factory.bands_record(1.37), asked=1.5), factory.judged(1)]
    path = export_candidates(docs, tmp_path, "csv").files[0]
    with path.open() as file:
        first, second = csv.DictReader(file)
    assert (first["band_gap_ev"], first["band_gap_asked_ev"]) == ("1.37", "1.5")
    assert (first["band_gap_direct"], first["is_metal"]) == ("false", "false")
    assert first["band_gap_level"] == LEVEL
    assert second["band_gap_ev"] == second["is_metal"] == ""


def test_the_explorer_shows_them(settings):
    database = mongo.database(settings)
    doc = judged(factory.bands_record(1.37), asked=1.5)
    database["candidates"].insert_one(doc.model_dump(mode="json") | {"_id": doc.candidate_id})
    assert "<td>1.37 eV, indirect</td>" in answer(database, "/", "").body
    page = answer(database, f"/candidate/{doc.candidate_id}", "").body
    assert "<title>Electronic bands" in page
    assert "asked for 1.50 eV" in page
