"""What a rung makes of relaxed crystals, and who goes on to phonons."""

import pytest
from jobflow import Flow
from pymatgen.core import Lattice, Structure

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.collect import fold
from pccd_workflows.core.errors import InputError, MachineFault
from pccd_workflows.core.reference_set import MissingPhase, ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import CrystalRef, StageRow, structure_key
from pccd_workflows.engines import gpaw
from pccd_workflows.engines.records import Phonons, Relaxation
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.generators.request import Generation
from pccd_workflows.jobs.phonons import _settled
from pccd_workflows.jobs.references import prepare_references
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.stages import hull
from pccd_workflows.stages.hull import Stability, judge_stability, with_novelty
from pccd_workflows.stages.novelty import find_duplicates
from pccd_workflows.stages.phonons import PhononsSection, choose
from pccd_workflows.stages.rung import Rung
from tests.relaxations import relaxation

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
    return relaxation(SALT, energy_per_atom, verdict)


def test_what_is_said_of_a_crystal_near_the_hull():
    record = judge_stability({"a": relaxed(-1.45)}, campaign().rungs[0], [REFERENCES])["a"]
    said = hull.STAGE.describe(record, {})
    assert (said.verdict, said.facts[0]) == ("kept", "50 meV/atom above the hull")
    assert any(fact.startswith("competes with 50 % ") for fact in said.facts)
    assert "a new structure type" not in said.facts
    first = NEW.model_copy(update={"kind": "new_structure_type"})
    told = hull.STAGE.describe(record.model_copy(update={"novelty": first}), {})
    assert "a new structure type" in told.facts
    nothing = hull.Stability(level="chgnet", passed=False, reason_class="budget")
    assert not any("hull" in fact for fact in hull.STAGE.describe(nothing, {}).facts)
    framework = SetNovelty(known=False, framework_id="mp-2", method="m")
    both = Novelty(sets={"references": framework, "history": KNOWN.sets["references"]})
    told = hull.STAGE.describe(record.model_copy(update={"novelty": both}), {})
    assert not any("substitution" in fact for fact in told.facts)
    assert any("known in history as mp-1" in fact for fact in told.facts)


def test_a_crystal_of_a_missing_phase_s_composition_says_which_it_may_be():
    lacking = [
        MissingPhase(
            id=name,
            chemsys="Cl-Na",
            formula=formula,
            energy_above_hull=0.0,
            shift=0.1,
            n_same_composition=0,
        )
        for name, formula in (("mp-7", "NaCl"), ("mp-8", "NaCl2"))
    ]
    references = REFERENCES.model_copy(update={"missing": lacking})
    record = judge_stability({"a": relaxed(-1.5)}, campaign().rungs[0], [references])["a"]
    assert (record.n_missing, record.may_be) == (2, ["mp-7"])
    (said,) = [f for f in hull.STAGE.describe(record, {}).facts if "none of the known" in f]
    assert said.endswith("composition: mp-7")


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


def test_without_competing_phases_a_crystal_is_failed_and_not_rejected():
    """Their job failed (None stands for its output); run again, there is a verdict."""
    whole, storage = campaign(against=[]), MemoryStorage()
    generated = Generation(
        model="m", weights_sha256="0" * 64, seed=0, index=0, elements=["Na", "Cl"]
    )
    key = structure_key(SALT)
    storage.put_structures({key: SALT})
    rows = [
        StageRow(
            campaign_id=whole.campaign_id,
            candidate_id=whole.candidate_id(0),
            index=0,
            stage=stage,
            record=record,
            key=key,
            goes_on=True,
            formula="NaCl",
        )
        for stage, record in (
            ("generate", generated.model_dump(mode="json")),
            ("deduplicate", NEW.model_dump(mode="json")),
            ("relax:chgnet", relaxed(-1.5).model_dump(mode="json")),
        )
    ]
    storage.put_rows(rows)

    def outcome() -> tuple[str, str | None]:
        (document,) = fold(whole, storage, [whole.candidate_id(0)])
        return document.status, document.reason_class

    rung = whole.rungs[0]
    assert hull.run(whole, rung, [None], storage) == 0
    assert outcome() == ("failed", "no_references")
    storage.put_references(REFERENCES.model_copy(update={"source": "known"}))
    assert hull.run(whole, rung, ["Cl-Na"], storage) == 1
    assert outcome() == ("passed", None)


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
    crystals = {"b": SALT, "k": other, "a": SALT.get_primitive_structure()}
    assert find_duplicates(crystals, campaign().novelty.matcher) == {"a": "b"}


def test_phonons_go_to_new_crystals_near_the_hull():
    records = {
        "known": Stability(level="c", passed=True, energy_above_hull=0.0, novelty=KNOWN),
        "new": Stability(level="c", passed=True, energy_above_hull=0.02, novelty=NEW),
        "high": Stability(level="c", passed=True, energy_above_hull=0.2, novelty=NEW),
        "next": Stability(level="c", passed=True, energy_above_hull=0.03, novelty=NEW),
    }
    section = PhononsSection(max_energy_above_hull=0.1, candidates=1)
    whole = campaign().model_copy(update={"phonons": section})
    storage = MemoryStorage()
    storage.put_rows(
        [
            StageRow(
                campaign_id=whole.campaign_id,
                candidate_id=name,
                index=number,
                stage="hull:chgnet",
                record=record.model_dump(mode="json"),
                goes_on=True,
                rank=record.energy_above_hull,
            )
            for number, (name, record) in enumerate(records.items())
        ]
    )
    assert [row.candidate_id for row in choose(whole, storage)] == ["new"]
    everything = section.model_copy(update={"novel_only": False, "candidates": 9})
    update = {"phonons": everything, "stored_id": whole.campaign_id}
    whole = whole.model_copy(update=update)
    assert [row.candidate_id for row in choose(whole, storage)] == ["known", "new", "next"]


def test_energies_without_corrections_stay_as_computed():
    """r2SCAN and GPAW totals get no MP2020 correction, and never meet another level's."""
    references = REFERENCES.model_copy(update={"level": "gpaw/pbe", "convention": "as_computed"})
    rung = Rung(level="gpaw/pbe", keep={"energy_above_hull": 0.1})
    found = relaxed(-1.45).model_copy(update={"level": "gpaw/pbe", "convention": "as_computed"})
    (record,) = judge_stability({"a": found}, rung, [references]).values()
    assert record.energy_above_hull == pytest.approx(0.05)  # nothing was added for chlorine
    assert (record.convention, record.passed) == ("as_computed", True)
    with pytest.raises(InputError, match="cannot share a hull"):
        judge_stability({"a": found}, rung, [REFERENCES])


def test_a_rung_without_budget_left_says_so():
    spent = Relaxation(level="chgnet", key="", verdict="budget", reason="The budget is spent.")
    (record,) = judge_stability({"a": spent}, campaign().rungs[0], [REFERENCES]).values()
    assert (record.passed, record.reason_class) == (False, "budget")


def test_an_ambiguous_verdict_is_settled_at_the_better_level():
    section = PhononsSection(level="chgnet", confirm="vasp/mp-gga")
    storage, ref = MemoryStorage(), CrystalRef("c-0", structure_key(SALT))
    generated = Generation(model="m", weights_sha256="0", seed=0, index=0, elements=["Na", "Cl"])
    row = StageRow("c", ref.id, 0, "generate", generated.model_dump(mode="json"), key=ref.key)
    storage.put_rows([row])
    record = Phonons(level="chgnet", verdict="ambiguous", tolerance=0.1)
    response = _settled(storage, "c", ref, section, record, "AFM")
    assert response.output == "ambiguous"
    (written,) = storage.rows("c", "phonons:chgnet")
    assert written.read(Phonons) == record
    (job,) = response.addition.jobs
    assert job.name == "phonons vasp/mp-gga c-0"
    assert job.function_args[2].confirm is None
    assert job.function_args[3] == "AFM"
    stable = record.model_copy(update={"verdict": "stable"})
    assert _settled(storage, "c", ref, section, stable, None) == "stable"


def known_salts() -> ReferenceSet:
    """Return Na, Cl and two compounds, the second far above the hull, as CHGNet has them."""
    sodium = Structure(Lattice.cubic(4.0), ["Na"], [[0, 0, 0]])
    chlorine = Structure(Lattice.cubic(4.1), ["Cl"], [[0, 0, 0]])
    dense = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    rows = [("Na", sodium, -1.3), ("Cl", chlorine, -1.8), ("B1", SALT, -16.0), ("B2", dense, -2.0)]
    entries = [
        ReferenceEntry(entry_id=name, formula=s.composition.formula, energy=e, structure=s)
        for name, s, e in rows
    ]
    return ReferenceSet(
        source="prototypes", chemsys="Cl-Na", level="chgnet", convention="mp2020", entries=entries
    )


def test_competing_phases_are_recomputed_a_job_each(settings, monkeypatch):
    """With a stand-in for GPAW, one phase of which is lost at first."""
    computed = []

    def relax(structure, level, task):
        computed.append(structure.composition.reduced_formula)
        if computed[-1] == "NaCl" and computed.count("NaCl") == 1:
            raise MachineFault("the node died")
        return Relaxation(
            level=level.name,
            key="k",
            verdict="converged",
            structure=structure,
            energy=-5.0 * len(structure),
            convention="as_computed",
        )

    monkeypatch.setitem(gpaw.DOES, "relax", relax)
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    mongo.put_reference_set(database, known_salts())
    whole = Campaign.model_validate(
        {
            "name": "recomputed",
            "generate": {"elements": ["Na", "Cl"]},
            "references": {"source": "prototypes"},
            "rungs": [{"level": "chgnet"}, {"level": "gpaw/pbe", "budget": {"references": 3}}],
        }
    )
    flow = Flow([prepare_references(whole, whole.rungs[1], [])])
    flow.update_metadata({"campaign_id": whole.campaign_id})
    launchpad.submit(flow, settings)
    run_worker(settings)
    found = mongo.find_reference_set(database, "prototypes", "Cl-Na", "gpaw/pbe")
    assert found is None, "a hull without one of its phases would flatter"
    lost = [failure["name"] for failure in launchpad.failures(settings, whole.campaign_id)]
    assert lost == ["relax gpaw/pbe B1", "references Cl-Na gpaw/pbe"]  # nobody waits for either
    operations.restart(whole.campaign_id, settings, 5)
    run_worker(settings)
    # what was stored is not done again
    assert sorted(computed) == ["Cl2", "Na", "NaCl", "NaCl"]
    found = mongo.find_reference_set(database, "prototypes", "Cl-Na", "gpaw/pbe")
    assert sorted(entry.entry_id for entry in found.entries) == ["B1", "Cl", "Na"]
    assert found.convention == "as_computed"
    assert found.settings["at_most"] == 3
    assert found.settings["structures_of"] == known_salts().reference_id
