"""Which crystals are the same, and which are known: before and after they are relaxed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.core.storage import Storage
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.matching.groups import group
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings
from pccd_workflows.settings import get_settings
from pccd_workflows.stages.references import find as find_references

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pccd_workflows.campaign import Campaign

Crystals = Mapping[str, Structure]
"""Crystals by the id of their candidate; of equal ones the first is kept."""


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
    frameworks
        Whether new crystals are also told whether their structure type is known.
    """

    campaign: "Campaign"
    storage: Storage
    systems: Sequence[str] = field(default_factory=list)
    frameworks: bool = False


def judge_novelty(crystals: Crystals, compared: Compared) -> dict[str, Novelty]:
    """Return for each crystal whether it repeats an earlier one of them, and who knows it."""
    duplicates = find_duplicates(crystals, compared.campaign.novelty.matcher)
    unique = {name: crystal for name, crystal in crystals.items() if name not in duplicates}
    known = _known_sets(unique, compared) if unique else {}
    return {
        name: Novelty(duplicate_of=duplicates.get(name), sets=known.get(name, {}))
        for name in crystals
    }


def goes_on(campaign: "Campaign", novelty: Novelty) -> bool:
    """Return whether a crystal with this verdict stays in the funnel."""
    return novelty.duplicate_of is None and (campaign.novelty.keep_known or novelty.novel)


def known_in(novelty: Novelty) -> str:
    """Return the names of the sets that know a crystal."""
    return ", ".join(name for name, found in novelty.sets.items() if found.known)


def find_duplicates(crystals: Crystals, settings: MatcherSettings) -> dict[str, str]:
    """Return the id of the crystal kept instead, by the id of each duplicate."""
    names = list(crystals)
    duplicates = {}
    for members in group(list(crystals.values()), settings=settings):
        kept, *others = sorted(members)
        for other in others:
            duplicates[names[other]] = names[kept]
    return duplicates


def match_known(
    crystals: Crystals, known: KnownCrystals, *, frameworks: bool = False
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


def _known_sets(crystals: Crystals, compared: Compared) -> Mapping[str, dict[str, SetNovelty]]:
    section = compared.campaign.novelty
    verdicts: dict[str, dict[str, SetNovelty]] = defaultdict(dict)
    look_up = {"references": _in_references, "training": _in_training, "history": _in_history}
    for name in section.against:
        for candidate_id, verdict in look_up[name](crystals, compared).items():
            verdicts[candidate_id][name] = verdict
    for imported in section.sets:
        for candidate_id, verdict in _in_imported_set(imported, crystals, compared).items():
            verdicts[candidate_id][imported] = verdict
    return verdicts


def _match(
    crystals: Crystals, known: Iterable[tuple[str, Structure]], compared: Compared
) -> dict[str, SetNovelty]:
    index = KnownCrystals(known, settings=compared.campaign.novelty.matcher)
    return match_known(crystals, index, frameworks=compared.frameworks)


def _formulas(crystals: Crystals) -> list[str]:
    return sorted({crystal.composition.reduced_formula for crystal in crystals.values()})


def _in_history(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    campaign_id = compared.campaign.campaign_id
    others = compared.storage.history(campaign_id, _formulas(crystals))
    return _match(crystals, others, compared)


def _in_references(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    campaign, storage = compared.campaign, compared.storage
    source = campaign.references.source
    if source == "known":
        return _in_library(crystals, compared)
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


def _in_library(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    """Compare with the whole library of known crystals, those far above the hull, too."""
    from pccd_workflows.known.identify import Identifier, KindOfNew
    from pccd_workflows.known.library import library

    known, settings = library(), compared.campaign.novelty.matcher
    identifier = Identifier(known, settings)
    structures = list(crystals.values())
    if compared.frameworks:
        kinds = identifier.kinds_of_new(structures)
    else:
        found = identifier.find_known(structures)
        kinds = [KindOfNew("duplicate" if i else "new structure type", i) for i in found]
    note = f"{len(known)} crystals of the library {known.version}"
    return {
        name: SetNovelty(
            known=kind.kind == "duplicate",
            matched_id=kind.known_id if kind.kind == "duplicate" else None,
            method=_method(settings),
            note=note,
            framework_id=kind.known_id if kind.kind == "substitution" else None,
        )
        for name, kind in zip(crystals, kinds, strict=True)
    }


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

    database = compared.storage.database
    known_set = None if database is None else find_known_set(database, name)
    if database is None or known_set is None or not known_set.complete:
        note = f"there is no complete set {name!r} in the database any more"
        unknown = SetNovelty(known=None, method="not compared", note=note)
        return dict.fromkeys(crystals, unknown)
    settings, frameworks = compared.campaign.novelty.matcher, compared.frameworks
    index = find_index(database, known_set, get_settings().data_dir / "known", settings)
    if index is None:  # too large for this machine's memory: those of the same formulas alone
        structures = known_structures(database, name, set(_formulas(crystals)))
        index, frameworks = KnownCrystals(structures, settings=settings), False
    found = match_known(crystals, index, frameworks=frameworks)
    return {key: v.model_copy(update={"note": known_set.note}) for key, v in found.items()}


def _in_training(crystals: Crystals, compared: Compared) -> dict[str, SetNovelty]:
    from pccd_workflows.generators.pccd.checkpoint import find_model
    from pccd_workflows.generators.pccd.training_index import load_training_index

    models, settings = compared.campaign.models, get_settings()
    found = [load_training_index(find_model(model, settings)) for model in models]
    note = "the model ships no training index" if found else "no source was trained"
    return match_training(crystals, [index for index in found if index is not None], note=note)


def match_training(
    crystals: Crystals, indices: "Sequence[NDArray[np.int64]]", *, note: str | None = None
) -> dict[str, SetNovelty]:
    """Look crystals up in the training indices of models; without any, `note` says why."""
    from pccd_workflows.generators.pccd.training_index import in_training

    method = "same reduced formula, space group and number of sites in the primitive cell"
    if not indices:
        unknown = SetNovelty(known=None, method=method, note=note)
        return dict.fromkeys(crystals, unknown)
    return {
        name: SetNovelty(known=any(in_training(crystal, i) for i in indices), method=method)
        for name, crystal in crystals.items()
    }
