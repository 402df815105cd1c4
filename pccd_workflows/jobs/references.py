"""See that every chemical system a rung needs has its competing phases, at the rung's level."""

from collections.abc import Iterable, Sequence
from functools import partial

from jobflow import Flow, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.engines.levels import MATERIALS_PROJECT_LEVEL, get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.jobs.common import GPU, assign, plain_job, stage_database
from pccd_workflows.jobs.dft import dft_job
from pccd_workflows.jobs.relax import relax_once
from pccd_workflows.stages.rung import Rung


@plain_job
def prepare_references(
    campaign: Campaign, rung: Rung, outputs: list[StageOutput | None]
) -> Response[list[str]] | list[str]:
    """Return the chemical systems that cover all survivors, each with a stored reference set.

    Systems that have none yet are built, one job each.
    """
    from pccd_workflows.execution.mongo import find_reference_set

    crystals = [crystal for output in outputs if output is not None for crystal in output.survivors]
    systems = covering_systems(campaign, crystals)
    database = stage_database()
    source = campaign.references.source
    missing = [s for s in systems if find_reference_set(database, source, s, rung.level) is None]
    if not missing:
        return systems
    if recomputes(campaign, rung):
        builds = [recompute_references(campaign, rung, system) for system in missing]
    else:
        builds = [assign(build_references(campaign, rung, system), GPU) for system in missing]
    for system, build in zip(missing, builds, strict=True):
        build.name = f"references {system} {rung.level}"
    present = [system for system in systems if system not in missing]
    return Response(replace=Flow(builds, output=present + [build.output for build in builds]))


@plain_job
def build_references(campaign: Campaign, rung: Rung, chemsys: str) -> str:
    """Compute or fetch the competing phases of `chemsys`, store them, and return `chemsys`."""
    from pccd_workflows.execution.mongo import put_reference_set

    put_reference_set(stage_database(), make_reference_set(campaign, rung, chemsys))
    return chemsys


def recomputes(campaign: Campaign, rung: Rung) -> bool:
    """Return whether a rung's competing phases are computed with DFT, a job each."""
    theirs = campaign.references.source == "materials_project" and (
        rung.level == MATERIALS_PROJECT_LEVEL
    )
    return get_level(rung.level).kind == "dft" and not (
        theirs or campaign.references.source == "file"
    )


@plain_job
def recompute_references(campaign: Campaign, rung: Rung, chemsys: str) -> Response[str]:
    """Compute the phases near the known hull of `chemsys` at a DFT level; return `chemsys`.

    One that is lost holds the hull back until it is run again: without it, crystals would look
    stabler than they are.
    """
    from pccd_workflows.execution.mongo import put_reference_set
    from pccd_workflows.known.materials_project import RECOMPUTED_ABOVE_HULL, choose_phases

    known = known_phases(campaign, chemsys)
    reference_id = put_reference_set(stage_database(), known)
    chosen = choose_phases(known, RECOMPUTED_ABOVE_HULL, rung.budget.references)
    crystals = [
        Crystal(candidate_id=entry.entry_id, structure=entry.structure)
        for entry in chosen
        if entry.structure is not None
    ]
    jobs = [dft_job(crystal, rung.level, None, "reference") for crystal in crystals]
    ids = [crystal.candidate_id for crystal in crystals]
    gather = gather_references(rung, reference_id, ids, [job.output for job in jobs])
    gather.name = f"references {chemsys} {rung.level}"
    return Response(replace=Flow([*jobs, gather], output=gather.output))


@plain_job
def gather_references(
    rung: Rung, known_id: str, entry_ids: list[str], relaxations: list[Relaxation]
) -> str:
    """Store the recomputed phases of the reference set `known_id`; return its chemical system."""
    from pccd_workflows.execution.mongo import get_reference_set, put_reference_set
    from pccd_workflows.known.materials_project import RECOMPUTED_ABOVE_HULL, recomputed

    database = stage_database()
    known = get_reference_set(database, known_id)
    if known is None:
        raise InputError(f"The reference set {known_id} is gone; run `pccd campaign resume`.")
    settings = {
        "max_energy_above_hull": RECOMPUTED_ABOVE_HULL,
        "at_most": rung.budget.references,
    }
    by_id = dict(zip(entry_ids, relaxations, strict=True))
    put_reference_set(database, recomputed(known, rung.level, by_id, settings))
    return known.chemsys


def known_phases(campaign: Campaign, chemsys: str) -> ReferenceSet:
    """Return what the campaign's source knows of `chemsys`, at the level it knows it.

    That is MP's own for the Materials Project; for prototypes the campaign's first potential.
    """
    from pccd_workflows.execution.mongo import find_reference_set
    from pccd_workflows.known.materials_project import fetch_reference_set
    from pccd_workflows.known.snapshots import MongoSnapshot

    if campaign.references.source == "materials_project":
        return fetch_reference_set(chemsys, snapshot=MongoSnapshot(stage_database()))
    rungs = [rung for rung in campaign.rungs if get_level(rung.level).kind == "potential"]
    rung = rungs[0] if rungs else Rung(level="chgnet")
    found = find_reference_set(stage_database(), campaign.references.source, chemsys, rung.level)
    return found or make_reference_set(campaign, rung, chemsys)


def make_reference_set(campaign: Campaign, rung: Rung, chemsys: str) -> ReferenceSet:
    """Return the competing phases of `chemsys` from the campaign's source at the rung's level."""
    from pccd_workflows.known import materials_project
    from pccd_workflows.known.prototypes import build_reference_set
    from pccd_workflows.known.reference_files import load_reference_set, shipped_reference_set
    from pccd_workflows.known.snapshots import MongoSnapshot

    source, path = campaign.references.source, campaign.references.path
    level = get_level(rung.level)
    relax = partial(relax_once, level=rung.level, fmax=rung.fmax, steps=rung.steps)
    if source == "file" and path is not None:
        computes = relax if level.kind == "potential" else None  # DFT energies come with the file
        return load_reference_set(path, chemsys, rung.level, level.convention, relax=computes)
    if source == "materials_project":
        return materials_project.build_reference_set(
            chemsys, rung.level, relax=relax, snapshot=MongoSnapshot(stage_database())
        )
    if source == "prototypes":
        if (shipped := shipped_reference_set(chemsys, rung.level)) is not None:
            return shipped
        return build_reference_set(chemsys, rung.level, relax=relax)
    raise InputError(f"references.source {source!r} cannot be used at level {rung.level!r}.")


def covering_systems(campaign: Campaign, crystals: Sequence[Crystal]) -> list[str]:
    """Return the fewest chemical systems whose hulls hold every crystal.

    A campaign with one set of elements has one system; otherwise the crystals' own systems that
    are no part of another.
    """
    if campaign.generate.elements is not None:
        return ["-".join(sorted(campaign.generate.elements))]
    return maximal_systems(crystal.structure.chemical_system for crystal in crystals)


def maximal_systems(systems: Iterable[str]) -> list[str]:
    """Return the systems that are not contained in another one of `systems`, sorted."""
    sets = sorted({frozenset(s.split("-")) for s in systems}, key=lambda s: (-len(s), sorted(s)))
    kept: list[frozenset[str]] = []
    for elements in sets:
        if not any(elements < other for other in kept):
            kept.append(elements)
    return sorted("-".join(sorted(elements)) for elements in kept)


def covering_system(chemsys: str, systems: Iterable[str]) -> str | None:
    """Return the first of `systems` that contains `chemsys`, or None."""
    elements = set(chemsys.split("-"))
    return next((s for s in sorted(systems) if elements <= set(s.split("-"))), None)
