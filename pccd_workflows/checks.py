"""What a campaign needs on this machine, checked before anything is stored or computed."""

from pathlib import Path

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.engine import Task, engine_of, level_for
from pccd_workflows.engines.levels import get_level
from pccd_workflows.execution import mongo
from pccd_workflows.generators.registry import open_generator
from pccd_workflows.settings import Settings
from pccd_workflows.stages.generate import source_versions


def preflight(campaign: Campaign, settings: Settings) -> list[str]:
    """Check everything a campaign needs on this machine before anything is stored.

    Returns
    -------
    Versions of the campaign's sources, in order.

    Raises
    ------
    InputError, MissingDependencyError
        One sentence: a source, an element, a level or a file is missing or does not fit.
    """
    for options in campaign.asked:
        open_generator(options).check()
    for name in levels_of(campaign):
        level = get_level(name)
        engine_of(level).check(level, campaign.elements, settings)
    for rung in campaign.rungs:
        if rung.band_structure:  # of a level of one's own that could not be asked before
            level_for(rung.level, Task("bands"))
    check_known_materials(campaign, settings)
    return source_versions(campaign)


def check_known_materials(campaign: Campaign, settings: Settings) -> None:
    """See that what competes and what novelty is measured against is there and can be used.

    Raises
    ------
    InputError
        A set is missing; a reference file cannot make a hull; an element has no known phase; or
        there is neither an API key nor a snapshot of the Materials Project.
    """
    source, path = campaign.references.source, campaign.references.path
    if campaign.novelty.sets:
        from pccd_workflows.known.sets import check_known_sets

        check_known_sets(mongo.database(settings), campaign.novelty.sets)
    if path is not None:
        check_reference_file(campaign, path)
    if source == "known":
        from pccd_workflows.known.competing import check_library

        # an imported set may have what the library lacks
        needed = [] if campaign.novelty.sets else campaign.elements
        check_library(needed, [rung.level for rung in campaign.rungs])
    if source == "materials_project":
        from pccd_workflows.known.mp_client import NO_KEY, has_api_key
        from pccd_workflows.known.snapshots import MongoSnapshot

        if not has_api_key() and not MongoSnapshot(mongo.database(settings)).versions():
            raise InputError(NO_KEY)


def check_reference_file(campaign: Campaign, path: Path) -> None:
    """See that a hull can be made at every rung of the phases in a file or folder.

    Raises
    ------
    InputError
        It is not there, or cannot.
    """
    from pccd_workflows.known import reference_files

    if not path.exists():
        raise InputError(f"references.path: there is no file or folder {path}.")
    for rung in campaign.rungs:
        level, chemsys = get_level(rung.level), "-".join(campaign.elements)
        computes = engine_of(level).batched
        reference_files.check_reference_file(
            path, chemsys, level.name, level.convention, computes=computes
        )


def levels_of(campaign: Campaign) -> list[str]:
    """Return every level of theory that a campaign computes at, in order."""
    section = campaign.phonons
    levels = [rung.level for rung in campaign.rungs]
    levels += filter(None, [section.level, section.confirm] if section else [])
    return list(dict.fromkeys(levels))
