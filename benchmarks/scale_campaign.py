"""Campaigns for which nothing has to be computed: crystals stored as if they were generated."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations_with_replacement, pairwise
from math import gcd
from pathlib import Path

import numpy as np
from jobflow import Job
from pymatgen.core import Lattice, Structure

from pccd_workflows import operations
from pccd_workflows.analysis.screening import Screening
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import StageRow, structure_key
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.generators.request import Generation
from pccd_workflows.jobs.common import plain_job
from pccd_workflows.pipeline import DiscoveryMaker, GenerateMaker
from pccd_workflows.settings import Settings

ELEMENTS = ["Mg", "Al", "Ca", "Ti", "Mn", "Zn", "O"]
REPEATS = {4: (1, 1, 2), 8: (1, 2, 2), 12: (1, 2, 3)}
"""Cells of the lattice along each axis, by the number of sites."""
TOGETHER = 10
"""Crystals with one composition."""
COPIES = 0.2
"""Share of crystals that are slightly displaced copies of earlier ones."""
BATCH = 500
"""Crystals stored at once."""


@lru_cache(maxsize=1)
def compositions() -> list[tuple[int, ...]]:
    """Return all numbers of atoms of each element in 4, 8 or 12 sites, in some order."""
    found = []
    for sites in REPEATS:
        for ends in combinations_with_replacement(range(sites + 1), len(ELEMENTS) - 1):
            amounts = tuple(b - a for a, b in pairwise((0, *ends, sites)))
            if gcd(*amounts) == 1 and sum(map(bool, amounts)) > 1:
                found.append(amounts)
    return [found[n] for n in np.random.default_rng(0).permutation(len(found))]


def crystal(index: int) -> Structure:
    """Return a decorated bcc lattice, strained, each site moved.

    TOGETHER crystals that follow each other have one composition, and no others have it: however
    many there are, each is compared with as many.
    """
    block = index // TOGETHER
    rng, first = np.random.default_rng(index), block * TOGETHER
    copied = rng.random() < COPIES and index > first
    original = np.random.default_rng(int(rng.integers(first, index)) if copied else index)
    amounts = compositions()[block]
    repeats = REPEATS[sum(amounts)]
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    shifts = np.array(list(np.ndindex(repeats)))
    sites = (basis[None] + shifts[:, None]).reshape(-1, 3) / repeats
    species = original.permutation(np.repeat(ELEMENTS, amounts))
    lengths = (2.9 + 0.6 * original.random()) * np.array(repeats)
    matrix = np.diag(lengths) @ (np.eye(3) + original.normal(0, 0.12, (3, 3)))
    moved = original.normal(0, 0.5, (len(sites), 3)) + rng.normal(0, 0.01, (len(sites), 3))
    return Structure(Lattice(matrix), species, sites + moved @ np.linalg.inv(matrix))


def campaign(samples: int, folder: Path, batch: int = 8) -> Campaign:
    """Return the campaign of so many samples; its competing phases are the elements."""
    known = folder / "known"
    known.mkdir(exist_ok=True)
    for symbol in ELEMENTS:
        phase = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4), [symbol], [[0, 0, 0]])
        phase.to(filename=str(known / f"{symbol}.cif"))
    return Campaign.model_validate(
        {
            "name": "scale",
            "generate": {"elements": ELEMENTS, "samples": samples, "shard": 128},
            "references": {"source": "file", "path": str(known)},
            "novelty": {"against": ["references", "history"], "library": False},
            "rungs": [{"level": "trivial_engine:LEVEL", "batch": batch}],
        }
    )


def prefill(whole: Campaign, storage: MongoStorage, samples: int) -> None:
    """Store what generation and screening leave of every sample."""
    for first in range(0, samples, BATCH):
        rows, structures = [], {}
        for index in range(first, min(first + BATCH, samples)):
            made = crystal(index)
            key = structure_key(made)
            structures[key] = made
            rows += _rows(whole, index, made, key)
        storage.put_structures(structures)
        storage.put_rows(rows)


def _rows(whole: Campaign, index: int, made: Structure, key: str) -> Iterator[StageRow]:
    how = Generation(model="none", weights_sha256="0" * 64, seed=0, index=index, elements=ELEMENTS)
    generated = StageRow(
        campaign_id=whole.campaign_id,
        candidate_id=whole.candidate_id(index),
        index=index,
        stage="generate",
        record=how.model_dump(mode="json"),
        key=key,
        goes_on=True,
        rank=float(index),
        formula=made.composition.reduced_formula,
    )
    yield generated
    yield generated.following("screen", Screening(passed=True), goes_on=True, rank=index % 2)


@plain_job
def prefilled() -> int:
    """Stand for the jobs that generate."""
    return 0


@plain_job
def gather(numbers: list[int]) -> int:
    """Stand for a job that waits for others."""
    return sum(numbers)


class Prefilled(GenerateMaker):
    """Makes a job that has nothing to do."""

    def make(self, campaign: Campaign, versions: Sequence[str]) -> list[Job]:  # noqa: ARG002
        """Return it."""
        return [prefilled()]


def store_campaign(whole: Campaign, settings: Settings) -> None:
    """Store a campaign and its workflow as `operations.submit` does, without asking sources."""
    document = operations._new_document(whole, ["none"], settings) | {"state": "submitted"}
    mongo.database(settings)["campaigns"].insert_one(document)
    flow = DiscoveryMaker(generate_maker=Prefilled()).make(whole, ["none"])
    launchpad.submit(flow, settings)
