"""Campaigns whose competing phases and known crystals are those of the library."""

import json
from dataclasses import replace

import numpy as np
import pytest
from jobflow import run_locally
from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation, SinglePoint
from pccd_workflows.execution import mongo
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.execution.storage import use_storage
from pccd_workflows.execution.stores import memory_store
from pccd_workflows.jobs.references import prepare_references
from pccd_workflows.known.competing import version_at
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.stages import references
from pccd_workflows.stages.novelty import Compared, judge_novelty

CAMPAIGN = Campaign.model_validate(
    {
        "name": "from-the-library",
        "generate": {"elements": ["Mg", "O"]},
        "references": {"source": "known"},
        "novelty": {"against": ["references"]},
        "rungs": [{"level": "chgnet"}],
    }
)


def test_novelty_is_measured_against_the_whole_library():
    known = library().with_composition("MgO")[0]
    moved = known.structure.copy().perturb(0.02)
    sites = [[0, 0, 0], [0.2, 0.3, 0.4], [0.6, 0.15, 0.7], [0.35, 0.8, 0.1]]
    sparse = Structure([[5, 0, 0], [1, 6, 0], [0, 2, 7]], ["Mg", "Mg", "Mg", "O"], sites)
    crystals = {"known": moved, "sparse": sparse}
    compared = Compared(CAMPAIGN, MemoryStorage(), ["Mg-O"], kinds=True)
    found = judge_novelty(crystals, compared)
    said = {name: row.sets["library"] for name, row in found.items()}
    ids = {crystal.id for crystal in library().with_composition("MgO")}
    assert said["known"].known
    assert said["known"].matched_id in ids
    assert library().version in said["known"].note
    assert not said["sparse"].known
    assert (found["known"].kind, found["known"].known_id) == ("duplicate", said["known"].matched_id)
    assert found["sparse"].kind == "new_structure_type"


@pytest.mark.parametrize("kind", ["memory", "mongo"])
def test_newer_energies_make_another_set_for_new_campaigns_alone(kind, settings, monkeypatch):
    """Campaigns that are stored stay on the hull they have; a set names what it was made with."""
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    storage = MemoryStorage() if kind == "memory" else MongoStorage(database)
    rung, named = CAMPAIGN.rungs[0], {}
    newer = Campaign.model_validate(CAMPAIGN.resolved() | {"name": "newer"})

    def made(energy: float) -> ReferenceSet:
        entries = [ReferenceEntry(entry_id=s, formula=s, energy=energy) for s in ("Mg", "O")]
        return ReferenceSet(
            source="known",
            chemsys="Mg-O",
            level="chgnet",
            convention="mp2020",
            source_version=version_at("chgnet"),
            entries=entries,
        )

    def used(campaign: Campaign) -> float:
        return references.find(campaign, "chgnet", ["Mg-O"], storage)["Mg-O"].entries[0].energy

    assert references.settle(CAMPAIGN, rung, ["Mg-O"], storage) == []
    for campaign, digest, energy in ((CAMPAIGN, "a1", -1.0), (newer, "b2", -2.0)):
        monkeypatch.setattr(KnownLibrary, "energies_digest", lambda *_, d=digest: d)
        assert references.settle(campaign, rung, ["Mg-O"], storage) == []
        named[digest] = made(energy)
        storage.put_references(named[digest])
        assert references.settle(campaign, rung, ["Mg-O"], storage) == ["Mg-O"]
        assert named[digest].source_version.endswith(f", energies {digest}")
    assert (used(CAMPAIGN), used(newer)) == (-1.0, -2.0)
    assert references.settle(CAMPAIGN, rung, ["Mg-O"], storage) == ["Mg-O"]  # its job is run again
    assert used(CAMPAIGN) == -1.0
    # energies of other systems are new: the set is the same, and is not made for every campaign
    monkeypatch.setattr(KnownLibrary, "energies_digest", lambda *_: "c3")
    storage.put_references(made(-2.0))
    latest = Campaign.model_validate(CAMPAIGN.resolved() | {"name": "latest"})
    assert references.settle(latest, rung, ["Mg-O"], storage) == ["Mg-O"]
    assert used(latest) == -2.0


def test_campaigns_do_not_share_the_phases_of_their_files(tmp_path):
    """Two files of one system at one level: each campaign is judged by its own."""
    storage, used = MemoryStorage(), []
    for number in (1, 2):
        path = tmp_path / f"{number}.jsonl"
        rows = [
            {"id": f"{s}-{number}", "energy": -float(number), "lattice": np.eye(3).tolist()}
            | {"species": [s], "frac_coords": [[0, 0, 0]]}
            for s in ("Mg", "O")
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        asked = {"name": f"file-{number}", "references": {"source": "file", "path": str(path)}}
        campaign = Campaign.model_validate(
            CAMPAIGN.resolved() | asked | {"rungs": [{"level": "chgnet"}]}
        )
        flow = prepare_references(campaign, campaign.rungs[0])
        with use_storage(storage):
            run_locally(flow, store=memory_store(), log=False, ensure_success=True)
        found = references.find(campaign, "chgnet", ["Mg-O"], storage)["Mg-O"]
        used.append([entry.energy for entry in found.entries])
    assert used == [[-1.0, -1.0], [-2.0, -2.0]]


def test_the_hull_is_that_of_the_library_and_what_it_lacks_is_computed(monkeypatch):
    relaxed: list[str] = []

    def relax(structure, level, work, task):
        relaxed.append(structure.composition.reduced_formula)
        return Relaxation(
            level=level,
            key="k",
            verdict="converged",
            structure=structure,
            energy=-6.0 * len(structure),
            energy_per_atom=-6.0,
            convention="mp2020",
        )

    stored = KnownLibrary.energies

    def never_relaxed(self, level):
        return replace(stored(self, level), relaxed=np.full(len(self), np.nan))

    monkeypatch.setattr(KnownLibrary, "energies", never_relaxed)
    nothing = SinglePoint(energy_per_atom=None, reason="not here")
    monkeypatch.setattr("pccd_workflows.engines.engine.relax", relax)
    monkeypatch.setattr("pccd_workflows.engines.engine.static", lambda *_: nothing)
    built = references.build(CAMPAIGN, CAMPAIGN.rungs[0], "Mg-O", MemoryStorage())
    assert isinstance(built, ReferenceSet)
    assert (built.source, built.level, built.convention) == ("known", "chgnet", "mp2020")
    ids = {entry.entry_id for entry in built.entries}
    assert {crystal.id for crystal in library().in_system("Mg-O")} >= ids
    assert {"Mg", "O"} <= {e.composition.reduced_formula.rstrip("2") for e in built.entries}
    assert relaxed, "phases near the hull are brought to rest at the level"
