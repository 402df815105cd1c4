"""Which crystals are the same, and which are known: before and after they are relaxed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.core.storage import Storage
from pccd_workflows.known.novelty import LIBRARY, Novelty, SetNovelty
from pccd_workflows.matching.settings import MatcherSettings
from pccd_workflows.settings import get_settings
from pccd_workflows.stages.references import find as find_references

if TYPE_CHECKING:
    from pathlib import Path

    from pccd_workflows.campaign import Campaign
    from pccd_workflows.matching.known_crystals import KnownCrystals
    from pccd_workflows.stages.stage import Records

Crystals = Mapping[str, Structure]
"""Crystals by the id of their candidate; of equal ones the first is kept."""
LookUp = Callable[[Crystals], Mapping[str, SetNovelty]]
"""Compares crystals with one named set of known ones."""


@dataclass(frozen=True)
class Compared:
    """What a campaign compares its crystals with.

    Attributes
    ----------
    campaign
        Its section ``novelty`` names the sets.
    storage
        Where they are.
    systems
        Chemical systems whose competing phases are stored.
    kinds
        Whether new crystals are also told whether their structure type is known.
    """

    campaign: "Campaign"
    storage: Storage
    systems: Sequence[str] = field(default_factory=list)
    kinds: bool = False


def judge_novelty(crystals: Crystals, compared: Compared) -> dict[str, Novelty]:
    """Return for each crystal whether it repeats an earlier one of them, and who knows it."""
    section = compared.campaign.novelty
    look_ups: dict[str, LookUp] = {}
    if section.library:
        look_ups[LIBRARY] = partial(in_library, settings=section.matcher, kinds=compared.kinds)
    of_name = {"references": _in_references, "training": _in_training, "history": _in_history}
    for name in section.against:
        if name != "references" or not _is_library(compared):
            look_ups[name] = partial(of_name[name], compared=compared)
    for imported in section.sets:
        look_ups[imported] = partial(_in_imported_set, imported, compared=compared)
    duplicates = find_duplicates(crystals, section.matcher)
    unique = {name: crystal for name, crystal in crystals.items() if name not in duplicates}
    found = look_up(unique, look_ups, kinds=compared.kinds)
    return {name: found.get(name, Novelty(duplicate_of=duplicates.get(name))) for name in crystals}


def look_up(
    crystals: Crystals, look_ups: Mapping[str, LookUp], *, kinds: bool = False
) -> dict[str, Novelty]:
    """Return for each crystal which sets know it.

    kinds: whether the verdicts say what kind of new crystal each is.
    """
    sets: dict[str, dict[str, SetNovelty]] = {name: {} for name in crystals}
    for name, compare in look_ups.items():
        for candidate_id, verdict in (compare(crystals) if crystals else {}).items():
            sets[candidate_id][name] = verdict
    found = {name: Novelty(sets=of_name) for name, of_name in sets.items()}
    return {name: one.with_kind() for name, one in found.items()} if kinds else found


def novelty_of(records: "Records") -> Novelty | None:
    """Return the verdict on a candidate by its records, in order; None if it was not compared.

    That on its latest structure; a crystal that was known before it was relaxed stays known.
    """
    verdict: Novelty | None = None
    for record in records.values():
        found = record if isinstance(record, Novelty) else getattr(record, "novelty", None)
        if isinstance(found, Novelty):
            verdict = found.after(verdict)
    return verdict


def goes_on(campaign: "Campaign", novelty: Novelty) -> bool:
    """Return whether a crystal with this verdict stays in the funnel."""
    return novelty.duplicate_of is None and (campaign.novelty.keep_known or novelty.novel)


def known_in(novelty: Novelty) -> str:
    """Return the names of the sets that know a crystal."""
    return ", ".join(name for name, found in novelty.sets.items() if found.known)


def find_duplicates(crystals: Crystals, settings: MatcherSettings) -> dict[str, str]:
    """Return the id of the crystal kept instead, by the id of each duplicate."""
    from pccd_workflows.matching.groups import group

    names = list(crystals)
    duplicates = {}
    for members in group(list(crystals.values()), settings=settings):
        kept, *others = sorted(members)
        for other in others:
            duplicates[names[other]] = names[kept]
    return duplicates


def match_known(
    crystals: Crystals, known: "KnownCrystals", *, frameworks: bool = False
) -> dict[str, SetNovelty]:
    """Compare crystals with known ones by structure; return a verdict for each.

    With `frameworks`, those that are new are compared once more, whatever their species.
    """
    method = _method(known.settings)
    matches = dict(zip(crystals, known.find_all(list(crystals.values())), strict=True))
    new = [name for name, match in matches.items() if match is None]
    types = known.find_frameworks([crystals[name] for name in new]) if frameworks else []
    framework = dict(zip(new, types, strict=False))
    return {
        name: SetNovelty(
            known=match is not None,
            matched_id=match,
            method=method,
            framework_id=framework.get(name),
        )
        for name, match in matches.items()
    }


def _method(settings: MatcherSettings) -> str:
    return (
        f"StructureMatcher(ltol={settings.ltol}, stol={settings.stol}, "
        f"angle_tol={settings.angle_tol}), symmetric"
    )


def _match(
    crystals: Crystals, known: Iterable[tuple[str, Structure]], compared: Compared
) -> dict[str, SetNovelty]:
    from pccd_workflows.matching.known_crystals import KnownCrystals

    index = KnownCrystals(known, settings=compared.campaign.novelty.matcher)
    return match_known(crystals, index, frameworks=compared.kinds)


def _formulas(crystals: Crystals) -> list[str]:
    return sorted({crystal.composition.reduced_formula for crystal in crystals.values()})


def _in_history(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    campaign_id = compared.campaign.campaign_id
    others = compared.storage.history(campaign_id, _formulas(crystals))
    return _match(crystals, others, compared)


def _is_library(compared: Compared) -> bool:
    """Return whether the competing phases are those of a library that is looked up anyway."""
    campaign = compared.campaign
    return campaign.novelty.library and campaign.references.source == "known"


def _in_references(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    campaign, storage = compared.campaign, compared.storage
    source = campaign.references.source
    if source == "materials_project":
        # MP knows also the phases that lie too high to be recomputed for a rung's hull
        kept = _materials_project_structures(crystals, storage)
        if kept is not None:
            return _match(crystals, kept, compared)
    sets = find_references(campaign, campaign.rungs[0].level, compared.systems, storage)
    known = (
        (entry.entry_id, entry.structure)
        for found in sets.values()
        for entry in found.entries
        if entry.structure is not None
    )
    return _match(crystals, known, compared)


def in_library(
    crystals: Crystals, *, settings: MatcherSettings, kinds: bool = False
) -> dict[str, SetNovelty]:
    """Compare with the whole library of known crystals, those far above the hull, too.

    With `kinds`, those that are new are compared once more, whatever their species.
    """
    from pccd_workflows.known.identify import KindOfNew, identifier

    known = identifier(settings)
    structures = list(crystals.values())
    if kinds:
        found = known.kinds_of_new(structures)
    else:
        matches = known.find_known(structures)
        found = [KindOfNew("duplicate" if i else "new_structure_type", i) for i in matches]
    note = f"{len(known.library)} crystals of the library {known.library.version}"
    return {
        name: SetNovelty(
            known=kind.kind == "duplicate",
            matched_id=kind.known_id if kind.kind == "duplicate" else None,
            method=_method(settings),
            note=note,
            framework_id=kind.known_id if kind.kind == "substitution" else None,
        )
        for name, kind in zip(crystals, found, strict=True)
    }


def in_training_split(crystals: Crystals, *, settings: MatcherSettings) -> dict[str, SetNovelty]:
    """Compare with the crystals of the library that may train."""
    from pccd_workflows.known.identify import identifier

    known = identifier(settings).library
    found = {}
    for name, verdict in in_library(crystals, settings=settings).items():
        matched = verdict.matched_id
        # a chemical system belongs to one split, and with it all crystals that match
        trained = matched is not None and known.get(matched).split == "train"
        note = f"training split of the library {known.version}"
        update = {"known": trained, "matched_id": matched if trained else None, "note": note}
        found[name] = verdict.model_copy(update=update)
    return found


def _materials_project_structures(
    crystals: Crystals, storage: Storage
) -> list[tuple[str, Structure]] | None:
    """Return all that MP has of the crystals' systems; None if they are not in the snapshot."""
    from pccd_workflows.known.snapshots import MongoSnapshot

    if storage.database is None:
        return None
    snapshot = MongoSnapshot(storage.database)
    systems = sorted({crystal.chemical_system for crystal in crystals.values()})
    version = snapshot.complete_version(systems)
    if version is None:
        return None
    entries = snapshot.entries(version, systems)
    return [(e.entry_id, e.structure) for e in entries if e.structure is not None]


def _in_imported_set(name: str, crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    from pccd_workflows.known.index import find_index
    from pccd_workflows.known.sets import find_known_set, known_structures
    from pccd_workflows.matching.known_crystals import KnownCrystals

    database = compared.storage.database
    known_set = None if database is None else find_known_set(database, name)
    if database is None or known_set is None or not known_set.complete:
        note = f"there is no complete set {name!r} in the database any more"
        unknown = SetNovelty(known=None, method="not compared", note=note)
        return dict.fromkeys(crystals, unknown)
    settings, frameworks = compared.campaign.novelty.matcher, compared.kinds
    index = find_index(database, known_set, get_settings().data_dir / "known", settings)
    if index is None:  # too large for this machine's memory: those of the same formulas alone
        structures = known_structures(database, name, set(_formulas(crystals)))
        index, frameworks = KnownCrystals(structures, settings=settings), False
    found = match_known(crystals, index, frameworks=frameworks)
    return {key: v.model_copy(update={"note": known_set.note}) for key, v in found.items()}


def _in_training(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    """Compare with the training crystals of the campaign's models, the first that knows first."""
    from pccd_workflows.generators.pccd.checkpoint import find_model

    models, settings = compared.campaign.models, compared.campaign.novelty.matcher
    if not models:
        unknown = SetNovelty(known=None, method="not compared", note="no source was trained")
        return dict.fromkeys(crystals, unknown)
    found: dict[str, SetNovelty] = {}
    for model in models:
        folder = find_model(model, get_settings())
        for name, verdict in match_training(crystals, folder, settings).items():
            if name not in found or (verdict.known and not found[name].known):
                found[name] = verdict
    return found


def match_training(
    crystals: Crystals, folder: "Path", settings: MatcherSettings
) -> Mapping[str, SetNovelty]:
    """Compare crystals with those that the model in a folder was trained on."""
    from pccd_workflows.generators.pccd.training_crystals import (
        read_training_crystals,
        trained_on_library,
    )

    own = read_training_crystals(folder, settings)
    if own is not None:
        note = f"{len(own)} training crystals of {folder.name}"
        found = match_known(crystals, own)
        return {key: v.model_copy(update={"note": note}) for key, v in found.items()}
    if trained_on_library(folder):
        return in_training_split(crystals, settings=settings)
    note = f"the model {folder.name} does not say what it was trained on"
    return dict.fromkeys(crystals, SetNovelty(known=None, method="not compared", note=note))
