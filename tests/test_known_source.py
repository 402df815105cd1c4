"""Campaigns whose competing phases and known crystals are those of the library."""

from dataclasses import replace

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.engines.records import Relaxation, SinglePoint
from pccd_workflows.execution.memory import MemoryStorage
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
