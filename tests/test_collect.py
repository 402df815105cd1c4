"""The fold from stage outputs to candidate documents."""

import itertools

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.screening import Screening
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.collect import Ledger
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.stages.hull import Stability

CAMPAIGN = Campaign.model_validate(
    {
        "name": "fold",
        "generate": {"elements": ["Na", "Cl"], "samples": 3},
        "rungs": [{"level": "chgnet"}],
        "phonons": {"level": "chgnet"},
    }
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
RELAXED = SALT.copy().apply_strain(-0.01)
A, B, C = (CAMPAIGN.candidate_id(i) for i in range(3))


def generation(index: int, **kwargs) -> Generation:
    return Generation(
        model="m", weights_sha256="0", seed=0, index=index, elements=["Na", "Cl"], **kwargs
    )


def relaxation(verdict: str = "converged", **kwargs) -> Relaxation:
    fields = {"structure": RELAXED, "energy": -27.0, "energy_per_atom": -3.4, "seconds": 2.0}
    return Relaxation(level="chgnet", key="k", verdict=verdict, **fields | kwargs)


def stability(above: float, passed: bool = True) -> Stability:
    return Stability(
        level="chgnet",
        passed=passed,
        energy_above_hull=above,
        reason_class=None if passed else "unstable",
        reason=None if passed else "too high",
    )


OUTPUTS = [
    StageOutput(
        stage="generate",
        records={
            A: generation(0),
            B: generation(1, error_class="no_cluster", reason="No sites."),
            C: generation(2),
        },
        survivors=[Crystal(candidate_id=i, structure=SALT) for i in (A, C)],
    ),
    StageOutput(stage="screen", records={i: Screening(passed=True) for i in (A, C)}),
    StageOutput(
        stage="deduplicate",
        records={
            A: Novelty(sets={"references": SetNovelty(known=True, method="m", matched_id="x")}),
            C: Novelty(duplicate_of=A),
        },
    ),
    StageOutput(stage="relax:chgnet", records={A: relaxation()}),
    StageOutput(stage="hull:chgnet", records={A: stability(0.01)}),
    StageOutput(
        stage="phonons:chgnet",
        records={A: Phonons(level="chgnet", verdict="stable", tolerance=0.1, min_frequency=0.4)},
    ),
]


def folded(outputs) -> dict:
    ledger = Ledger(CAMPAIGN)
    for number, output in enumerate(outputs):
        ledger.add(output, f"uuid-{number}")
    documents = {i: ledger.document(i) for i in ledger.trails}
    return {i: doc for i, doc in documents.items() if doc is not None}


def test_a_candidate_that_went_through_everything_is_complete():
    document = folded(OUTPUTS)[A]
    assert document.status == "passed"
    assert document.stage == "phonons:chgnet"
    assert document.energy_above_hull == 0.01
    assert document.novel is False
    assert document.phonon_stable is True
    assert document.structure == RELAXED
    assert document.spacegroup == "Fm-3m"
    assert (document.formula_pretty, document.chemsys) == ("NaCl", "Cl-Na")
    assert document.jobs["hull:chgnet"] == "uuid-4"
    assert document.seconds == {"relax:chgnet": 2.0}


def test_a_band_gap_is_recorded_and_decides_nothing():
    level = "vasp/mp-gga"
    campaign = Campaign.model_validate(
        CAMPAIGN.resolved() | {"rungs": [{"level": level, "band_structure": True}], "phonons": None}
    )
    ids = [campaign.candidate_id(i) for i in range(2)]
    crystals = [Crystal(candidate_id=i, structure=SALT) for i in ids]
    hull = {i: stability(0.01).model_copy(update={"level": level}) for i in ids}
    gap = Bands(level=level, is_metal=False, band_gap=5.1, direct=True, seconds=9.0)
    ledger = Ledger(campaign)
    for output in (
        StageOutput(
            stage="generate",
            records={key: generation(i) for i, key in enumerate(ids)},
            survivors=crystals,
        ),
        StageOutput(stage=f"hull:{level}", records=hull),
        StageOutput(stage=f"bands:{level}", records={}),
        StageOutput(stage=f"bands:{level}", records={ids[0]: gap}),
        StageOutput(stage=f"bands:{level}", records={ids[1]: Bands(level=level, reason="spent")}),
    ):
        ledger.add(output, "uuid")
    computed, skipped = (ledger.document(i) for i in ids)
    assert (computed.status, computed.stage, computed.band_gap) == ("passed", f"bands:{level}", 5.1)
    assert computed.band_structures == [gap]
    assert computed.seconds == {f"bands:{level}": 9.0}
    assert (skipped.status, skipped.band_gap) == ("passed", None)
    assert skipped.band_structures[0].reason == "spent"


def test_every_generated_crystal_keeps_a_document_with_its_reason():
    documents = folded(OUTPUTS)
    assert set(documents) == {A, B, C}
    assert (documents[B].status, documents[B].reason_class) == ("rejected", "no_cluster")
    assert documents[C].reason_class == "duplicate"
    assert A in documents[C].reason


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(OUTPUTS))))[::40])
def test_order_of_arrival_does_not_matter(order):
    jobs_apart = {"jobs"}
    expected = {i: d.model_dump(exclude=jobs_apart) for i, d in folded(OUTPUTS).items()}
    shuffled = folded([OUTPUTS[i] for i in order])
    assert {i: d.model_dump(exclude=jobs_apart) for i, d in shuffled.items()} == expected


def test_folding_twice_changes_nothing():
    ledger = Ledger(CAMPAIGN)
    assert ledger.add(OUTPUTS[0], "u") == {A, B, C}
    assert ledger.add(OUTPUTS[0], "u") == set()


@pytest.mark.parametrize(
    ("output", "status", "reason_class"),
    [
        (
            StageOutput(
                stage="relax:chgnet",
                records={A: relaxation("diverged", structure=None, reason="Exploded.")},
            ),
            "rejected",
            "diverged",
        ),
        (
            StageOutput(stage="hull:chgnet", records={A: stability(0.9, passed=False)}),
            "rejected",
            "unstable",
        ),
        (
            StageOutput(
                stage="phonons:chgnet",
                records={A: Phonons(level="chgnet", verdict="unstable", tolerance=0.1)},
            ),
            "rejected",
            "phonons",
        ),
        (
            StageOutput(
                stage="phonons:chgnet",
                records={A: Phonons(level="chgnet", verdict="ambiguous", tolerance=0.1)},
            ),
            "passed",
            None,
        ),
    ],
)
def test_the_stage_that_says_no_decides(output, status, reason_class):
    others = [o for o in OUTPUTS if o.stage != output.stage]
    document = folded([*others, output])[A]
    assert (document.status, document.reason_class) == (status, reason_class)


def test_novelty_is_that_of_the_relaxed_crystal():
    assert folded(OUTPUTS)[A].novel is False
    relaxed = stability(0.01).model_copy(update={"novelty": Novelty()})
    output = StageOutput(stage="hull:chgnet", records={A: relaxed})
    assert folded([*OUTPUTS, output])[A].novel is True


def test_a_lost_job_shows_until_its_rerun_delivers():
    ledger = Ledger(CAMPAIGN)
    for output in OUTPUTS[:3]:
        ledger.add(output, "u")
    assert ledger.document(A).status == "pending"
    assert ledger.set_failures({A: "Job 'relax' failed: MemoryError"}) == {A}
    failed = ledger.document(A)
    assert (failed.status, failed.reason_class) == ("failed", "job_failed")
    assert "MemoryError" in failed.reason
    assert ledger.set_failures({}) == {A}
    for output in OUTPUTS[3:]:
        ledger.add(output, "u")
    assert ledger.document(A).status == "passed"
