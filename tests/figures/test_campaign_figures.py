"""Publication figures: files that open, content read back from them, absence explained."""

import re

import ledger_factory as factory
import pytest
from matplotlib.figure import Figure
from PIL import Image
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Element

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry
from pccd_workflows.figures import campaigns, crystals, systems, write_figures
from pccd_workflows.figures.style import NothingToShow
from pccd_workflows.report.phase_diagram import make_diagram
from pccd_workflows.report.statistics import summarize


def summary_of(docs):
    return summarize(docs, factory.campaign())


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_every_figure_is_two_files_or_a_sentence(tmp_path):
    summary = summary_of(factory.demo(n_judged=10))
    written = write_figures(tmp_path / "new", summary, [factory.reference_set()])
    names = {one.name.split("-")[0] for one in written}
    assert names == {"funnel", "energies", "elements", "parity", "diagram", "phonons", "bands"}
    for one in written:
        assert bool(one.files) != bool(one.absent), one
        for path in one.files:
            assert path.stat().st_size > 1000
    png, svg = next(one for one in written if one.name == "funnel").files
    assert Image.open(png).size[0] == 1050
    assert ">unique in the campaign</text>" in svg.read_text()
    absent = {one.name: one.absent for one in written if one.absent}
    assert absent == {
        "parity": "Two levels are needed to compare them; there is chgnet.",
        "bands": "None of the best crystals has bands.",
    }


def test_the_same_campaign_is_the_same_file(tmp_path):
    summary = summary_of(factory.demo(n_judged=3))
    first, second = (write_figures(tmp_path / name, summary, [])[0] for name in "ab")
    assert first.files[1].read_bytes() == second.files[1].read_bytes()


def test_an_empty_campaign_has_no_figure(tmp_path):
    written = write_figures(tmp_path, summary_of([]), [])
    assert all(one.absent for one in written)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_figures(tmp_path / "file" / "here", summary_of([]), [])


def test_the_funnel_counts_as_the_report_does():
    summary = summary_of(factory.demo(n_judged=10))
    counts = [int(re.match(r" ([\d,]+)", text)[1]) for text in texts(campaigns.funnel(summary))]
    assert counts == [step.count for step in summary.steps]


def test_the_heat_map_counts_crystals_near_the_hull():
    docs = [
        factory.judged(0, "MgO", above=0.01),
        factory.judged(1, "MnO", above=0.05),
        factory.judged(2, "MgMn2O4", above=0.5),
    ]
    told = texts(campaigns.elements(summary_of(docs)))
    counts = {told[i - 1]: told[i] for i in range(1, len(told)) if told[i].isdigit()}
    assert counts == {"O": "2", "Mg": "1", "Mn": "1"}
    with pytest.raises(NothingToShow, match="within 80 meV"):
        campaigns.elements(summary_of(docs[2:]))


def test_parity_needs_crystals_at_two_levels():
    summary = summary_of([factory.judged(i, "MgO", above=0.1 * i) for i in range(3)])
    moved = [
        vars(p) | {"energy_above_hull": p.energy_above_hull + 0.02}
        for p in summary.points["chgnet"]
    ]
    summary.points["better"] = [type(summary.points["chgnet"][0])(**one) for one in moved]
    (axes,) = campaigns.parity(summary).axes
    assert axes.get_title() == "mean absolute difference 20 meV/atom, 3 crystals"


def four_elements():
    base = factory.reference_set()
    more = [("Li", -1.9), ("Li2O", -14.2), ("LiMn2O4", -56.2), ("Li2MnO3", -40.0)]
    entries = [ReferenceEntry(entry_id=f, formula=f, energy=e) for f, e in more]
    return base.model_copy(update={"chemsys": "Li-Mg-Mn-O", "entries": [*base.entries, *entries]})


def test_hull_and_tie_lines_are_those_of_pymatgen():
    """Energies to 1e-9 eV/atom, the same phases on the hull, the same edges; also of four."""
    for references in (factory.reference_set(), four_elements()):
        entries = [PDEntry(e.composition, e.energy) for e in references.entries]
        theirs = PhaseDiagram(entries, elements=[Element(x) for x in references.chemsys.split("-")])
        ours = make_diagram(references, [])
        lowest = {}
        for entry in entries:
            above = theirs.get_e_above_hull(entry)
            formula = entry.composition.reduced_formula
            lowest[formula] = min(above, lowest.get(formula, above))
        for phase in ours.references:
            assert phase.energy_above_hull == pytest.approx(lowest[phase.formula], abs=1e-9)
        assert {p.formula for p in ours.stable} == {
            e.composition.reduced_formula for e in theirs.stable_entries
        }
        edges = {
            frozenset(theirs.qhull_entries[i].composition.reduced_formula for i in (a, b))
            for facet in theirs.facets
            for a in facet
            for b in facet
            if a != b
        }
        assert {frozenset((a.formula, b.formula)) for a, b in ours.tie_lines} == edges


def test_four_elements_make_a_tetrahedron_with_named_corners():
    figure = systems.phase_diagram(make_diagram(four_elements(), []))
    assert figure.axes[0].name == "3d"
    assert {"Li", "Mg", "Mn"} <= set(texts(figure))
    five = four_elements().model_copy(update={"chemsys": "H-Li-Mg-Mn-O"})
    with pytest.raises(NothingToShow):
        systems.phase_diagram(systems.checked(lambda: make_diagram(five, [])))


def test_phonons_have_their_density_of_states_beside_them():
    record = factory.phonon_record("unstable", 2)
    bands, dos = crystals.phonons(record).axes
    assert [label.get_text() for label in bands.get_xticklabels()] == ["Γ", "X", "U|K", "Γ", "L"]
    assert min(line.get_ydata().min() for line in bands.lines if len(line.get_xdata()) > 2) < -1
    assert dos.get_xlabel() == "States/THz"
    old = record.model_copy(update={"dos": None})
    assert len(crystals.phonons(old).axes) == 1
    with pytest.raises(NothingToShow):
        crystals.phonons(record.model_copy(update={"bands": None}))
    spins = crystals.electrons(factory.bands_record(spins=2))
    assert len({line.get_color() for line in spins.axes[0].lines}) >= 2
