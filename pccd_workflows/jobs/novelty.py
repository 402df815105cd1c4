"""Which crystals of a campaign are the same, and which are known: before and after relaxation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal
from pccd_workflows.jobs.common import stage_database
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.matching.groups import group
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from pymongo.database import Database


def judge_novelty(
    campaign: Campaign,
    crystals: Sequence[Crystal],
    reference_systems: Sequence[str],
    *,
    frameworks: bool = False,
) -> dict[str, Novelty]:
    """Return for each crystal whether it repeats an earlier one of them, and who knows it.

    The first of a group of equal crystals is the one that is kept. With `frameworks`, new crystals
    are also told whether their structure type is known.
    """
    duplicates = find_duplicates(crystals, campaign.novelty.matcher)
    unique = [crystal for crystal in crystals if crystal.candidate_id not in duplicates]
    known = _known_sets(campaign, unique, reference_systems, frameworks=frameworks)
    return {
        crystal.candidate_id: Novelty(
            duplicate_of=duplicates.get(crystal.candidate_id),
            sets=known.get(crystal.candidate_id, {}),
        )
        for crystal in crystals
    }


def goes_on(campaign: Campaign, novelty: Novelty) -> bool:
    """Return whether a crystal with this verdict stays in the funnel."""
    return novelty.duplicate_of is None and (campaign.novelty.keep_known or novelty.novel)


def find_duplicates(crystals: Sequence[Crystal], settings: MatcherSettings) -> dict[str, str]:
    """Return the id of the crystal kept instead, by the id of each duplicate."""
    groups = group([crystal.structure for crystal in crystals], settings=settings)
    duplicates = {}
    for members in groups:
        kept, *others = sorted(members)
        for other in others:
            duplicates[crystals[other].candidate_id] = crystals[kept].candidate_id
    return duplicates


def match_known(
    crystals: Sequence[Crystal], known: KnownCrystals, *, frameworks: bool = False
) -> dict[str, SetNovelty]:
    """Compare crystals with known ones by structure; return a verdict for each.

    With `frameworks`, those that are new are compared once more, whatever their species.
    """
    settings = known.settings
    method = (
        f"StructureMatcher(ltol={settings.ltol}, stol={settings.stol}, "
        f"angle_tol={settings.angle_tol}), symmetric"
    )
    matches = known.find_all([crystal.structure for crystal in crystals])
    new = [crystal for crystal, match in zip(crystals, matches, strict=True) if match is None]
    types = known.find_frameworks([c.structure for c in new]) if frameworks else [None] * len(new)
    framework = {c.candidate_id: found for c, found in zip(new, types, strict=True)}
    return {
        crystal.candidate_id: SetNovelty(
            known=match is not None,
            matched_id=match,
            method=method,
            framework_id=framework.get(crystal.candidate_id),
        )
        for crystal, match in zip(crystals, matches, strict=True)
    }


def _known_sets(
    campaign: Campaign,
    crystals: Sequence[Crystal],
    reference_systems: Sequence[str],
    *,
    frameworks: bool = False,
) -> Mapping[str, dict[str, SetNovelty]]:
    database = stage_database()
    verdicts: dict[str, dict[str, SetNovelty]] = defaultdict(dict)
    for name in campaign.novelty.against:
        if name == "training":
            found = _in_training(campaign, crystals)
        else:
            known = (
                _reference_structures(database, campaign, crystals, reference_systems)
                if name == "references"
                else _history(database, campaign, crystals)
            )
            index = KnownCrystals(known, settings=campaign.novelty.matcher)
            found = match_known(crystals, index, frameworks=frameworks)
        for candidate_id, verdict in found.items():
            verdicts[candidate_id][name] = verdict
    for imported in campaign.novelty.sets:
        found = _in_known_set(database, imported, campaign, crystals, frameworks=frameworks)
        for candidate_id, verdict in found.items():
            verdicts[candidate_id][imported] = verdict
    return verdicts


def _in_known_set(
    database: "Database[dict[str, Any]]",
    name: str,
    campaign: Campaign,
    crystals: Sequence[Crystal],
    *,
    frameworks: bool,
) -> dict[str, SetNovelty]:
    from pccd_workflows.known.index import find_index
    from pccd_workflows.known.sets import find_known_set, known_structures

    known_set = find_known_set(database, name)
    if known_set is None or not known_set.complete:
        note = f"there is no complete set {name!r} in the database any more"
        unknown = SetNovelty(known=None, method="not compared", note=note)
        return {crystal.candidate_id: unknown for crystal in crystals}
    settings = campaign.novelty.matcher
    index = find_index(database, known_set, get_settings().data_dir / "known", settings)
    if index is None:  # too large for this machine's memory: those of the same formulas alone
        formulas = {c.structure.composition.reduced_formula for c in crystals}
        index = KnownCrystals(known_structures(database, name, formulas), settings=settings)
        frameworks = False
    found = match_known(crystals, index, frameworks=frameworks)
    return {key: v.model_copy(update={"note": known_set.note}) for key, v in found.items()}


def _reference_structures(
    database: "Database[dict[str, Any]]",
    campaign: Campaign,
    crystals: Sequence[Crystal],
    systems: Sequence[str],
) -> Iterable[tuple[str, Structure]]:
    from pccd_workflows.execution.mongo import find_reference_set

    if campaign.references.source == "materials_project":
        # MP knows also the phases that lie too high to be recomputed for a rung's hull
        kept = _materials_project_structures(database, crystals)
        if kept is not None:
            yield from kept
            return
    for chemsys in systems:
        references = find_reference_set(
            database, campaign.references.source, chemsys, campaign.rungs[0].level
        )
        for entry in references.entries if references else []:
            if entry.structure is not None:
                yield entry.entry_id, entry.structure


def _materials_project_structures(
    database: "Database[dict[str, Any]]", crystals: Sequence[Crystal]
) -> list[tuple[str, Structure]] | None:
    """Return all that MP has of the crystals' systems; None if they are not in the snapshot."""
    from pccd_workflows.known.snapshots import MongoSnapshot

    snapshot = MongoSnapshot(database)
    systems = sorted({crystal.structure.chemical_system for crystal in crystals})
    version = snapshot.complete_version(systems)
    if version is None:
        return None
    entries = snapshot.entries(version, systems)
    return [(e.entry_id, e.structure) for e in entries if e.structure is not None]


def _history(
    database: "Database[dict[str, Any]]", campaign: Campaign, crystals: Sequence[Crystal]
) -> Iterable[tuple[str, Structure]]:
    """Yield the relaxed crystals of other campaigns that share a formula with `crystals`."""
    formulas = sorted({c.structure.composition.reduced_formula for c in crystals})
    query = {
        "formula_pretty": {"$in": formulas},
        "campaign_id": {"$ne": campaign.campaign_id},
        "novelty.duplicate_of": None,
        "structure": {"$ne": None},
        "stage": {"$nin": ["generate", "screen"]},
    }
    for document in database["candidates"].find(query, {"structure": 1}):
        yield document["_id"], Structure.from_dict(document["structure"])


def _in_training(campaign: Campaign, crystals: Sequence[Crystal]) -> dict[str, SetNovelty]:
    from pccd_workflows.generators.pccd.checkpoint import find_model
    from pccd_workflows.generators.pccd.training_index import in_training, load_training_index

    index = load_training_index(find_model(campaign.generate.model, get_settings()))
    method = "same reduced formula, space group and number of sites in the primitive cell"
    if index is None:
        unknown = SetNovelty(known=None, method=method, note="the model ships no training index")
        return {crystal.candidate_id: unknown for crystal in crystals}
    return {
        crystal.candidate_id: SetNovelty(known=in_training(crystal.structure, index), method=method)
        for crystal in crystals
    }
