"""Shares, novelty, stability and diversity of generated crystals, on hand-made ones."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.evaluation.diversity import diversity, fingerprint, spread
from pccd_workflows.evaluation.judge import Judgement
from pccd_workflows.evaluation.samples import RawSample, Yardstick, among, judge_samples
from pccd_workflows.evaluation.shares import protocol_card, report_samples, rows_of, shares_of
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.known.novelty import SetNovelty
from pccd_workflows.stages.hull import Stability


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
    RawSample(("O", "Mg"), MGO),
    RawSample(("O", "Mg"), MGO_AGAIN),
    RawSample(("O", "Mg"), MGO_CSCL),
    RawSample(("O", "Ca"), CAO),
    RawSample(("O", "Mg"), TIGHT),
    RawSample(("O", "Mg"), None, "no_cluster"),
]
ENERGIES = {"MgO-225": -0.01, "CaO-225": 0.09, "MgO-221": 0.2}


def judge(structures):
    """Leave crystals as they are and look their energies up."""
    relaxations, stabilities = [], []
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
        relaxations.append(relaxation)
        above = ENERGIES[name]
        stabilities.append(Stability(level="chgnet", passed=True, energy_above_hull=above))
    return Judgement(relaxations, stabilities)


def shares(judged):
    return shares_of(judged.samples).as_json()


def report(judged):
    return report_samples(judged).as_json()


def known_crystals(**known):
    """Return the look-up of a set of crystals by id."""
    return among(
        lambda formulas: [
            (i.replace("_", "-"), s)
            for i, s in known.items()
            if s.composition.reduced_formula in formulas
        ]
    )


REFERENCES = {"references": known_crystals(mp_1265=MGO, mp_2605=CAO)}


def test_shares_have_raw_samples_as_denominator():
    sets = {**REFERENCES, "training": known_crystals(mp_2605=CAO)}
    result = shares(judge_samples(SAMPLES, Yardstick(sets, judge)))
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
    known = judge_samples(SAMPLES, Yardstick(REFERENCES, judge))
    assert shares(known)["sun"]["value"] == 0.0
    new = shares(judge_samples(SAMPLES, Yardstick(judge=judge)))
    assert new["stable_0"]["value"] == pytest.approx(2 / 6)
    assert new["sun"]["value"] == pytest.approx(1 / 6)  # the twin does not count
    assert new["metasun"]["value"] == pytest.approx(2 / 6)
    assert new["metasun_kinds"] == {}  # nobody was asked


def test_new_crystals_near_the_hull_are_counted_by_their_kind():
    """MgO is known here, CaO has its structure type."""

    def compare(crystals):
        verdicts = {
            "MgO": SetNovelty(known=True, matched_id="mp-1265", method="by name"),
            "CaO": SetNovelty(known=False, framework_id="mp-1265", method="by name"),
        }
        return {name: verdicts[c.composition.reduced_formula] for name, c in crystals.items()}

    judged = judge_samples(SAMPLES, Yardstick({"library": compare}, judge))
    assert shares(judged)["metasun_kinds"] == {"substitution": 1}
    kinds = [row.kind for row in rows_of(judged.samples)]
    assert kinds == ["duplicate", "duplicate", None, "substitution", None, None]
    assert [row.reference for row in rows_of(judged.samples)][:4] == ["mp-1265"] * 3 + [None]


def test_training_crystals_are_no_sun():
    """As generated and as relaxed: a crystal that relaxes away from what it was stays known."""
    training = {"training": known_crystals(mp_1265=MGO)}
    result = shares(judge_samples(SAMPLES, Yardstick(training, judge)))
    assert result["stable_0"]["value"] == pytest.approx(2 / 6)
    assert result["in_training_of_valid"]["value"] == pytest.approx(2 / 4)
    assert result["sun"]["value"] == 0.0
    assert result["metasun"]["value"] == pytest.approx(1 / 6)  # CaO

    def to_another_structure(structures):
        found = judge(structures)
        relaxations = [r.model_copy(update={"structure": MGO_CSCL}) for r in found.relaxations]
        return Judgement(relaxations, found.stabilities)

    moved = shares(judge_samples(SAMPLES[:1], Yardstick(training, to_another_structure)))
    assert moved["stable_0"]["value"] == 1.0
    assert moved["sun"]["value"] == 0.0
    assert moved["metasun"]["value"] == 0.0


@pytest.mark.parametrize(("above", "counts"), [(0.0, True), (1e-7, True), (0.002, False)])
def test_sun_is_what_lies_on_or_below_the_hull(above, counts):
    def placed(structures):
        found = judge(structures)
        update = {"energy_above_hull": above}
        return Judgement(
            found.relaxations, [s.model_copy(update=update) for s in found.stabilities]
        )

    result = shares(judge_samples(SAMPLES[:1], Yardstick(judge=placed)))
    assert result["sun"]["value"] == float(counts)
    assert result["metasun"]["value"] == 1.0


def test_of_crystals_that_relax_to_the_same_one_the_lowest_is_kept():
    def lower_and_lower(structures):
        found = judge(structures)
        lowest_last = [
            stability.model_copy(update={"energy_above_hull": 0.05 - 0.06 * number})
            for number, stability in enumerate(found.stabilities)
        ]
        return Judgement(found.relaxations, lowest_last)

    result = shares(judge_samples(SAMPLES[:2], Yardstick(judge=lower_and_lower)))
    assert result["sun"]["value"] == result["metasun"]["value"] == pytest.approx(1 / 2)


def test_without_a_judge_nothing_is_said_of_stability():
    result = report(judge_samples(SAMPLES, Yardstick(REFERENCES)))
    assert not {"stable_0", "sun", "metasun", "rmsd_to_relaxed"} & set(result)
    assert result["novel"]["n"] == 6
    assert set(result["by_n_elements"]) == {"2"}
    assert result["novel_of_valid"]["training"]["value"] is None
    card = protocol_card(Sampler(), None).as_json()
    assert not {"stability", "conditions"} & set(card)


def test_novelty_against_nothing_has_no_value():
    result = shares(judge_samples(SAMPLES, Yardstick()))
    assert result["novel"]["value"] is None
    assert result["novel_of_valid"]["references"]["value"] is None


def test_rows_name_every_sample():
    rows = rows_of(judge_samples(SAMPLES, Yardstick(REFERENCES, judge)).samples)
    assert [row.decode_error for row in rows] == [None] * 5 + ["no_cluster"]
    assert rows[0].reference == "mp-1265"
    assert rows[2].energy_above_hull == pytest.approx(0.2)
    assert rows[4].relaxation is None


def test_nothing_to_judge():
    result = report(judge_samples([RawSample(("O",), None, "shape")], Yardstick(REFERENCES, judge)))
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
