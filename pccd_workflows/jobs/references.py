"""See that every chemical system a rung needs has its competing phases, at the rung's level."""

from collections.abc import Iterable, Sequence
from functools import partial

from jobflow import Flow, Response

from pccd_workflows.campaign import Campaign, Rung
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.errors import InputError
from pccd_workflows.jobs.common import GPU, assign, plain_job, stage_database
from pccd_workflows.jobs.relax import relax_once
from pccd_workflows.levels import get_level
from pccd_workflows.reference import ReferenceSet


@plain_job
def prepare_references(
    campaign: Campaign, rung: Rung, outputs: list[StageOutput | None]
) -> Response[list[str]] | list[str]:
    """Return the chemical systems that cover all survivors, each with a stored reference set.

    Systems that have none yet are built, one job each.
    """
    from pccd_workflows.external.mongo import find_reference_set

    crystals = [crystal for output in outputs if output is not None for crystal in output.survivors]
    systems = covering_systems(campaign, crystals)
    database = stage_database()
    source = campaign.references.source
    missing = [s for s in systems if find_reference_set(database, source, s, rung.level) is None]
    if not missing:
        return systems
    builds = [assign(build_references(campaign, rung, system), GPU) for system in missing]
    for system, build in zip(missing, builds, strict=True):
        build.name = f"references {system} {rung.level}"
    present = [system for system in systems if system not in missing]
    return Response(replace=Flow(builds, output=present + [build.output for build in builds]))


@plain_job
def build_references(campaign: Campaign, rung: Rung, chemsys: str) -> str:
    """Compute or fetch the competing phases of `chemsys`, store them, and return `chemsys`."""
    from pccd_workflows.external.mongo import put_reference_set

    put_reference_set(stage_database(), make_reference_set(campaign, rung, chemsys))
    return chemsys


def make_reference_set(campaign: Campaign, rung: Rung, chemsys: str) -> ReferenceSet:
    """Return the competing phases of `chemsys` from the campaign's source at the rung's level."""
    from pccd_workflows.external import materials_project
    from pccd_workflows.external.prototypes import build_reference_set
    from pccd_workflows.external.reference_files import load_reference_set, shipped_reference_set
    from pccd_workflows.external.snapshots import MongoSnapshot

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
