"""What a notebook calls besides `discover`: relax, place on a hull, ask whether crystals are known.

Nothing here needs a server. Results are kept in memory, or in a folder where they outlive the
process; `read_campaign` reads what workers wrote to MongoDB.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import Folder
from pccd_workflows.core.storage import Storage
from pccd_workflows.core.systems import chemical_system
from pccd_workflows.discovery import Candidates

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.core.reference_set import ReferenceSet
    from pccd_workflows.engines.records import Relaxation
    from pccd_workflows.known.novelty import Novelty, SetNovelty
    from pccd_workflows.matching.known_crystals import KnownCrystals
    from pccd_workflows.stages.hull import Stability


def relax(
    structures: "Sequence[Structure]",
    *,
    level: str = "chgnet",
    fmax: float = 0.05,
    steps: int = 300,
    folder: Folder | None = None,
) -> "list[Relaxation]":
    """Relax cells and sites of crystals at a level of theory that runs in this process.

    Parameters
    ----------
    structures
        Ordered crystals.
    fmax
        Largest force of a converged one, eV/Å.
    steps
        Most steps of each.
    folder
        Where relaxations outlive the process and are found again.

    Returns
    -------
    In their order; what could not be relaxed has a verdict and a reason.

    Raises
    ------
    InputError, MissingDependencyError
        The level is unknown, no potential, or its package is missing.
    """
    from pccd_workflows.engines.engine import Task, Work, compute
    from pccd_workflows.engines.records import Relaxation

    work = Work(_storage(folder))
    task = Task("relax", "reference", fmax=fmax, steps=steps)
    found = [compute(structure, level, task, work) for structure in structures]
    return [record for record in found if isinstance(record, Relaxation)]


def _storage(folder: Folder | None) -> Storage:
    from pccd_workflows.execution.memory import FolderStorage, MemoryStorage

    return MemoryStorage() if folder is None else FolderStorage(Path(folder))


def references(
    chemsys: str,
    *,
    source: str = "known",
    level: str = "chgnet",
    folder: Folder | None = None,
    progress: bool = True,
) -> "ReferenceSet":
    """Return the competing phases of a chemical system at a level, computed where missing.

    Parameters
    ----------
    source
        As in a campaign file (`references.source`), of those that need no database.
    folder
        Where what is computed outlives the process and is found again.
    progress
        Whether to draw how far it is, on a terminal.
    """
    from pccd_workflows.core.progress import progress_bars, watched
    from pccd_workflows.stages.references import build

    campaign = Campaign.model_validate(
        {
            "name": "references",
            "generate": {"elements": chemsys.split("-")},
            "references": {"source": source},
            "rungs": [{"level": level}],
        }
    )
    system = chemical_system(chemsys.split("-"))
    with progress_bars(show=progress) as bars, watched(bars):
        return build(campaign, campaign.rungs[0], system, _storage(folder))


def place_on_hull(
    relaxations: "Sequence[Relaxation]",
    phases: "ReferenceSet | None" = None,
    *,
    folder: Folder | None = None,
) -> "list[Stability]":
    """Return where relaxed crystals lie on the hull of competing phases of the same level.

    Energies that lack the MP2020 corrections get them here, once.

    Parameters
    ----------
    relaxations
        All of one level.
    phases
        What competes; the known crystals of their chemical systems if left out.
    folder
        Where what is computed of them outlives the process and is found again.
    """
    from pccd_workflows.stages.hull import judge_stability
    from pccd_workflows.stages.rung import Keep, Rung

    named = {str(number): relaxation for number, relaxation in enumerate(relaxations)}
    sets = _known_phases(relaxations, folder) if phases is None else [phases]
    if not relaxations:
        return []
    level = sets[0].level if sets else relaxations[0].level
    everything = Rung(level=level, keep=Keep(energy_above_hull=10.0))
    found = judge_stability(named, everything, sets)
    return [found[name] for name in named]


def _known_phases(
    relaxations: "Sequence[Relaxation]", folder: Folder | None
) -> "list[ReferenceSet]":
    """Return the known phases of the chemical systems of relaxed crystals, at their level."""
    from pccd_workflows.core.systems import maximal_systems

    usable = [r for r in relaxations if r.usable]
    levels = sorted({r.level for r in usable})
    if len(levels) > 1:
        raise InputError(
            f"The crystals have several levels ({', '.join(levels)}): place each alone."
        )
    systems = maximal_systems(
        r.structure.chemical_system for r in usable if r.structure is not None
    )
    return [references(system, level=levels[0], folder=folder) for system in systems]


def is_known(
    structures: "Sequence[Structure]",
    known: "Sequence[Structure] | ReferenceSet | None" = None,
) -> "list[Novelty]":
    """Return for each crystal whether it repeats an earlier one of them, and whether it is known.

    The verdicts name the known crystal, and of what is new the kind: a substitution (of which
    known crystal) or a new structure type.

    known: crystals to compare with, by structure, whatever their cell; the library of known
    crystals that comes with the project by default.
    """
    from pccd_workflows.known.novelty import LIBRARY
    from pccd_workflows.matching.groups import DEFAULT_SETTINGS
    from pccd_workflows.stages import novelty

    def look_up(crystals: novelty.Crystals) -> Mapping[str, "SetNovelty"]:
        if known is None:
            return novelty.in_library(crystals, settings=DEFAULT_SETTINGS, kinds=True)
        return novelty.match_known(crystals, _index(known), frameworks=True)

    name = LIBRARY if known is None else "known"
    crystals = {str(number): structure for number, structure in enumerate(structures)}
    duplicates = novelty.find_duplicates(crystals, DEFAULT_SETTINGS)
    found = novelty.look_up(crystals, {name: look_up}, kinds=True)
    return [
        verdict.model_copy(update={"duplicate_of": duplicates.get(number)})
        for number, verdict in found.items()
    ]


def _index(known: "Sequence[Structure] | ReferenceSet") -> "KnownCrystals":
    from pccd_workflows.core.reference_set import ReferenceSet
    from pccd_workflows.matching.known_crystals import KnownCrystals

    if isinstance(known, ReferenceSet):
        entries = ((entry.entry_id, entry.structure) for entry in known.entries)
        return KnownCrystals((i, structure) for i, structure in entries if structure is not None)
    return KnownCrystals((str(number), structure) for number, structure in enumerate(known))


def read_campaign(name: str) -> Candidates:
    """Return the candidates of a campaign in MongoDB, by its name or id, as last collected.

    Raises
    ------
    InputError
        There is no such campaign; the message names those that exist.
    DatabaseError
        The database is not there.
    """
    from pccd_workflows import operations, query
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.settings import get_settings

    settings = get_settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    rows = database(settings)["candidates"].find({"campaign_id": document["_id"]}, {"_id": 0})
    found = [query.to_candidate(row) for row in rows]
    return Candidates(operations.stored_campaign(document), found)
