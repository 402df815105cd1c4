"""Competing phases without a database: known structure types, decorated and relaxed."""

import gzip
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files

import numpy as np
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element, Lattice, Species, Structure

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.systems import subsystems
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.optimize import MIN_ENERGY_PER_ATOM
from pccd_workflows.engines.potential import single_point, supported_elements
from pccd_workflows.engines.records import Relaxation

TABLE_VERSION = 1
"""Raised when the choice of phases changes."""
MAX_SITES = 44
"""Largest primitive cell that is decorated: bixbyite has 40 atoms."""
MAX_SITES_USUAL = 24
"""The same for formulas that are not simple; ..."""
SIMPLE_FORMULA = 7
"""... simple ones have at most as many atoms as spinel's."""
MAX_SITES_PLAIN = 16
"""The same for compounds whose oxidation states do not balance, and for alloys."""
MAX_SITES_MOLECULAR = 8
"""The same for elements that are diatomic molecules: what is larger falls apart into an arbitrary
packing of these, some meV/atom below the crystal that everybody takes for reference."""
MAX_FORMULA = 15
"""Most atoms of a reduced formula: Mg6MnO8 has as many."""
MAX_SPLIT_ORBITS = 4
"""Prototypes with at most so many Wyckoff orbits are also decorated orbit by orbit."""
IONIC_DIFFERENCE = 1.0
"""Difference of Pauling electronegativities from which two elements are taken as ions."""
LEAST_VOLUME = 5.0
"""Å^3 per atom: bonds of light elements in the packings of metals come out far too dense."""
MAX_ENERGY_PER_ATOM = 20.0
"""eV/atom; beyond it atoms overlap."""
STEP = 0.12
"""Distance of the three points of a parabola, in ln V."""
VOLUMES = (float(np.exp(-STEP)), float(np.exp(STEP)))
SAME_ENERGY = 1e-4
"""Unrelaxed decorations nearer than this are the same crystal under two names, eV/atom."""
SAME_PHASE = 3e-3
"""Relaxed crystals nearer than this are compared by structure, eV/atom."""
OXYGEN_STATES = (-2.0, -1.0, -0.5)
"""Of oxides, peroxides and superoxides."""
DIMERS = {"H": 0.74, "N": 1.10, "O": 1.21, "F": 1.41, "Cl": 1.99, "Br": 2.28, "I": 2.67}
"""Bond lengths of the diatomic molecules, Å (CRC Handbook of Chemistry and Physics)."""


@dataclass(frozen=True)
class Effort:
    """How hard a composition's decorations are looked at.

    refined: so many, lowest at their first volume, get their volume optimised. Open frameworks
    such as hollandite rank far down at the volume where atoms touch, and end up lowest.
    relaxed: so many of these are relaxed at most.
    rough: those further above the hull of all, at first volumes, are dropped, eV/atom.
    margin: ... at their best volume, above the hull of what has been relaxed, eV/atom.
    """

    refined: int
    relaxed: int
    rough: float
    margin: float


EFFORTS = {
    "element": Effort(refined=14, relaxed=14, rough=np.inf, margin=np.inf),
    "simple": Effort(refined=24, relaxed=8, rough=1.0, margin=0.25),
    "salt": Effort(refined=6, relaxed=3, rough=1.0, margin=0.25),
    "alloy": Effort(refined=4, relaxed=3, rough=0.5, margin=0.25),
    "unbalanced": Effort(refined=2, relaxed=1, rough=0.3, margin=0.05),
}
"""By kind of composition; simple are salts of at most SIMPLE_FORMULA atoms."""


@dataclass(frozen=True)
class Prototype:
    """A structure type.

    structure: primitive cell of the type's namesake.
    species: number of the namesake's element on each site, from 0.
    orbits: number of the Wyckoff orbit of each site, from 0.
    """

    label: str
    structure: Structure
    species: tuple[int, ...]
    orbits: tuple[int, ...]


# label, space group, lattice lengths (Å) and angles (degrees), sites (symbol, x, y, z), source
Row = tuple[str, str, tuple[float, ...], tuple[tuple[str, float, float, float], ...]]
ADDITIONAL: tuple[Row, ...] = (
    # Types that the AFLOW library lacks.
    # Kasper & Prener, Acta Cryst. 7, 246 (1954)
    (
        "Mg6MnO8",
        "Fm-3m",
        (8.381, 8.381, 8.381, 90, 90, 90),
        (("Mn", 0, 0, 0), ("Mg", 0, 0.25, 0.25), ("O", 0.25, 0.25, 0.25), ("O", 0.23, 0, 0)),
    ),
    # Post & Heaney, Am. Mineral. 89, 969 (2004), setting Pnma
    (
        "ramsdellite",
        "Pnma",
        (9.264, 2.859, 4.513, 90, 90, 90),
        (("Mn", 0.136, 0.25, 0.022), ("O", 0.77, 0.25, 0.17), ("O", 0.967, 0.25, 0.79)),
    ),
    # Post, Von Dreele & Buseck, Acta Cryst. B38, 1056 (1982), empty tunnels
    (
        "hollandite",
        "I4/m",
        (9.78, 9.78, 2.86, 90, 90, 90),
        (("Mn", 0.35, 0.167, 0), ("O", 0.153, 0.180, 0), ("O", 0.542, 0.167, 0)),
    ),
    # Smyth & Hazen, Am. Mineral. 58, 588 (1973), setting Pnma
    (
        "olivine",
        "Pnma",
        (10.190, 5.978, 4.753, 90, 90, 90),
        (
            ("Mg", 0, 0, 0),
            ("Mg", 0.2774, 0.25, 0.9915),
            ("Si", 0.0940, 0.25, 0.4262),
            ("O", 0.0913, 0.25, 0.7657),
            ("O", 0.4474, 0.25, 0.2215),
            ("O", 0.1628, 0.0331, 0.2777),
        ),
    ),
    # Shannon, Prewitt & Rogers, Inorg. Chem. 10, 719 (1971): CuFeO2
    (
        "delafossite",
        "R-3m",
        (3.035, 3.035, 17.166, 90, 90, 120),
        (("Cu", 0, 0, 0), ("Fe", 0, 0, 0.5), ("O", 0, 0, 0.1066)),
    ),
    # Subramanian, Aravamudan & Subba Rao, Prog. Solid State Chem. 15, 55 (1983)
    (
        "pyrochlore",
        "Fd-3m",
        (10.0, 10.0, 10.0, 90, 90, 90),
        (
            ("Y", 0.625, 0.625, 0.625),
            ("Ti", 0.125, 0.125, 0.125),
            ("O", 0.205, 0, 0),
            ("O", 0.5, 0.5, 0.5),
        ),
    ),
    # Pauling, Z. Kristallogr. 69, 415 (1928): A-type sesquioxide
    (
        "La2O3-A",
        "P-3m1",
        (3.937, 3.937, 6.129, 90, 90, 120),
        (("La", 1 / 3, 2 / 3, 0.245), ("O", 0, 0, 0), ("O", 1 / 3, 2 / 3, 0.645)),
    ),
    # Marezio, Acta Cryst. 20, 723 (1966): In2O3; the library's own has cations 2.4 Å apart
    (
        "bixbyite",
        "Ia-3",
        (10.117, 10.117, 10.117, 90, 90, 90),
        (("In", 0.25, 0.25, 0.25), ("In", 0.4662, 0, 0.25), ("O", 0.3905, 0.1529, 0.3832)),
    ),
    # Atoji & Medrud, J. Chem. Phys. 31, 332 (1959): carbides, peroxides, superoxides
    ("CaC2", "I4/mmm", (3.87, 3.87, 6.38, 90, 90, 90), (("Ca", 0, 0, 0), ("C", 0, 0, 0.406))),
)


@lru_cache(maxsize=1)
def prototypes() -> tuple[Prototype, ...]:
    """Return every structure type: pymatgen's AFLOW library and those it lacks."""
    # addressed through the parent package: importing this one parses much larger tables
    data = files("pymatgen.analysis") / "prototypes" / "aflow_prototypes.json.gz"
    rows = json.loads(gzip.decompress(data.read_bytes()))
    found = [(r["tags"]["aflow"], Structure.from_dict(r["snl"])) for r in rows]
    for label, group, cell, sites in ADDITIONAL:
        symbols, coords = [s[0] for s in sites], [s[1:] for s in sites]
        lattice = Lattice.from_parameters(*cell)
        cell_structure = Structure.from_spacegroup(group, lattice, symbols, coords)
        found.append((label, cell_structure.get_primitive_structure()))
    counts: dict[str, int] = defaultdict(int)
    result = []
    for label, structure in found:
        counts[label] += 1
        name = label if counts[label] == 1 else f"{label}.{counts[label]}"
        if len(structure) <= MAX_SITES:
            result.append(_prototype(name, structure))
    return tuple(result)


def _prototype(label: str, structure: Structure) -> Prototype:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    dataset = SpacegroupAnalyzer(structure, symprec=0.01).get_symmetry_dataset()
    symbols = [site.specie.symbol for site in structure]
    orbits = _numbered(dataset.equivalent_atoms.tolist())
    return Prototype(label, structure, _numbered(symbols), orbits)


def _numbered(names: Sequence[object]) -> tuple[int, ...]:
    """Return the names as numbers in order of appearance."""
    order = list(dict.fromkeys(names))
    return tuple(order.index(name) for name in names)


def decorate(chemsys: str) -> list[tuple[str, Structure]]:
    """Return every structure type with every decoration by the elements of `chemsys`.

    All elements of the system occur in each crystal; volumes are first guesses. What is returned
    depends on nothing but the elements.

    Returns
    -------
    (label, structure); the label names the type and the element on each of its sites.
    """
    elements = sorted(chemsys.split("-"))
    if len(elements) == 1:
        return [*dimer_crystals(elements[0]), *_decorated(elements)]
    return list(_decorated(elements))


def _decorated(elements: Sequence[str]) -> Iterator[tuple[str, Structure]]:
    for prototype in prototypes():
        for colours, split in _colourings(prototype, len(elements)):
            for symbols in _surjections(elements, max(colours) + 1):
                species = [symbols[colour] for colour in colours]
                plain = not split and len(symbols) == len(elements)
                if len(species) <= _largest_cell(species, plain=plain):
                    label = f"{prototype.label}:{'.'.join(symbols)}"
                    yield label, _scaled(prototype.structure, species)


def _largest_cell(species: Sequence[str], *, plain: bool) -> int:
    """Return the largest cell worth trying for a composition, in atoms; 0 if none is.

    plain: one element for each of the namesake's.
    """
    composition = Composition.from_dict(_counts(species))
    if len(composition) == 1:
        return MAX_SITES_MOLECULAR if species[0] in DIMERS else MAX_SITES
    n_atoms = composition.reduced_composition.num_atoms
    if n_atoms > MAX_FORMULA:
        return 0
    if _is_ionic(composition) and charge_balanced(composition):
        return MAX_SITES if n_atoms <= SIMPLE_FORMULA else MAX_SITES_USUAL
    return MAX_SITES_PLAIN if plain else 0


def _colourings(prototype: Prototype, n: int) -> list[tuple[tuple[int, ...], bool]]:
    """Return the ways to tell sites apart: by the namesake's elements, or orbit by orbit.

    The second is flagged; it makes MgMn2O4 out of Mn3O4 and is worth its number only where charges
    balance. An element takes the types of elements only.
    """
    n_species, n_orbits = max(prototype.species) + 1, max(prototype.orbits) + 1
    ways = []
    if n_species >= n and (n > 1 or n_species == 1):
        ways.append((prototype.species, False))
    if n > 1 and max(n, n_species + 1) <= n_orbits <= MAX_SPLIT_ORBITS:
        ways.append((prototype.orbits, True))
    return ways


def _surjections(elements: Sequence[str], n_classes: int) -> Iterator[tuple[str, ...]]:
    """Return the assignments of elements to classes that use every element."""
    for symbols in itertools.product(elements, repeat=n_classes):
        if len(set(symbols)) == len(elements):
            yield symbols


def _counts(species: Sequence[str]) -> dict[str, int]:
    return {symbol: species.count(symbol) for symbol in dict.fromkeys(species)}


def _is_ionic(composition: Composition) -> bool:
    scale = [element.X for element in composition.elements]
    return bool(max(scale) - min(scale) > IONIC_DIFFERENCE)


def charge_balanced(composition: Composition) -> bool:
    """Return whether average oxidation states can balance; true for an element or an alloy.

    The most electronegative element is an anion, the least one a cation, others either; mixed
    valence counts, as in Mn3O4. With alkalis and alkaline earths oxygen may also form peroxides
    and superoxides.
    """
    if not _is_ionic(composition):
        return True
    cations = [element for element in composition.elements if element.symbol != "O"]
    molecular = all(element.group in (1, 2) and element.symbol != "H" for element in cations)
    oxygen = OXYGEN_STATES if molecular else OXYGEN_STATES[:1]
    return any(_balances(composition, state) for state in oxygen)


def _balances(composition: Composition, oxygen: float) -> bool:
    """Return whether charges can add up to zero with oxygen in the given state."""
    cation, *between, anion = sorted(composition.elements, key=lambda element: element.X)
    for signs in itertools.product((1, -1), repeat=len(between)):
        low = high = 0.0
        for element, sign in zip((cation, *between, anion), (1, *signs, -1), strict=True):
            states = (oxygen,) if element.symbol == "O" else _states(element)
            states = tuple(state for state in states if state * sign > 0)
            if not states:
                break
            low += min(states) * composition[element]
            high += max(states) * composition[element]
        else:
            if low <= 0 <= high:
                return True
    return False


def _states(element: Element | Species) -> tuple[float, ...]:
    """Return the oxidation states of an element in known crystals."""
    states = element.icsd_oxidation_states or element.common_oxidation_states
    return tuple(states or element.oxidation_states)


def _scaled(structure: Structure, species: Sequence[str]) -> Structure:
    """Return the decorated crystal, scaled until its tightest pair of atoms touches."""
    distances = structure.distance_matrix.copy()
    np.fill_diagonal(distances, structure.lattice.get_niggli_reduced_lattice().a)
    contact = np.array([[_contact(one, other) for other in species] for one in species])
    loosest = (LEAST_VOLUME * len(species) / structure.volume) ** (1 / 3)
    factor = max(float((contact / distances).max()), loosest)
    lattice = Lattice(structure.lattice.matrix * factor)
    return Structure(lattice, species, structure.frac_coords)


@lru_cache(maxsize=4096)
def _contact(one: str, other: str) -> float:
    """Return the distance at which two atoms touch, Å: ions, metal atoms or covalent atoms."""
    a, b = Element(one), Element(other)
    if abs(a.X - b.X) > IONIC_DIFFERENCE:
        cation, anion = sorted((a, b), key=lambda element: element.X)
        return _radius(cation, "average_cationic_radius") + _radius(anion, "average_anionic_radius")
    kind = "metallic_radius" if a.is_metal and b.is_metal else "atomic_radius"
    return _radius(a, kind) + _radius(b, kind)


def _radius(element: Element, kind: str) -> float:
    value = getattr(element, kind, None) or element.atomic_radius or 1.5
    return float(value)


def dimer_crystals(element: str) -> list[tuple[str, Structure]]:
    """Return crystals of diatomic molecules, whose lattices do not scale with their bonds."""
    if element not in DIMERS:
        return []
    bond = DIMERS[element]
    width = 2 * float(Element(element).van_der_waals_radius or 1.6)
    crystals = []
    for name, lattice in (
        ("stacked", Lattice.hexagonal(width * 1.1, width + bond)),
        ("cubic", Lattice.cubic(width * 1.1 + bond / 2)),
    ):
        coords = [[0.0, 0.0, 0.0], [0.0, 0.0, bond / lattice.c]]
        crystals.append((f"dimer-{name}:{element}", Structure(lattice, [element] * 2, coords)))
    return crystals


Progress = Callable[[str, int, int], None]
"""Called with a subsystem, how many of its crystals are relaxed, and how many there are at most."""


@dataclass(frozen=True)
class Guess:
    """A decorated structure type with its energy at its best volume, not relaxed otherwise."""

    label: str
    structure: Structure
    energy_per_atom: float

    @property
    def composition(self) -> Composition:
        """Composition of the cell."""
        return self.structure.composition

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return str(self.composition.reduced_formula)


def build_reference_set(
    chemsys: str,
    level: str,
    *,
    relax: Callable[[Structure], Relaxation],
    progress: Progress | None = None,
) -> ReferenceSet:
    """Return the competing phases of `chemsys` at `level`, with those of all its subsystems.

    Subsystem by subsystem, smallest first: structure types are decorated, ranked by charge balance
    and by a single point at their best volume, and the lowest of each composition are relaxed
    while they are near the hull of what is known so far. What is found for Mg-O is therefore the
    same in Mg-O and in Mg-Mn-O.

    Parameters
    ----------
    chemsys
        Symbols joined by '-'.
    level
        Name of a potential.
    relax
        Relaxes one crystal at `level`; the place for a cache.
    progress
        Told after each relaxation.

    Raises
    ------
    InputError
        If the potential does not know an element.
    PccdError
        If no crystal of an element could be relaxed.
    """
    systems = subsystems(chemsys.split("-"))
    of = get_level(level)
    known = supported_elements(of)
    foreign = sorted(set(systems[-1]) - known) if known is not None else []
    if foreign:
        raise InputError(f"{level} was not trained on {', '.join(foreign)}; use another level.")
    entries: list[ReferenceEntry] = []
    for system in systems:
        entries += _relaxed_system(system, level, entries, relax=relax, progress=progress)
    return ReferenceSet(
        source="prototypes",
        chemsys="-".join(systems[-1]),
        level=level,
        convention=of.convention,
        source_version=f"pymatgen {version('pymatgen')}, table {TABLE_VERSION}",
        settings={kind: asdict(effort) for kind, effort in EFFORTS.items() if kind != "element"},
        entries=sorted(entries, key=lambda entry: entry.entry_id),
        created_at=datetime.now(UTC),
    )


def _relaxed_system(
    system: tuple[str, ...],
    level: str,
    lower: Sequence[ReferenceEntry],
    *,
    relax: Callable[[Structure], Relaxation],
    progress: Progress | None,
) -> list[ReferenceEntry]:
    """Return the relaxed phases that contain exactly the elements of `system`.

    lower: all phases of its subsystems.
    """
    name = "-".join(system)
    inside = [entry for entry in lower if {e.symbol for e in entry.composition} < set(system)]
    found = _relaxed(system, decorate(name), inside, level, relax=relax, progress=progress)
    if not found and len(system) == 1:
        raise PccdError(f"No crystal of the element {name} could be relaxed at level {level}.")
    return found


def _relaxed(
    system: tuple[str, ...],
    decorated: Sequence[tuple[str, Structure]],
    inside: Sequence[ReferenceEntry],
    level: str,
    *,
    relax: Callable[[Structure], Relaxation],
    progress: Progress | None,
) -> list[ReferenceEntry]:
    """Return the decorations that are worth it, relaxed; inside: what they compete with."""
    name = "-".join(system)
    queue = _queue(rank(decorated, level, inside))
    found: list[ReferenceEntry] = []
    for done, guess in enumerate(queue):
        if (
            len(system) == 1
            or _above(guess, _hull([*inside, *found])) <= effort_for(guess.composition).margin
        ):
            relaxation = relax(guess.structure)
            if relaxation.usable:
                found = _with_phase(found, _entry(guess, relaxation))
        if progress is not None:
            progress(name, done + 1, len(queue))
    return found


def rank(
    decorated: Sequence[tuple[str, Structure]], level: str, lower: Sequence[ReferenceEntry]
) -> dict[str, list[Guess]]:
    """Return the promising decorations of each composition at their best volume, lowest first.

    lower: relaxed phases of the subsystems; none for an element.
    """
    by_formula: dict[str, list[Guess]] = defaultdict(list)
    for label, structure in decorated:
        guess = _single(label, structure, level)
        if guess is not None:
            by_formula[guess.formula].append(guess)
    distinct = {formula: _distinct(guesses) for formula, guesses in by_formula.items()}
    hull = _hull([*lower, *(guesses[0] for guesses in distinct.values())])
    ranked = {}
    for formula, guesses in distinct.items():
        effort = effort_for(Composition(formula))
        near = [g for g in guesses[: effort.refined] if _above(g, hull) <= effort.rough]
        ranked[formula] = _distinct([at_best_volume(guess, level) for guess in near])
    return ranked


def effort_for(composition: Composition) -> Effort:
    """Return how hard to look at a composition."""
    if len(composition) == 1:
        return EFFORTS["element"]
    if not _is_ionic(composition):
        return EFFORTS["alloy"]
    if not charge_balanced(composition):
        return EFFORTS["unbalanced"]
    simple = composition.reduced_composition.num_atoms <= SIMPLE_FORMULA
    return EFFORTS["simple" if simple else "salt"]


def _single(label: str, structure: Structure, level: str) -> Guess | None:
    """Return the crystal with its energy; None if the potential fails or falls into a hole."""
    try:
        energy = single_point(structure, level)
    except (ValueError, RuntimeError, ArithmeticError):
        return None
    if not MIN_ENERGY_PER_ATOM < energy < MAX_ENERGY_PER_ATOM:
        return None
    return Guess(label, structure, energy)


def _distinct(guesses: Sequence[Guess]) -> list[Guess]:
    """Return the guesses in order of energy; of equal energies the first name stays."""
    kept: list[Guess] = []
    for guess in sorted(guesses, key=lambda g: (round(g.energy_per_atom, 4), g.label)):
        if not kept or guess.energy_per_atom - kept[-1].energy_per_atom > SAME_ENERGY:
            kept.append(guess)
    return kept


def at_best_volume(guess: Guess, level: str, *, rounds: int = 2) -> Guess:
    """Return `guess` near the minimum of its energy over the volume, shape and sites kept.

    A parabola in ln V through three energies; once more if its minimum lies outside of them.
    """
    best = guess
    for _ in range(rounds):
        lower, upper = (_single(guess.label, _dilated(best.structure, f), level) for f in VOLUMES)
        if lower is None or upper is None:
            return best
        x = _minimum(lower.energy_per_atom, best.energy_per_atom, upper.energy_per_atom)
        moved = _single(guess.label, _dilated(best.structure, float(np.exp(x))), level)
        tried = [g for g in (best, lower, upper, moved) if g is not None]
        best = min(tried, key=lambda g: g.energy_per_atom)
        if abs(x) < STEP:
            break
    return best


def _minimum(lower: float, middle: float, upper: float) -> float:
    """Return where a parabola through (-STEP, lower), (0, middle), (STEP, upper) is lowest."""
    curvature = lower - 2 * middle + upper
    slope = (upper - lower) / 2
    if curvature <= 0:
        return -2 * STEP if lower < upper else 2 * STEP
    return float(np.clip(-slope / curvature * STEP, -2 * STEP, 2 * STEP))


def _dilated(structure: Structure, factor: float) -> Structure:
    """Return the crystal at `factor` times its volume."""
    dilated = structure.copy()
    dilated.scale_lattice(structure.volume * factor)
    return dilated


def _queue(ranked: dict[str, list[Guess]]) -> list[Guess]:
    """Return what to relax, in order: the best of every composition, then the second best, ..."""
    rows = [
        (place, not charge_balanced(guess.composition), round(guess.energy_per_atom, 4), guess)
        for formula, guesses in ranked.items()
        for place, guess in enumerate(guesses[: effort_for(Composition(formula)).relaxed])
    ]
    return [row[-1] for row in sorted(rows, key=lambda row: (*row[:3], row[3].label))]


def _hull(phases: Sequence[ReferenceEntry | Guess]) -> PhaseDiagram:
    return PhaseDiagram([_pd_entry(phase) for phase in phases])


def _pd_entry(phase: ReferenceEntry | Guess) -> PDEntry:
    composition = phase.composition
    return PDEntry(composition, phase.energy_per_atom * composition.num_atoms)


def _above(guess: Guess, hull: PhaseDiagram) -> float:
    """Return the energy above a hull, eV/atom; infinite if the hull does not reach so far."""
    above = hull.get_e_above_hull(_pd_entry(guess), allow_negative=True)
    return np.inf if above is None else float(above)


def _entry(guess: Guess, relaxation: Relaxation) -> ReferenceEntry:
    if relaxation.structure is None or relaxation.energy is None:
        raise ValueError(f"{relaxation.verdict=} has no structure")
    return ReferenceEntry(
        entry_id=f"{guess.formula}/{guess.label}",
        formula=relaxation.structure.composition.formula.replace(" ", ""),
        energy=relaxation.energy,
        structure=relaxation.structure,
        data={"prototype": guess.label, "relaxation": relaxation.key},
    )


def _with_phase(found: Sequence[ReferenceEntry], new: ReferenceEntry) -> list[ReferenceEntry]:
    """Return `found` with `new`, unless it holds the same crystal already; the lower one stays."""
    for old in found:
        if _same_phase(old, new):
            if new.energy_per_atom >= old.energy_per_atom:
                return list(found)
            return [entry for entry in found if entry is not old] + [new]
    return [*found, new]


def _same_phase(one: ReferenceEntry, other: ReferenceEntry) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if one.structure is None or other.structure is None:
        return False
    alike = one.composition.reduced_formula == other.composition.reduced_formula
    near = abs(one.energy_per_atom - other.energy_per_atom) < SAME_PHASE
    return alike and near and bool(StructureMatcher().fit(one.structure, other.structure))
