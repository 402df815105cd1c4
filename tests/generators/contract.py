"""What every source of crystals must do; for tests of this project's sources and of others'."""

import json

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.generators.protocol import Generated
from pccd_workflows.generators.registry import open_generator
from pccd_workflows.generators.request import Generation
from pccd_workflows.generators.sampling import check_options


def assert_same(a: Generated, b: Generated) -> None:
    """Assert that two samples are the same but for the time they took and for rounding."""
    assert a.index == b.index
    untimed = {"seconds": 0.0}
    assert a.generation.model_copy(update=untimed) == b.generation.model_copy(update=untimed)
    assert (a.structure is None) == (b.structure is None)
    if a.structure is not None and b.structure is not None:
        assert a.structure.species == b.structure.species
        # a network's sums round differently in batches of other sizes
        assert np.allclose(a.structure.lattice.matrix, b.structure.lattice.matrix, atol=1e-3)
        apart = a.structure.frac_coords - b.structure.frac_coords
        assert np.abs(apart - np.round(apart)).max() < 1e-3


def check_contract(options: dict, n: int = 4) -> list[Generated]:
    """Assert what holds of every source; return its first samples."""
    asked = check_options(options)
    generator = open_generator(asked)
    generator.check()
    info = generator.info()
    assert info.name
    assert info.version
    made = list(generator.generate(range(n)))
    assert [g.index for g in made] == list(range(n))
    for g in made:
        assert (g.structure is None) == (g.error_class is not None) == (g.reason is not None)
        assert g.generation.source == asked.source
        assert g.generation.index == g.index
        assert g.generation.weights_sha256 == info.version
        stored = json.loads(json.dumps(g.generation.model_dump(mode="json")))
        assert Generation.model_validate(stored) == g.generation
        if g.structure is not None:
            assert isinstance(g.structure, Structure)
            assert g.structure.is_ordered
            assert {e.symbol for e in g.structure.elements} <= asked.possible_elements()
    # crystal k alone is crystal k among others, whoever asks for it, in any order
    again = open_generator(asked)
    last, first = again.generate([n - 1, 0])
    assert_same(last, made[-1])
    assert_same(first, made[0])
    assert list(again.generate([])) == []
    # options survive the campaign's document
    campaign = Campaign.model_validate(
        {"name": "a", "generate": [asked], "rungs": [{"level": "chgnet"}]}
    )
    assert Campaign.model_validate(json.loads(json.dumps(campaign.resolved()))) == campaign
    return made
