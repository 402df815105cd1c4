"""Shares, novelty, stability and diversity of generated crystals, on hand-made ones."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.evaluation.diversity import diversity, fingerprint, spread
from pccd_workflows.evaluation.stability import Judged
from pccd_workflows.evaluation.summary import protocol_card, report, rows_of, summarize
from pccd_workflows.evaluation.verdicts import Known, Sample, judge_samples
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.training_index import crystal_key


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], sites)
    return cell.get_primitive_structure()


def caesium_chloride(cation: str, anion: str, a: float) -> Structure:
    return Structure(Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


MGO = rock_salt("Mg", "O", 4.21)
MGO_AGAIN = rock_salt("Mg", "O", 4.25)
CAO = rock_salt("Ca", "O", 4.8)
MGO_CSCL = caesium_chloride("Mg", "O", 2.65)
TIGHT = Structure(Lattice.cubic(4), ["Mg", "O"], [[0, 0, 0], [0, 0, 0.05]])
SAMPLES = [
    Sample(("O", "Mg"), MGO),
    Sample(("O", "Mg"), MGO_AGAIN),
    Sample(("O", "Mg"), MGO_CSCL),
    Sample(("O", "Ca"), CAO),
    Sample(("O", "Mg"), TIGHT),
    Sample(("O", "Mg"), None, "no_cluster"),
]
ENERGIES = {"MgO-225": -0.01, "CaO-225": 0.09, "MgO-221": 0.2}


def judge(structures):
    """Leave crystals as they are and look their energies up."""
    judged = []
    for s in structures:
        relaxation = Relaxation(
            level="chgnet",
            key="k",
            verdict="converged",
            structure=s,
            energy=-1.0,
            rms_displacement=0.1,
            volume_change=-0.02,
        )
        name = f"{s.composition.reduced_formula}-{s.get_space_group_info()[1]}"
        judged.append(Judged(relaxation, ENERGIES[name]))
    return judged


def references(formulas):
    known = [("mp-1265", MGO), ("mp-2605", CAO)]
    return [(i, s) for i, s in known if s.composition.reduced_formula in formulas]


def test_shares_have_raw_samples_as_denominator():
    index = np.array([crystal_key(CAO)])
    result = summarize(judge_samples(SAMPLES, Known(index, references, judge)))
    assert result["decoded"]["value"] == pytest.approx(5 / 6)
    assert result["decode_errors"] == {"no_cluster": 1}
    assert result["valid"]["value"] == pytest.approx(4 / 6)
    assert result["unique"]["value"] == pytest.approx(3 / 6)  # two of the four are one crystal
    assert result["novel"]["value"] == pytest.approx(1 / 6)
    assert result["novel_of_valid"]["references"]["value"] == pytest.approx(1 / 4)
    assert result["novel_of_valid"]["training"]["value"] == pytest.approx(3 / 4)
    assert result["screen_reasons"] == {"too_close": 1}
    assert result["stable_0"]["value"] == pytest.approx(2 / 6)
    assert result["stable_100"]["value"] == pytest.approx(3 / 6)
    assert result["stable_250"]["value"] == pytest.approx(4 / 6)
    assert result["of_screened"]["stable_80"] == {
        "value": 0.5,
        "interval": result["of_screened"]["stable_80"]["interval"],
        "n": 4,
    }
    assert result["rmsd_to_relaxed"]["mean"] == pytest.approx(0.1)


def test_sun_needs_all_three():
    known = judge_samples(SAMPLES, Known(None, references, judge))
    assert summarize(known)["sun"]["value"] == 0.0
    new = summarize(judge_samples(SAMPLES, Known(None, None, judge)))
    assert new["stable_0"]["value"] == pytest.approx(2 / 6)
    assert new["sun"]["value"] == pytest.approx(1 / 6)  # the twin does not count
    assert new["metasun"]["value"] == pytest.approx(2 / 6)


def test_without_a_judge_nothing_is_said_of_stability():
    result = report(judge_samples(SAMPLES, Known(None, references)))
    assert not {"stable_0", "sun", "metasun", "rmsd_to_relaxed"} & set(result)
    assert result["novel"]["n"] == 6
    assert set(result["by_n_elements"]) == {"2"}
    assert result["novel_of_valid"]["training"]["value"] is None
    assert "stability" not in protocol_card(Sampler(), None)
    assert protocol_card(Sampler(), {"level": "chgnet"})["stability"]["level"] == "chgnet"


def test_novelty_against_nothing_has_no_value():
    result = summarize(judge_samples(SAMPLES, Known()))
    assert result["novel"]["value"] is None
    assert result["novel_of_valid"]["references"]["value"] is None


def test_rows_name_every_sample():
    rows = rows_of(judge_samples(SAMPLES, Known(None, references, judge)))
    assert [row["decode_error"] for row in rows] == [None] * 5 + ["no_cluster"]
    assert rows[0]["reference"] == "mp-1265"
    assert rows[2]["energy_above_hull"] == pytest.approx(0.2)
    assert rows[4]["relaxation"] is None


def test_nothing_to_judge():
    result = report(judge_samples([Sample(("O",), None, "shape")], Known(None, references, judge)))
    assert result["valid"]["value"] == 0.0
    assert result["diversity"]["fingerprint_spread"] is None


def test_diversity_counts_structure_types_not_substitutions():
    found = diversity([MGO, CAO, MGO_CSCL, None])
    assert found["crystals"] == 3
    assert found["formulas"] == 2
    assert found["prototypes"] == 2
    assert found["space_groups"] == 2
    assert np.allclose(fingerprint(MGO), fingerprint(CAO))
    assert spread([MGO, CAO]) == pytest.approx(0.0, abs=1e-6)
    assert spread([MGO, MGO_CSCL]) > 0.5
