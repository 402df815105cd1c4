"""The Materials Project: competing phases with MP2020-corrected PBE(+U) energies, as snapshots.

Everything comes from the REST route ``/materials/thermo`` with the thermo type stated: the client's
own default is a hull that mixes functionals, and a search without filter would leave REST for S3.
A snapshot is what one database version says; the parts of two versions are never mixed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.systems import subsystems
from pccd_workflows.engines.levels import MATERIALS_PROJECT_LEVEL, get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.mp_client import THERMO_TYPE, Client
from pccd_workflows.known.snapshots import MemorySnapshot, Snapshot, content_hash

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedStructureEntry

SOURCE = "materials_project"
NEAR_IN_SOURCE = 0.1
"""eV/atom above the known hull: phases below it are computed at another level. Errors of an ML
potential relative to PBE are smaller than this for most compounds, so what lies higher hardly
carries the level's hull."""
URL_BUDGET = 1500
"""Characters of chemical systems in one request; servers refuse URLs beyond some 8000 (414)."""
MAX_VOLUME_PER_ATOM = 150.0
"""Å^3. MP serves some 1,900 compounds that were never relaxed, at about 200 Å^3 per atom; real
crystals of compounds stay far below."""
Progress = Callable[[int, int], None]
"""Called with what is done and the total."""


def fetch_reference_set(
    chemsys: str,
    *,
    snapshot: Snapshot | None = None,
    refresh: bool = False,
    client: Client | None = None,
    progress: Progress | None = None,
) -> ReferenceSet:
    """Return MP's phases of a chemical system and its subsystems, energies MP2020-corrected.

    The server is asked only if `snapshot` lacks a subsystem: then for what it lacks of the
    database's present version. The uncorrected energy, the correction and what a correction
    scheme needs (run type, Hubbard U, oxidation states) stay in each entry's ``data``.

    Parameters
    ----------
    chemsys
        Symbols joined by '-', e.g. ``Mg-Mn-O``.
    snapshot
        Where fetched entries are kept and looked up; nowhere if left out.
    refresh
        Ask for the present version even if an earlier one is complete.
    client
        The server to ask; MP's if left out.
    progress
        Called with the subsystems that are there and their number.

    Raises
    ------
    InputError
        No API key, or a wrong one; or an element of which MP has no phase.
    HttpError, PccdError
        The server cannot be reached, or its answers have changed.
    """
    systems = ["-".join(part) for part in subsystems(chemsys.split("-"))]
    snapshot = MemorySnapshot() if snapshot is None else snapshot
    version = None if refresh else snapshot.complete_version(systems)
    if version is None:
        version = fetch_systems(systems, snapshot, client or Client(), progress)
    kept = snapshot.entries(version, systems)
    entries = [entry for entry in kept if not _never_relaxed(entry)]
    missing = set(chemsys.split("-")) - _elements(entries)
    if missing:
        raise InputError(
            f"The Materials Project (version {version}) has no elemental phase of "
            f"{', '.join(sorted(missing))}: there is no hull of {chemsys}."
        )
    return ReferenceSet(
        source=SOURCE,
        chemsys="-".join(sorted(set(chemsys.split("-")))),
        level=MATERIALS_PROJECT_LEVEL,
        convention="mp2020",
        source_version=version,
        settings={
            "thermo_type": THERMO_TYPE,
            "content_sha256": content_hash(entries),
            "left_out": sorted({e.entry_id for e in kept} - {e.entry_id for e in entries}),
        },
        entries=entries,
        missing=[],
        created_at=datetime.now(UTC),
    )


def build_reference_set(
    chemsys: str,
    level: str,
    *,
    relax: Callable[[Structure], Relaxation],
    snapshot: Snapshot | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
) -> ReferenceSet:
    """Return MP's phases of a chemical system with their energies at `level`.

    At MP's own level the energies are MP's; at any other the phases near MP's hull are relaxed.

    Parameters
    ----------
    chemsys
        Symbols joined by '-'.
    level
        Level of theory by name.
    relax
        Relaxes a crystal at `level`; where the caller looks up what was computed before.
    snapshot, client
        As in `fetch_reference_set`.
    progress
        Called with the phases that are relaxed and their number.

    Raises
    ------
    InputError
        As in `fetch_reference_set` and `recompute`.
    """
    known = fetch_reference_set(chemsys, snapshot=snapshot, client=client)
    if level == MATERIALS_PROJECT_LEVEL:
        return known
    return recompute(known, level, relax=relax, progress=progress)


def recompute(
    known: ReferenceSet,
    level: str,
    *,
    relax: Callable[[Structure], Relaxation],
    max_energy_above_hull: float = NEAR_IN_SOURCE,
    progress: Progress | None = None,
) -> ReferenceSet:
    """Return the phases near the hull of `known`, relaxed at `level`.

    What a model gets wrong about all phases then cancels in the hull. Phases that cannot be
    relaxed are left out and named in the settings.

    Parameters
    ----------
    known
        Phases with energies at another level.
    level
        Level of theory by name.
    relax
        Relaxes a crystal at `level`.
    max_energy_above_hull
        eV/atom above the hull of `known`, at most.
    progress
        Called with the phases that are done and their number.

    Raises
    ------
    InputError
        No elemental phase of an element could be relaxed.
    """
    chosen = near_hull(known, max_energy_above_hull)
    relaxations: dict[str, Relaxation] = {}
    for count, entry in enumerate(chosen, start=1):
        if entry.structure is None:
            raise InputError(f"Reference {entry.entry_id} has no structure to relax.")
        relaxations[entry.entry_id] = relax(entry.structure)
        if progress is not None:
            progress(count, len(chosen))
    settings = {"max_energy_above_hull": max_energy_above_hull}
    return recomputed(known, level, relaxations, settings)


def recomputed(
    known: ReferenceSet,
    level: str,
    relaxations: Mapping[str, Relaxation],
    settings: Mapping[str, Any],
) -> ReferenceSet:
    """Return the phases of `known` with what relaxing them at `level` gave.

    Parameters
    ----------
    relaxations
        By entry id.
    settings
        How the phases were chosen.

    Raises
    ------
    InputError
        No elemental phase of an element could be relaxed.
    """
    entries, left_out = [], {}
    for entry_id, relaxation in relaxations.items():
        if relaxation.usable and relaxation.structure is not None and relaxation.energy is not None:
            entries.append(
                ReferenceEntry(
                    entry_id=entry_id,
                    formula=relaxation.structure.composition.formula,
                    energy=relaxation.energy,
                    structure=relaxation.structure,
                    data={"relaxation": relaxation.key, "verdict": relaxation.verdict},
                )
            )
        else:
            left_out[entry_id] = relaxation.reason or relaxation.verdict
    if missing := set(known.chemsys.split("-")) - _elements(entries):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(
            f"No elemental phase of {', '.join(sorted(missing))} could be relaxed at {level!r} "
            f"({reasons or 'there is none'})."
        )
    return ReferenceSet(
        source=known.source,
        chemsys=known.chemsys,
        level=level,
        convention=get_level(level).convention,
        source_version=known.source_version,
        settings={
            "structures_of": known.reference_id,
            **settings,
            "not_usable": left_out,
        },
        entries=entries,
        missing=known.missing,
        created_at=datetime.now(UTC),
    )


def near_hull(references: ReferenceSet, limit: float) -> list[ReferenceEntry]:
    """Return the entries at most `limit` eV/atom above the hull that the set itself spans."""
    queries = [
        HullQuery(e.entry_id, e.composition, e.energy, references.convention, references.level)
        for e in references.entries
    ]
    placed = Hull(references).place(queries)
    pairs = zip(references.entries, placed, strict=True)
    return [entry for entry, result in pairs if result.energy_above_hull <= limit]


def choose_phases(references: ReferenceSet, limit: float, number: int) -> list[ReferenceEntry]:
    """Return at most `number` of the entries near the hull, the lowest first, the elements before.

    An element's lowest phase is among them whatever the number: without it there is no hull.
    """
    queries = [
        HullQuery(e.entry_id, e.composition, e.energy, references.convention, references.level)
        for e in references.entries
    ]
    placed = Hull(references).place(queries)
    ranked = sorted(
        (
            (result.energy_above_hull, entry.entry_id, entry)
            for entry, result in zip(references.entries, placed, strict=True)
            if result.energy_above_hull <= limit
        ),
        key=lambda row: row[:2],
    )
    elements: dict[str, ReferenceEntry] = {}
    for _, _, entry in ranked:
        if len(entry.composition) == 1:
            elements.setdefault(entry.composition.reduced_formula, entry)
    first = list(elements.values())
    others = [entry for _, _, entry in ranked if entry not in first]
    return first + others[: max(number - len(first), 0)]


def computed_entry(entry: ReferenceEntry) -> "ComputedStructureEntry":
    """Return MP's entry as pymatgen's, with its uncorrected energy: correct it as you like.

    Raises
    ------
    InputError
        The entry has no structure.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    if entry.structure is None:
        raise InputError(f"Reference {entry.entry_id} has no structure: download it anew.")
    return ComputedStructureEntry(
        entry.structure,
        entry.data["uncorrected_energy"],
        parameters=dict(entry.data["parameters"]),
        data=dict(entry.data["data"]),
        entry_id=entry.entry_id,
    )


def fetch_everything(
    snapshot: Snapshot, *, client: Client | None = None, progress: Progress | None = None
) -> str:
    """Keep all of MP (some 60,000 chemical systems) in `snapshot`; return the version.

    A fetch that was cut off goes on where it stopped.
    """
    client = client or Client()
    version = client.version()
    if fetch_systems(client.all_systems(), snapshot, client, progress) != version:
        raise PccdError(
            "The Materials Project released a new version during the fetch: run it again to get "
            "the new one."
        )
    snapshot.mark_whole(version)
    return version


def fetch_systems(
    systems: Sequence[str], snapshot: Snapshot, client: Client, progress: Progress | None = None
) -> str:
    """Fetch what `snapshot` lacks of `systems` in the database's present version; return that.

    Raises
    ------
    PccdError
        A new version was released meanwhile: what was fetched may be of either.
    """
    version = client.version()
    missing = snapshot.missing(version, systems)
    done = len(systems) - len(missing)
    for batch in batches(missing):
        found = client.entries(batch)
        if client.version() != version:
            raise PccdError(
                f"The Materials Project released a version after {version} during the fetch: run "
                "it again to get the new one."
            )
        for system in batch:
            snapshot.put(version, system, found[system])
        done += len(batch)
        if progress is not None:
            progress(done, len(systems))
    return version


def batches(systems: Iterable[str], budget: int = URL_BUDGET) -> Iterator[list[str]]:
    """Yield the systems in groups whose names take at most `budget` characters of a URL."""
    batch: list[str] = []
    length = 0
    for system in systems:
        if batch and length + len(system) + 3 > budget:
            yield batch
            batch, length = [], 0
        batch.append(system)
        length += len(system) + 3  # the comma is sent as %2C
    if batch:
        yield batch


def _elements(entries: Iterable[ReferenceEntry]) -> set[str]:
    """Return the elements of which there is an elemental phase."""
    symbols = [sorted(e.composition.get_el_amt_dict()) for e in entries]
    return {names[0] for names in symbols if len(names) == 1}


def _never_relaxed(entry: ReferenceEntry) -> bool:
    structure = entry.structure
    return (
        structure is not None
        and len(entry.composition) > 1
        and structure.volume / len(structure) > MAX_VOLUME_PER_ATOM
    )
