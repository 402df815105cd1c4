"""What a model's crystals are measured against, and how near a match of the literature is."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.crystals import LITERATURE_MATCHER, literature_matcher
from pccd_workflows.evaluation.samples import judge_novelty, yardstick
from pccd_workflows.known.library import library
from pccd_workflows.matching.groups import group


def test_the_shipped_model_is_measured_against_what_it_was_trained_on():
    """Displaced by 0.05 Å, where formula, space group and cell size find hardly anything."""
    known = library()
    crystals, splits = {}, []
    for row in np.random.default_rng(5).permutation(len(known)).tolist():
        one = known.crystal(row)
        if one.n_sites <= 10 and splits.count(one.split) < 2:
            splits.append(one.split)
            crystals[one.id] = one.structure.perturb(0.05)
        if len(crystals) == 8:
            break
    found = judge_novelty(crystals, yardstick(resource("model", "pccd-default")))
    assert all(novelty.sets["library"].known for novelty in found.values())
    trained = [novelty.sets["training"].known for novelty in found.values()]
    assert trained == [split == "train" for split in splits]
    assert set(trained) == {True, False}
    assert not any(novelty.novel for novelty in found.values())


def pair(share: float) -> list[Structure]:
    """Return two crystals whose largest displacement is `share` of (V/N)^(1/3)."""
    length = 4.0
    step = 2 * share * (length**3 / 2) ** (1 / 3) / length
    sites = ([[0, 0, 0], [0.5, 0.5, z]] for z in (0.5, 0.5 - step))
    return [Structure(Lattice.cubic(length), ["Na", "Cl"], coords) for coords in sites]


@pytest.mark.parametrize(("share", "same"), [(0.1, True), (0.28, True), (0.32, False)])
def test_campaigns_match_within_the_site_tolerance(share, same):
    assert (len(group(pair(share))) == 1) is same


def anyhow(seed: int) -> Structure:
    """Return six atoms anywhere."""
    sites = np.random.default_rng(seed).random((6, 3))
    return Structure(Lattice.cubic(6), ["Na"] * 2 + ["Cl"] * 4, sites)


def test_the_literature_matches_within_0_5():
    """A pair between 0.3 and 0.5 matches, one between 0.5 and 0.8 does not."""
    apart = [anyhow(2), anyhow(3)]
    assert StructureMatcher(**{**LITERATURE_MATCHER, "stol": 0.8}).fit(*apart)
    assert not literature_matcher().fit(*apart)
    assert literature_matcher().fit(*pair(0.32))
