"""Competing phases of a campaign's hulls: which chemical systems, and where they come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.storage import Storage
from pccd_workflows.core.systems import maximal_systems
from pccd_workflows.engines import engine
from pccd_workflows.engines.engine import Task, Work
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.options import References, source_name
from pccd_workflows.stages.relax import stage_before
from pccd_workflows.stages.rung import Rung

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign
    from pccd_workflows.known.competing import ImportedSet
    from pccd_workflows.known.snapshots import MongoSnapshot

__all__ = [
    "References",
    "build",
    "find",
    "known_phases",
    "recomputes",
    "settle",
    "source_of",
    "systems_of",
]


def systems_of(campaign: "Campaign", rung: Rung, storage: Storage) -> list[str]:
    """Return the fewest chemical systems whose hulls hold every crystal that reaches a rung.

    A campaign with one set of elements has one system; otherwise the crystals' own systems that
    are no part of another.
    """
    if campaign.chemsys is not None:
        return [campaign.chemsys]
    before = stage_before(campaign, rung)
    # duplicates and known crystals are found with the competing phases at hand
    stage = "screen" if before == "deduplicate" else before
    found = storage.formulas(campaign.campaign_id, stage)
    return maximal_systems({_system_of_formula(formula) for formula, _ in found})


def _system_of_formula(formula: str) -> str:
    from pymatgen.core import Composition

    return str(Composition(formula).chemical_system)


def source_of(campaign: "Campaign") -> str:
    """Return what a campaign's stored reference sets have as their source.

    Imported sets that novelty is measured against join the known phases.
    """
    return source_name(campaign.references.source, campaign.novelty.sets)


def find(
    campaign: "Campaign", level: str, systems: Iterable[str], storage: Storage
) -> dict[str, ReferenceSet]:
    """Return the stored competing phases that a campaign uses at a level, by chemical system.

    Campaigns of versions that did not note them use the latest.
    """
    settled = storage.settled_references(campaign.campaign_id, level)

    def stored(system: str) -> ReferenceSet | None:
        if system in settled:
            return storage.get_references(settled[system])
        return storage.find_references(source_of(campaign), system, level)

    found = ((system, stored(system)) for system in systems)
    return {system: references for system, references in found if references is not None}


def settle(campaign: "Campaign", rung: Rung, systems: Iterable[str], storage: Storage) -> list[str]:
    """Settle which stored sets a campaign uses at a rung; return the systems that have one.

    Once settled it stays, whatever is stored or installed later. A set is not taken from another
    campaign if the source would make another one now: the library or its energies are newer, or the
    phases come from a file.
    """
    settled = storage.settled_references(campaign.campaign_id, rung.level)
    source, version = source_of(campaign), _version_now(campaign, rung)
    there = []
    for system in systems:
        if system in settled:
            there.append(system)
        elif campaign.references.source != "file" and (
            found := storage.find_references(source, system, rung.level, version)
        ):
            storage.settle_references(campaign.campaign_id, found)
            there.append(system)
    return there


def _version_now(campaign: "Campaign", rung: Rung) -> str | None:
    """Return the version that a set of known crystals would have if it were made now."""
    from pccd_workflows.known.competing import version_at

    if campaign.references.source != "known":
        return None
    return version_at(_first_level(campaign) if recomputes(campaign, rung) else rung.level)


def _first_level(campaign: "Campaign") -> str:
    """Return the level of the campaign's first potential: it chooses what DFT recomputes."""
    batched = (rung.level for rung in campaign.rungs if engine.engine_of(rung.level).batched)
    return next(batched, "chgnet")


def recomputes(campaign: "Campaign", rung: Rung) -> bool:
    """Return whether a rung's competing phases are computed with DFT, a job each."""
    source, level = campaign.references.source, get_level(rung.level)
    theirs = source == "materials_project" and level.materials_project
    return not (engine.engine_of(level).batched or theirs or source == "file")


def known_phases(campaign: "Campaign", chemsys: str, storage: Storage) -> ReferenceSet:
    """Return what the campaign's source knows of `chemsys`, at the level it knows it.

    That is MP's own for the Materials Project; else the level of the campaign's first potential.
    """
    from pccd_workflows.known.materials_project import fetch_reference_set

    if campaign.references.source == "materials_project":
        return fetch_reference_set(chemsys, snapshot=_snapshot(storage))
    level = _first_level(campaign)
    rung = next((one for one in campaign.rungs if one.level == level), Rung(level=level))
    there = settle(campaign, rung, [chemsys], storage)
    found = find(campaign, level, there, storage).get(chemsys)
    return found or build(campaign, rung, chemsys, storage)


@dataclass(frozen=True)
class Computing:
    """What computes a reference set's energies, and tells how far it is."""

    work: Work
    task: Task
    progress: Callable[[str, int, int], None]


def build(campaign: "Campaign", rung: Rung, chemsys: str, storage: Storage) -> ReferenceSet:
    """Return the competing phases of `chemsys` from the campaign's source at the rung's level.

    Raises
    ------
    InputError
        The source cannot be used at this level, or in this storage.
    """
    from pccd_workflows.known import materials_project
    from pccd_workflows.known.prototypes import build_reference_set
    from pccd_workflows.known.reference_files import load_reference_set, shipped_reference_set

    source, path = campaign.references.source, campaign.references.path
    level = get_level(rung.level)
    work = Work(storage, campaign.campaign_id)
    task = Task("relax", "reference", fmax=rung.fmax, steps=rung.steps)
    relax = partial(_relax, level=rung.level, work=work, task=task)

    def progress(what: str, done: int, total: int) -> None:
        work.note_progress(f"hull of {chemsys} at {rung.level}: {what}", done, total)

    if source == "file" and path is not None:
        computes = (
            relax if engine.engine_of(level).batched else None
        )  # DFT energies come with the file
        return load_reference_set(path, chemsys, rung.level, level.convention, relax=computes)
    if source == "materials_project":
        return materials_project.build_reference_set(
            chemsys,
            rung.level,
            relax=relax,
            snapshot=_snapshot(storage),
            progress=partial(progress, "phases"),
        )
    if source == "known":
        return _known(campaign, chemsys, rung.level, Computing(work, task, progress))
    if source == "prototypes":
        if (shipped := shipped_reference_set(chemsys, rung.level)) is not None:
            return shipped
        return build_reference_set(chemsys, rung.level, relax=relax, progress=progress)
    raise InputError(f"references.source {source!r} cannot be used at level {rung.level!r}.")


def _relax(structure: Structure, *, level: str, work: Work, task: Task) -> Relaxation:
    return engine.relax(structure, level, work, task)


def _known(
    campaign: "Campaign",
    chemsys: str,
    level: str,
    computing: "Computing",
) -> ReferenceSet:
    """Return the known phases: of the library and of imported sets; what they lack is computed."""
    from pccd_workflows.known.competing import Engines, engines_at, known_reference_set

    computes = engine.engine_of(level).batched
    return known_reference_set(
        chemsys,
        level,
        engines=engines_at(level, computing.work, computing.task) if computes else Engines(),
        imported=_imported(campaign, chemsys, computing.work.storage),
        progress=computing.progress,
    )


def _imported(campaign: "Campaign", chemsys: str, storage: Storage) -> "list[ImportedSet]":
    from pccd_workflows.known.competing import ImportedSet
    from pccd_workflows.known.sets import structures_in_system

    names = campaign.novelty.sets
    if not names:
        return []
    if storage.database is None:
        raise InputError("novelty.sets are kept in a database: submit with `pccd campaign run`.")
    database = storage.database
    return [ImportedSet(name, structures_in_system(database, name, chemsys)) for name in names]


def _snapshot(storage: Storage) -> "MongoSnapshot":
    from pccd_workflows.known.snapshots import MongoSnapshot

    if storage.database is None:
        raise InputError(
            "references.source 'materials_project' keeps its snapshot in a database: submit the "
            "campaign with `pccd campaign run`, or use another source."
        )
    return MongoSnapshot(storage.database)
