"""What a rung says of relaxed crystals: twins, and who was known before."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import StageRow, structure_key
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.stages import hull, relax
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.novelty import Compared, judge_novelty
from tests.relaxations import relaxation

CAMPAIGN = Campaign.model_validate(
    {
        "name": "twins",
        "generate": {"elements": ["Na", "Cl"]},
        "novelty": {"library": False, "against": ["references"]},
        "references": {"source": "prototypes"},
        "rungs": [{"level": "chgnet", "keep": {"energy_above_hull": 0.5}}],
    }
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
DENSE = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
CHAIN = Structure(Lattice.orthorhombic(3, 5, 9), ["Na", "Cl"], [[0] * 3, [0.5, 0, 0.1]])
REFERENCES = ReferenceSet(
    source="prototypes",
    chemsys="Cl-Na",
    level="chgnet",
    convention="mp2020",
    entries=[
        ReferenceEntry(entry_id="Na", formula="Na1", energy=-1.0),
        ReferenceEntry(entry_id="Cl", formula="Cl1", energy=-2.0),
        ReferenceEntry(entry_id="B2", formula="Na1 Cl1", energy=-2.9, structure=DENSE),
    ],
)


def novelty(known: bool, **more: str) -> Novelty:
    return Novelty(sets={"references": SetNovelty(known=known, method="m", **more)})


def judged(found: dict[str, tuple[Novelty, Relaxation]]) -> dict[str, Stability]:
    """Return what a rung says of crystals, each with what was said before and its relaxation."""
    storage = MemoryStorage()
    storage.put_references(REFERENCES)
    storage.put_structures({structure_key(SALT): SALT})
    for number, (name, (said, result)) in enumerate(found.items()):
        generated = StageRow(
            CAMPAIGN.campaign_id,
            name,
            number,
            "generate",
            {},
            key=structure_key(SALT),
            formula="NaCl",
        )
        storage.put_rows([generated, generated.following("deduplicate", said, goes_on=True)])
        relax.store(storage, CAMPAIGN.campaign_id, "chgnet", {name: result})
    hull.run(CAMPAIGN, CAMPAIGN.rungs[0], ["Cl-Na"], storage)
    rows = storage.rows(CAMPAIGN.campaign_id, "hull:chgnet")
    return {row.candidate_id: row.read(Stability) for row in rows}


@pytest.mark.parametrize("order", [("high", "low"), ("low", "high")])
def test_of_twins_the_lower_is_kept(order):
    crystals = {
        "high": (novelty(known=False), relaxation(SALT, -1.45)),
        "low": (novelty(known=False), relaxation(SALT.get_primitive_structure(), -1.5)),
    }
    found = judged({name: crystals[name] for name in order})
    assert found["low"].passed
    assert (found["high"].passed, found["high"].reason_class) == (False, "duplicate")
    assert found["high"].novelty.duplicate_of == "low"


def test_a_crystal_that_was_known_before_it_was_relaxed_stays_known():
    found = judged(
        {
            "was": (novelty(known=True, matched_id="mp-1"), relaxation(CHAIN, -1.4)),
            "is": (novelty(known=False), relaxation(DENSE * (1, 1, 2), -1.4)),
            "new": (novelty(known=False), relaxation(SALT, -1.4)),
        }
    )
    said = {name: (one.novelty.kind, one.novelty.known_id) for name, one in found.items()}
    assert said == {
        "was": ("duplicate", "mp-1"),
        "is": ("duplicate", "B2"),
        "new": ("new_structure_type", None),
    }
    assert {name: one.novelty.novel for name, one in found.items()} == {
        "was": False,
        "is": False,
        "new": True,
    }


def test_the_library_is_looked_up_whatever_the_references():
    """The quickstart's phases are prototypes: a known crystal was called new."""
    assert CAMPAIGN.novelty.library is False
    with_library = CAMPAIGN.model_copy(
        update={"novelty": CAMPAIGN.novelty.model_copy(update={"library": True, "against": ()})}
    )
    storage = MemoryStorage()
    found = judge_novelty({"a": SALT.copy().perturb(0.05)}, Compared(with_library, storage))
    assert found["a"].sets["library"].known
    assert judge_novelty({"a": SALT}, Compared(CAMPAIGN, storage))["a"].novel
