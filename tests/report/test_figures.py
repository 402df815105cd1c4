"""Pictures: geometry and labels, read back from the SVG."""

import re
from xml.etree import ElementTree as ET

import ledger_factory as factory
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry
from pccd_workflows.report.diagram_view import draw_diagram
from pccd_workflows.report.figures import (
    cumulative_share,
    hull_histogram,
    phonon_bands,
    q_label,
    relaxation_curve,
)
from pccd_workflows.report.phase_diagram import make_diagram
from pccd_workflows.report.statistics import Point, summarize
from pccd_workflows.report.structure_view import draw_scene, make_scene, picture_cell
from pccd_workflows.report.svg import Axis, Plot, element, nice_step


def texts(picture):
    return [node.text for node in ET.fromstring(picture).iter("text")]  # noqa: S314  our own SVG


def by_class(picture, name):
    root = ET.fromstring(picture)  # noqa: S314  our own SVG
    return [node for node in root.iter() if name in (node.get("class") or "").split()]


def y_ticks(picture):
    ticks = [node for node in by_class(picture, "tick") if node.get("text-anchor") == "end"]
    return {node.text: float(node.get("y")) - 4 for node in ticks}


def points_of(docs):
    return summarize(docs, factory.campaign()).points["chgnet"]


def test_elements_escape_names_and_text():
    drawn = element("text", "<script>", "&", data_tip='"quoted" <b>', x=1.0)
    assert drawn == ('<text data-tip="&#34;quoted&#34; &lt;b&gt;" x="1">&lt;script&gt;&amp;</text>')


@pytest.mark.parametrize(
    ("rough", "step"), [(0.9, 1), (1.0, 1), (1.1, 2), (2.1, 2.5), (0.03, 0.05), (70, 100)]
)
def test_ticks_are_round(rough, step):
    assert nice_step(rough) == pytest.approx(step)


def test_axis_maps_its_ends_to_pixels():
    axis = Axis(-1, 3, 100, 500)
    assert (axis(-1), axis(3), axis(0)) == (100, 500, 200)
    assert axis.ticks(4) == [-1, 0, 1, 2, 3]
    assert Axis(0, 1, 0, 1).ticks(5, whole=True) == [0, 1]


def test_histogram_stacks_new_on_known():
    docs = [
        factory.judged(i, "MgO", above=e, novel=new)
        for i, (e, new) in enumerate([(0.01, False), (0.02, True), (0.03, True), (1.7, True)])
    ]
    bars = by_class(hull_histogram(points_of(docs), "CHGNet"), "bar")
    assert [bar.get("data-tip") for bar in bars] == [
        "1 known, 0.00 to 0.05 eV/atom MgO",
        "2 new, 0.00 to 0.05 eV/atom MgO",
        "1 new, more than 1 eV/atom MgO",
    ]
    known, new, _ = bars
    assert float(new.get("height")) == pytest.approx(2 * float(known.get("height")), abs=0.02)
    assert float(new.get("y")) + float(new.get("height")) == pytest.approx(
        float(known.get("y")), abs=0.02
    )


def test_histogram_lines_stand_at_80_and_250_mev():
    picture = hull_histogram(points_of([factory.judged(0, "MgO", above=0.4)]), "CHGNet")
    first, second = (float(node.get("x1")) for node in by_class(picture, "threshold"))
    tick = {node.text: float(node.get("x")) for node in by_class(picture, "tick")}
    per_ev = (tick["0.4"] - tick["0"]) / 0.4 if "0.4" in tick else None
    assert per_ev is not None
    assert (first - tick["0"]) / per_ev == pytest.approx(0.08, abs=0.002)
    assert (second - tick["0"]) / per_ev == pytest.approx(0.25, abs=0.002)
    assert {"80 meV", "250 meV"} <= set(texts(picture))


def test_histogram_shows_energies_below_the_hull():
    picture = hull_histogram(points_of([factory.judged(0, "MgO", above=-0.07)]), "CHGNet")
    assert by_class(picture, "bar")[0].get("data-tip").startswith("1 new, -0.10 to -0.05")


def test_cumulative_share_ends_at_its_count():
    docs = [factory.judged(i, "MgO", above=0.1 * i) for i in range(4)]
    picture = cumulative_share(points_of(docs), 8, "CHGNet")
    curve = by_class(picture, "curve")[0].get("d")
    tick = y_ticks(picture)
    last_y = float(curve.split(",")[-1])
    per_percent = (tick["0"] - tick["20"]) / 20
    assert (tick["0"] - last_y) / per_percent == pytest.approx(50, abs=0.5)


def test_relaxation_curve_is_relative_to_its_end():
    record = factory.judged(0).relaxations[0]
    record = record.model_copy(update={"energies": [-5.0, -5.15, -5.2]})
    picture = relaxation_curve(record)
    y = [float(node.get("cy")) for node in by_class(picture, "mark")]
    tick = y_ticks(picture)
    per_mev = (tick["0"] - tick["200"]) / 200
    assert (y[2] - y[0]) / per_mev == pytest.approx(200, abs=1)
    assert (y[2] - y[1]) / per_mev == pytest.approx(50, abs=1)


def test_the_density_of_states_stands_beside_the_bands_on_their_scale():
    record = factory.phonon_record("stable", 2)
    picture = phonon_bands(record)
    (dos,) = by_class(picture, "dos")
    heights = [float(step.split(",")[1]) for step in dos.get("d")[1:].split(" L")]
    (zero,) = by_class(picture, "zero")
    low, high, start, end = map(float, by_class(picture, "bands")[0].get("data-y").split())
    assert float(zero.get("y1")) == pytest.approx(
        start + low / (high - low) * (start - end), abs=0.1
    )
    assert min(heights) >= end - 0.1
    assert "DOS" in texts(picture)
    assert by_class(phonon_bands(record.model_copy(update={"dos": None})), "dos") == []


def test_phonon_labels_mark_discontinuities():
    record = factory.phonon_record("stable", 2).model_copy(update={"dos": None})
    picture = phonon_bands(record)
    assert [t for t in texts(picture) if t and not re.fullmatch(r"[−\d.]+", t)] == [
        "Frequency (THz)",
        "Γ",
        "X",
        "U|K",
        "Γ",
        "L",
    ]
    assert len(by_class(picture, "phonon")) == 4 * 6
    assert by_class(picture, "bad") == []
    assert by_class(picture, "imaginary") == []


def test_imaginary_branches_stand_out():
    picture = phonon_bands(factory.phonon_record("unstable", 2))
    assert len(by_class(picture, "bad")) == 4
    assert len(by_class(picture, "imaginary")) == 1


@pytest.mark.parametrize("bands", [None, {}, {"distances": [[0, 1]], "frequencies": []}])
def test_phonons_without_bands_are_refused(bands):
    record = factory.phonon_record("stable", 2).model_copy(update={"bands": bands})
    with pytest.raises(ValueError, match="no phonon bands"):
        phonon_bands(record)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("\\Gamma", "Γ"),
        ("$\\Gamma$", "Γ"),
        ("GAMMA", "Γ"),
        ("X_1", "X₁"),
        ("$\\mathrm{H_{2}}$", "H₂"),
        ("SIGMA_0", "Σ₀"),
    ],
)
def test_high_symmetry_points_are_printed_as_signs(name, label):
    assert q_label(name) == label


def test_ternary_diagram_shows_hull_references_and_candidates():
    docs = [
        factory.judged(0, "MgMnO2", above=0.02),
        factory.judged(1, "MgMnO2", above=0.01),
        factory.judged(2, "MgO", above=0.0, novel=False),
        factory.judged(3, "MgMnO3", above=0.9),
    ]
    diagram = make_diagram(factory.reference_set(), points_of(docs))
    assert {phase.formula for phase in diagram.stable} == {
        *("Mg", "Mn", "O2", "MgO", "MnO", "Mn3O4", "Mn2O3", "MnO2"),
        *("MgMn2O4", "Mg2MnO4", "Mg6MnO8"),
    } - {p.formula for p in diagram.references if p.energy_above_hull > 1e-6}
    assert diagram.n_far == 1
    drawn = {phase.formula: phase for phase in diagram.candidates}
    assert set(drawn) == {"MgMnO2", "MgO"}
    assert (drawn["MgMnO2"].energy_above_hull, drawn["MgMnO2"].count) == (0.01, 2)
    picture = draw_diagram(diagram)
    assert {"Mg", "Mn", "O", "MnO₂"} <= set(texts(picture))
    links = [node.get("href") for node in by_class(picture, "cand")]
    assert links == [
        f"#doc-{factory.campaign().candidate_id(2)}",
        f"#doc-{factory.campaign().candidate_id(1)}",
    ]


def test_ternary_places_compositions_by_the_lever_rule():
    diagram = make_diagram(factory.reference_set(), [])
    picture = draw_diagram(diagram)
    at = {
        node.get("data-tip").split(" ")[0]: (float(node.get("cx")), float(node.get("cy")))
        for node in by_class(picture, "ref")
    }
    mgo = (np.array(at["Mg"]) + np.array(at["O₂"])) / 2
    assert at["MgO"] == pytest.approx(mgo, abs=0.02)
    mno2 = (np.array(at["Mn"]) + 2 * np.array(at["O₂"])) / 3
    assert at["MnO₂"] == pytest.approx(mno2, abs=0.02)


def binary_references():
    entries = [
        entry
        for entry in factory.reference_set().entries
        if set(entry.composition.as_dict()) <= {"Mn", "O"}
    ]
    return factory.reference_set().model_copy(update={"chemsys": "Mn-O", "entries": entries})


def test_binary_diagram_draws_the_hull_line():
    references = binary_references()
    diagram = make_diagram(references, [])
    # corners of the lower hull: Mn, MnO, Mn3O4, Mn2O3, MnO2, O2
    assert len(diagram.tie_lines) == 5
    picture = draw_diagram(diagram)
    assert len(by_class(picture, "tie")) == 5
    assert "Mn₃O₄" in texts(picture)


def test_four_elements_make_a_solid_that_the_page_can_turn():
    base = factory.reference_set()
    lithium = ReferenceEntry(entry_id="li", formula="Li", energy=-1.9)
    four = base.model_copy(update={"chemsys": "Li-Mg-Mn-O", "entries": [*base.entries, lithium]})
    diagram = make_diagram(four, points_of([factory.judged(1, "MgMnO2", above=0.01)]))
    picture = draw_diagram(diagram)
    corners = by_class(picture, "corner")
    assert {node.text for node in corners} == {"Li", "Mg", "Mn", "O"}
    places = np.array([[float(x) for x in node.get("data-p").split()] for node in corners])
    distances = {round(float(np.linalg.norm(a - b)), 3) for a in places for b in places}
    assert distances == {0.0, 1.414}  # regular
    for line in by_class(picture, "tie"):
        assert len(line.get("data-p").split()) == 6
    five = four.model_copy(
        update={
            "chemsys": "H-Li-Mg-Mn-O",
            "entries": [*four.entries, ReferenceEntry(entry_id="h", formula="H", energy=-3.0)],
        }
    )
    with pytest.raises(InputError, match="5 elements"):
        draw_diagram(make_diagram(five, []))


def test_a_missing_element_is_said():
    base = factory.reference_set()
    entries = [entry for entry in base.entries if entry.formula != "Mg"]
    with pytest.raises(InputError, match="Mg"):
        make_diagram(base.model_copy(update={"entries": entries}), [])


def test_points_of_other_references_stay_out():
    other = Point("x", "MgO", 0.01, -3.0, "another-set", True, "Fm-3m", "")
    diagram = make_diagram(factory.reference_set(), [other])
    assert diagram.candidates == []


def test_scene_of_rock_salt_is_the_familiar_cube():
    cell, kind = picture_cell(factory.rock_salt())
    scene = make_scene(cell)
    assert kind == "conventional cell"
    symbols = [atom.symbol for atom in scene.atoms]
    # 8 corners + 6 faces, 12 edges + 1 centre; 6 bonds each, shared at the surface
    assert (symbols.count("Mg"), symbols.count("O")) == (14, 13)
    assert len(scene.bonds) == 54
    for first, second in scene.bonds:
        assert symbols[first] != symbols[second]
    assert list(scene.colours) == ["Mg", "O"]
    picture = draw_scene(scene, "MgO", "c0")
    assert len(by_class(picture, "atom")) == 27
    assert len(by_class(picture, "cell")) == 12


def test_large_and_odd_cells_are_drawn_as_stored():
    silicon = Structure(Lattice.cubic(3.0), ["Si"], [[0, 0, 0]]) * (6, 6, 5)
    silicon.perturb(0.3)
    cell, kind = picture_cell(silicon)
    assert kind == "stored cell"
    assert len(make_scene(cell).atoms) == 180


def test_first_drawing_fits_its_picture():
    for formula in factory.PROTOTYPES:
        scene = make_scene(picture_cell(factory.crystal(formula)[0])[0])
        for node in by_class(draw_scene(scene, formula, "c0"), "atom"):
            assert 0 <= float(node.get("cx")) <= 372
            assert 0 <= float(node.get("cy")) <= 320


def test_plots_with_a_single_value_have_room():
    plot = Plot.make((100.0, 100.0), (0, 1), (0, 1))
    assert plot.x.end > plot.x.start
    record = factory.judged(0).relaxations[0].model_copy(update={"energies": [-5.0, -5.0]})
    assert "nan" not in relaxation_curve(record)
