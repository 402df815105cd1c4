"""What a rung makes of relaxed crystals, and who goes on to phonons."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.campaign import Campaign, PhononsSection
from pccd_workflows.candidate import (
    Crystal,
    Novelty,
    Relaxation,
    SetNovelty,
    Stability,
    StageOutput,
)
from pccd_workflows.jobs.novelty import find_duplicates
from pccd_workflows.jobs.phonons import choose
from pccd_workflows.jobs.rungs import judge_stability, with_novelty
from pccd_workflows.reference import ReferenceEntry, ReferenceSet

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
KNOWN = Novelty(sets={"references": SetNovelty(known=True, matched_id="mp-1", method="m")})
NEW = Novelty(sets={"references": SetNovelty(known=False, method="m")})
REPEATED = Novelty(duplicate_of="a")
REFERENCES = ReferenceSet(
    source="file",
    chemsys="Cl-Na",
    level="chgnet",
    convention="mp2020",
    entries=[
        ReferenceEntry(entry_id="Na", formula="Na1", energy=-1.0),
        ReferenceEntry(entry_id="Cl", formula="Cl1", energy=-2.0),
    ],
)


def campaign(**novelty) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "rungs",
            "generate": {"elements": ["Na", "Cl"]},
            "rungs": [{"level": "chgnet", "keep": {"energy_above_hull": 0.1}}],
            "novelty": novelty,
        }
    )


def relaxed(energy_per_atom: float, verdict: str = "converged") -> Relaxation:
    return Relaxation(
        level="chgnet",
        key="k",
        verdict=verdict,
        structure=SALT,
        energy=energy_per_atom * len(SALT),
        convention="mp2020",
    )


@pytest.mark.parametrize(
    ("energy_per_atom", "above", "reason_class"),
    [(-1.5, 0.0, None), (-1.45, 0.05, None), (-1.3, 0.2, "above_threshold"), (-1.7, -0.2, None)],
)
def test_a_rung_keeps_what_lies_near_the_hull(energy_per_atom, above, reason_class):
    records = judge_stability({"a": relaxed(energy_per_atom)}, campaign().rungs[0], [REFERENCES])
    assert records["a"].energy_above_hull == pytest.approx(above, abs=1e-9)
    assert records["a"].reason_class == reason_class
    assert records["a"].passed is (reason_class is None)
    assert records["a"].references == REFERENCES.reference_id


def test_what_cannot_be_placed_says_why():
    rung = campaign().rungs[0]
    records = judge_stability(
        {"a": relaxed(-1.5, "diverged"), "b": relaxed(-1.5)}, rung, [REFERENCES]
    )
    assert records["a"].reason_class == "diverged"
    (other,) = judge_stability({"b": relaxed(-1.5)}, rung, []).values()
    assert other.reason_class == "no_references"
    assert "Cl-Na" in other.reason


def test_crystals_that_became_one_by_relaxing_count_once():
    record = Stability(level="chgnet", passed=True, energy_above_hull=0.0)
    judged = with_novelty(campaign(), record, REPEATED)
    assert (judged.passed, judged.reason_class) == (False, "duplicate")
    assert "same crystal as a" in judged.reason
    assert judged.energy_above_hull == 0.0


def test_known_crystals_stay_unless_the_campaign_drops_them():
    record = Stability(level="chgnet", passed=True, energy_above_hull=0.0)
    assert with_novelty(campaign(), record, KNOWN).passed is True
    dropped = with_novelty(campaign(keep_known=False), record, KNOWN)
    assert (dropped.passed, dropped.reason_class) == (False, "known")
    assert with_novelty(campaign(keep_known=False), record, NEW).passed is True


def test_duplicates_name_the_first_of_their_group():
    other = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(6.6), ["K", "Cl"], [[0] * 3, [0.5] * 3]
    )
    crystals = [
        Crystal(candidate_id=name, structure=structure)
        for name, structure in (("b", SALT), ("k", other), ("a", SALT.get_primitive_structure()))
    ]
    assert find_duplicates(crystals, campaign().novelty.matcher) == {"a": "b"}


def test_phonons_go_to_new_crystals_near_the_hull():
    records = {
        "known": Stability(level="c", passed=True, energy_above_hull=0.0, novelty=KNOWN),
        "new": Stability(level="c", passed=True, energy_above_hull=0.02, novelty=NEW),
        "high": Stability(level="c", passed=True, energy_above_hull=0.2, novelty=NEW),
        "next": Stability(level="c", passed=True, energy_above_hull=0.03, novelty=NEW),
    }
    crystals = [Crystal(candidate_id=name, structure=SALT) for name in records]
    judged = StageOutput(stage="hull:c", records=records, survivors=crystals)
    section = PhononsSection(max_energy_above_hull=0.1, candidates=1)
    assert [c.candidate_id for c in choose(judged, section)] == ["new"]
    everything = section.model_copy(update={"novel_only": False, "candidates": 9})
    assert [c.candidate_id for c in choose(judged, everything)] == ["known", "new", "next"]
