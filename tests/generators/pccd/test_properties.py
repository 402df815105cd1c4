"""Estimates of properties, and the choice among cells that they make."""

from dataclasses import replace

import numpy as np
import pytest

from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.symmetry import evaluate_conditions
from pccd_workflows.generators.elements import draw_elements
from pccd_workflows.generators.pccd.cells import SampleRequest, draw_cells
from pccd_workflows.generators.pccd.checkpoint import load_model
from pccd_workflows.generators.pccd.dataset import read_dataset
from pccd_workflows.generators.pccd.generator import aim_of, elements_for_gap
from pccd_workflows.generators.pccd.properties import estimate, halves, nearest_to_asked
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions, Draw, Generate


@pytest.fixture(scope="module")
def shipped():
    return load_model(resource("model", "pccd-default"), "cpu")


def test_estimates_tell_insulators_from_metals(shipped):
    salt, alloy = ((11, 17), 225), ((29, 79), 123)
    for network in (shipped.properties.choosing, shipped.properties.judging):
        gaps = estimate(network, [salt, alloy])["band_gap"]
        assert gaps[0] > 3
        assert 0 <= gaps[1] < 0.3


def test_the_cell_nearest_to_what_is_asked_is_taken(shipped):
    cells = [((29, 79), 123), ((11, 17), 225), ((48, 16), 216)]
    gaps = estimate(shipped.properties.choosing, cells)["band_gap"]
    assert len(set(gaps.tolist())) == 3
    for place, gap in enumerate(gaps.tolist()):
        assert nearest_to_asked(shipped.properties, cells, Conditions(band_gap=gap)) == place


def test_halves_share_no_chemical_system(shipped):
    half = halves(shipped.analogues)
    systems = [
        {row.tobytes() for row in np.sort(shipped.analogues.elements[half == part], 1)}
        for part in (0, 1)
    ]
    assert not systems[0] & systems[1]
    assert 0.4 < half.mean() < 0.6


def test_a_gap_asked_for_acts_and_nothing_changes_without(shipped):
    requests = [SampleRequest(i, ("Ti", "O"), Conditions()) for i in range(8)]
    asked = [
        replace(r, conditions=Conditions(band_gap=gap)) for gap in (0.0, 3.0) for r in requests
    ]
    cells = draw_cells(shipped, asked, 0, Sampler())
    told = [(cell.numbers, cell.space_group) for cell in cells]
    gaps = estimate(shipped.properties.judging, told)["band_gap"]
    assert gaps[8:].mean() > gaps[:8].mean() + 0.3
    blind = replace(shipped, properties=None)
    assert draw_cells(blind, requests, 0, Sampler()) == draw_cells(shipped, requests, 0, Sampler())


def test_the_aim_says_what_is_expected_of_what_was_asked(shipped):
    asked = Conditions(band_gap=3.0)
    alloy, oxide = (
        draw_cells(shipped, [SampleRequest(0, elements, asked)], 0, Sampler())[0]
        for elements in (("Cu", "Au"), ("Mg", "O"))
    )
    assert aim_of(shipped, alloy, asked).estimates["band_gap"] < 0.3
    assert aim_of(shipped, oxide, asked).estimates["band_gap"] > 2
    both = asked.model_copy(update={"energy_above_hull": 0.0})
    assert set(aim_of(shipped, oxide, both).estimates) == {"band_gap", "energy_above_hull"}
    assert aim_of(shipped, oxide, Conditions()).estimates is None


def test_a_gap_chooses_among_elements_that_are_drawn_and_only_there(shipped):
    metals_and_salts = ["Cu", "Au", "Fe", "Na", "K", "Cl", "F", "O"]
    draw = Draw.model_validate({"from": metals_and_salts, "n_elements": [2, 2]})
    drawn = {
        gap: [
            elements_for_gap(
                shipped, Generate(draw=draw, conditions=Conditions(band_gap=gap)), index
            )
            for index in range(6)
        ]
        for gap in (None, 0.0, 5.0)
    }
    salts = {
        gap: sum(bool({"Na", "K"} & set(of)) and bool({"Cl", "F"} & set(of)) for of in sets)
        for gap, sets in drawn.items()
    }
    assert drawn[None] == [draw_elements(Generate(draw=draw), index) for index in range(6)]
    assert salts[0.0] == 0
    assert salts[5.0] >= 5
    given = Generate(elements=["Cu", "Au"], conditions=Conditions(band_gap=5.0))
    assert elements_for_gap(shipped, given, 0) == ("Cu", "Au")


def test_errors_of_estimates_are_told_beside_those_of_the_median(shipped, dataset_file):
    """A network that has learned nothing would not be told from its control."""
    crystals = read_dataset(dataset_file).of_split("test")
    gaps = np.resize([0.0, 5.0, 1.0, np.nan], len(crystals))
    crystals = replace(crystals, band_gap=gaps, energy_above_hull=np.full(len(crystals), 0.1))
    found = evaluate_conditions(shipped, crystals, samples=1, seed=0, sampler=Sampler())
    median = found["errors_of_medians"]
    known = gaps[np.isfinite(gaps)]
    assert median["band_gap"]["n"] == found["errors_of_estimates"]["band_gap"]["n"] == len(known)
    assert median["band_gap"]["value"] == pytest.approx(np.abs(known - np.median(known)).mean())
    assert median["energy_above_hull"]["value"] == pytest.approx(0.0)
    assert found["errors_of_estimates"]["energy_above_hull"]["value"] > 0
