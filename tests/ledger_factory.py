"""Synthetic campaigns: real crystal structures, invented numbers, every way a crystal can end."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from pymatgen.core import Composition, Lattice, Structure

from pccd_workflows import columns
from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.analysis.screening import Screening
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.collect import reached
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.stages.hull import Stability

FORMATION = {  # eV/atom, near the Materials Project's
    "Mg": 0.0,
    "Mn": 0.0,
    "O2": 0.0,
    "MgO": -3.08,
    "MnO": -2.02,
    "Mn3O4": -2.05,
    "Mn2O3": -2.03,
    "MnO2": -1.83,
    "MgMn2O4": -2.39,
    "MgMnO3": -2.28,
    "Mg2MnO4": -2.56,
    "Mg6MnO8": -2.83,
    "Mg2Mn": 0.12,
    "MgO2": -2.0,
}
ELEMENT_ENERGY = {"Mg": -1.6, "Mn": -9.16, "O": -4.95}


def rock_salt(cation: str = "Mg", a: float = 4.21) -> Structure:
    cell = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(cell, [cation, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def spinel(a: str = "Mg", b: str = "Mn", u: float = 0.2615) -> Structure:
    """Primitive cell, written out: expanding Fd-3m takes seconds."""
    v = 0.5 - 3 * u
    oxygen = [[u, u, u], [u, u, v], [u, v, u], [v, u, u]]
    sites = [[0.125] * 3, [0.875] * 3]
    sites += [[0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    sites += oxygen + [[-x for x in site] for site in oxygen]
    cell = [[0, 4.25, 4.25], [4.25, 0, 4.25], [4.25, 4.25, 0]]
    return Structure(cell, [a] * 2 + [b] * 4 + ["O"] * 8, sites, to_unit_cell=True)


def perovskite(a: str = "Mg", b: str = "Mn") -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.8), [a, b, "O", "O", "O"], sites)


def layered(a: str = "Mg", b: str = "Mn") -> Structure:
    """MgMnO2: ordered rock salt in a hexagonal cell."""
    return Structure.from_spacegroup(
        "R-3m",
        Lattice.hexagonal(2.95, 14.6),
        [a, b, "O"],
        [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.242]],
    ).get_primitive_structure()


def rutile(b: str = "Mn") -> Structure:
    return Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.4, 2.87), [b, "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )


PROTOTYPES = {
    "MgO": (rock_salt, "Fm-3m"),
    "MnO": (lambda: rock_salt("Mn", 4.44), "Fm-3m"),
    "MgMn2O4": (spinel, "Fd-3m"),
    "Mg2MnO4": (lambda: spinel("Mn", "Mg"), "Fd-3m"),
    "MgMnO3": (perovskite, "Pm-3m"),
    "MgMnO2": (layered, "R-3m"),
    "MnO2": (rutile, "P4_2/mnm"),
}
KNOWN = ("MgO", "MnO", "MnO2")
"""What everybody knows is not new in a demonstration either."""


@lru_cache
def crystal(formula: str) -> tuple[Structure, str]:
    """Return a crystal of `formula` and its space group; building a spinel takes seconds."""
    make, spacegroup = PROTOTYPES[formula]
    return make(), spacegroup


def campaign(**changes: Any) -> Campaign:
    values = {
        "name": "mg-mn-o",
        "description": "New oxides of magnesium and manganese",
        "generate": {
            "elements": ["Mg", "Mn", "O"],
            "conditions": {"energy_above_hull": 0.0},
            "samples": 160,
            "seed": 7,
        },
        "rungs": [{"level": "chgnet", "keep": {"energy_above_hull": 0.25}}],
        "phonons": {"level": "chgnet"},
    }
    return Campaign.model_validate(values | changes)


def campaign_document(which: Campaign | None = None) -> dict[str, Any]:
    which = which or campaign()
    return {
        "_id": which.campaign_id,
        "name": which.name,
        "schema_version": 1,
        "campaign": which.resolved(),
        "hash": which.hash,
        "submitted_at": datetime(2026, 11, 22, 14, 3, tzinfo=UTC),
        "fw_ids": [1],
        "state": "COMPLETED",
    }


@lru_cache
def reference_set(level: str = "chgnet") -> ReferenceSet:
    entries = []
    for number, (formula, formation) in enumerate(FORMATION.items()):
        composition = Composition(formula)
        elements = sum(ELEMENT_ENERGY[e.symbol] * n for e, n in composition.items())
        energy = elements + formation * composition.num_atoms
        entries.append(
            ReferenceEntry(entry_id=f"proto-{number}-{formula}", formula=formula, energy=energy)
        )
    return ReferenceSet(
        source="prototypes",
        chemsys="Mg-Mn-O",
        level=level,
        convention="mp2020",
        source_version="pymatgen prototypes",
        entries=entries,
    )


def generated(index: int, *, which: Campaign | None = None, **changes: Any) -> CandidateDoc:
    """Return a candidate that was generated and nothing more."""
    which = which or campaign()
    generation = Generation(
        model="pccd-default",
        weights_sha256="3f7a" * 16,
        seed=7,
        index=index,
        elements=["Mg", "Mn", "O"],
        conditions={"energy_above_hull": 0.0},
        seconds=0.4,
        **{k: changes.pop(k) for k in ("error_class",) if k in changes},
    )
    values: dict[str, Any] = {
        "candidate_id": which.candidate_id(index),
        "campaign_id": which.campaign_id,
        "campaign": which.name,
        "index": index,
        "generation": generation,
        "jobs": {"generate": f"00000000-aaaa-4000-8000-{index:012d}"},
        "seconds": {"generate": 0.4},
        "updated_at": datetime(2026, 11, 22, 15, index % 60, tzinfo=UTC),
    }
    return CandidateDoc(**(values | changes))


def judged(
    index: int,
    formula: str = "MgMn2O4",
    *,
    above: float = 0.05,
    novel: bool = True,
    kind: str | None = None,
    phonons: str | None = None,
    which: Campaign | None = None,
) -> CandidateDoc:
    """Return a candidate with a record of every stage, `above` the hull (eV/atom)."""
    which = which or campaign()
    level, limit = which.rungs[0].level, which.rungs[0].keep.energy_above_hull
    references = reference_set(level)
    structure, spacegroup = crystal(formula)
    on_hull, phases = place(formula, references.level)
    passed = above <= limit
    rejected = not passed or phonons == "unstable"
    reason = f"{1000 * above:.0f} meV/atom above the hull, limit {1000 * limit:g}"
    doc = generated(index, which=which)
    rng = np.random.default_rng(index)
    steps = int(rng.integers(20, 80))
    drop = float(rng.uniform(0.05, 0.6))
    energies = [drop * float(np.exp(-s / (steps / 6))) + on_hull - 8.0 for s in range(steps)]
    relaxation = Relaxation(
        level=level,
        key=f"{index:064x}",
        verdict="converged" if index % 7 else "unconverged",
        structure=structure,
        energy=energies[-1] * len(structure),
        energy_per_atom=energies[-1],
        convention="mp2020",
        max_force=0.041,
        max_stress=0.12,
        n_steps=steps - 1,
        volume_change=float(rng.uniform(-0.12, 0.12)),
        rms_displacement=0.21,
        energies=energies,
        software={"chgnet": "0.4.2"},
        seconds=6.2,
    )
    stability = Stability(
        level=level,
        passed=passed,
        reason_class=None if passed else "unstable",
        reason=None if passed else reason,
        energy_above_hull=above,
        formation_energy_per_atom=on_hull + above,
        decomposition=phases,
        references=references.reference_id,
        convention="mp2020",
        threshold=limit,
    )
    novelty = Novelty(
        sets={
            "references": SetNovelty(
                known=not novel,
                matched_id=None if novel else f"proto-8-{formula}",
                method="StructureMatcher ltol 0.2 stol 0.3 angle 5",
            ),
            "training": SetNovelty(known=False, method="formula, space group, sites"),
            "history": SetNovelty(known=None, method="not asked"),
        }
    )
    update: dict[str, Any] = {
        "status": "rejected" if rejected else "passed",
        "stage": f"phonons:{level}" if phonons else f"hull:{level}",
        "reason_class": "phonons" if phonons == "unstable" else stability.reason_class,
        "reason": "Imaginary at X." if phonons == "unstable" else stability.reason,
        "structure": structure,
        "formula_pretty": structure.composition.reduced_formula,
        "chemsys": structure.chemical_system,
        "elements": sorted(e.symbol for e in structure.composition),
        "nsites": len(structure),
        "spacegroup": spacegroup,
        "energy_above_hull": above,
        "novel": novel,
        "kind_of_new": kind,
        "known_id": None if kind in (None, "new_structure_type") else "mp-1",
        "phonon_stable": {"stable": True, "unstable": False}.get(phonons or ""),
        "screening": Screening(
            passed=True, min_distance=1.98, density=4.4, volume_per_atom=10.9, charge_balanced=True
        ),
        "novelty": novelty,
        "relaxations": [relaxation],
        "stabilities": [stability],
        "phonons": [phonon_record(phonons, len(structure), level)] if phonons else [],
        "jobs": doc.jobs
        | {
            "screen": f"00000000-bbbb-4000-8000-{index:012d}",
            f"relax:{level}": f"00000000-cccc-4000-8000-{index:012d}",
            f"hull:{level}": f"00000000-dddd-4000-8000-{index:012d}",
        },
        "seconds": doc.seconds | {f"relax:{level}": 6.2},
    }
    made = doc.model_copy(update=update)
    return made.model_copy(update={"values": columns.sortable(made.records)})


@lru_cache
def place(formula: str, level: str) -> tuple[float, dict[str, float]]:
    """Return formation energy on the hull, eV/atom, and the phases there."""
    references = reference_set(level)
    query = HullQuery("x", Composition(formula), 0.0, references.convention, level)
    result = Hull(references).place([query])[0]
    return result.formation_energy_per_atom - result.energy_above_hull, result.decomposition


def phonon_record(verdict: str, n_sites: int, level: str = "chgnet") -> Phonons:
    """Return invented bands along Γ-X-U|K-Γ-L; unstable ones dip below zero at X."""
    legs = [("Γ", "X", 0.6), ("X", "U", 0.2), ("K", "Γ", 0.63), ("Γ", "L", 0.5)]
    distances, frequencies, labels, start = [], [], [], 0.0
    for left, right, length in legs:
        u = np.linspace(0, 1, 31)
        x = {"Γ": u, "K": 1 - u}.get(left, np.full_like(u, 1.0))
        wave = np.sin(np.pi / 2 * x)
        bands = []
        for branch in range(3 * min(n_sites, 8)):
            if branch < 3:
                top = 3.5 + branch
                bands.append(wave * (top if verdict != "unstable" or branch else -1.4))
            else:
                bands.append(6 + 0.5 * branch - 0.8 * wave * np.cos(branch))
        distances.append((start + u * length).tolist())
        frequencies.append([band.tolist() for band in bands])
        labels.append([left, right])
        start += length
    lowest = -1.4 if verdict == "unstable" else 0.4
    return Phonons(
        level=level,
        verdict=verdict,  # type: ignore[arg-type]
        reason="Imaginary at X." if verdict == "unstable" else None,
        min_frequency=lowest,
        min_frequency_qpoint=[0.5, 0.0, 0.5],
        gamma_residual=-0.02,
        tolerance=0.1,
        supercell_matrix=[[4, 0, 0], [0, 4, 0], [0, 0, 4]],
        displacement=0.01,
        n_displacements=4,
        bands={"distances": distances, "frequencies": frequencies, "labels": labels},
        dos={
            "frequencies": np.linspace(-1.5, 20, 100).tolist(),
            "density": (np.sin(np.linspace(0, 9, 100)) ** 2).tolist(),
        },
        seconds=20.0,
    )


def bands_record(
    gap: float = 1.37, *, level: str = "vasp/mp-gga", direct: bool = False, spins: int = 1
) -> Bands:
    """Return invented bands along Γ-X|K-Γ: one below and two above the gap; no gap: a metal."""
    distances, energies, labels, start = [], [], [["Γ", "X"], ["K", "Γ"]], 0.0
    for length in (0.6, 0.63):
        u = np.linspace(0, 1, 21)
        away = u if not start else 1 - u
        wave = np.sin(np.pi / 2 * away) ** 2
        bottom = gap + (wave if direct else 1 - wave)
        bands = [2.0 - wave, 2.0 + bottom, 4.0 + bottom]
        distances.append((start + u * length).tolist())
        energies.append([[(band + 0.2 * spin).tolist() for band in bands] for spin in range(spins)])
        start += length
    metal = gap <= 0
    return Bands(
        level=level,
        is_metal=metal,
        band_gap=0.0 if metal else gap,
        direct=None if metal else direct,
        vbm=None if metal else 2.0,
        cbm=None if metal else 2.0 + gap,
        vbm_kpoint=None if metal else [0.0, 0.0, 0.0],
        cbm_kpoint=None if metal else [0.0, 0.0, 0.0] if direct else [0.5, 0.0, 0.5],
        efermi=2.1,
        kpath="Γ-X|K-Γ",
        bands={"distances": distances, "energies": energies, "labels": labels},
        seconds=50.0,
    )


def with_bands(doc: CandidateDoc, record: Bands, asked: float | None = None) -> CandidateDoc:
    """Return a candidate with a band structure; asked: what the model was asked for, eV."""
    conditions = doc.generation.conditions | {"band_gap": asked}
    generation = doc.generation.model_copy(update={"conditions": conditions})
    update = {"band_structures": [record], "band_gap": record.band_gap, "generation": generation}
    return doc.model_copy(update=update)


def rejected(index: int, reason_class: str, *, which: Campaign | None = None) -> CandidateDoc:
    """Return a candidate that the screen rejected."""
    doc = generated(index, which=which)
    reason = f"It was rejected: {reason_class.replace('_', ' ')}."
    update = {
        "status": "rejected",
        "stage": "screen",
        "reason_class": reason_class,
        "reason": reason,
        "formula_pretty": "MgO",
        "structure": crystal("MgO")[0],
        "screening": Screening(passed=False, reason_class=reason_class, reason=reason),
    }
    return doc.model_copy(update=update)


def undecoded(index: int, error_class: str = "no_cluster") -> CandidateDoc:
    """Return a sample that is no crystal."""
    return generated(
        index,
        error_class=error_class,
        status="rejected",
        reason_class=error_class,
        reason="The points form no clusters.",
    )


def duplicate(index: int, of: int) -> CandidateDoc:
    """Return a screened crystal that the campaign already has."""
    doc = judged(index)
    update = {
        "status": "rejected",
        "stage": "deduplicate",
        "reason_class": "duplicate",
        "reason": f"The same crystal as {campaign().candidate_id(of)}.",
        "novelty": Novelty(duplicate_of=campaign().candidate_id(of)),
        "novel": None,
        "energy_above_hull": None,
        "relaxations": [],
        "stabilities": [],
    }
    return doc.model_copy(update=update)


def demo(n_judged: int = 70) -> list[CandidateDoc]:
    """Return a whole campaign of 160 samples."""
    rng = np.random.default_rng(3)
    formulas = list(PROTOTYPES)
    docs = [undecoded(i, "no_cluster" if i % 3 else "volume") for i in range(14)]
    docs += [rejected(14 + i, ["too_close", "charge", "density"][i % 3]) for i in range(40)]
    docs += [duplicate(54 + i, of=90) for i in range(30)]
    docs += [generated(84), generated(85)]
    docs[-1] = docs[-1].model_copy(
        update={"status": "failed", "reason_class": "job_failed", "reason": "Killed by signal 9."}
    )
    first = 90
    for i in range(n_judged):
        formula = formulas[int(rng.integers(len(formulas)))]
        above = float(rng.gamma(1.6, 0.16))
        novel = bool(rng.random() < 0.75) and formula not in KNOWN
        docs.append(judged(first + i, formula, above=above, novel=novel))
    docs += [
        judged(160, "MgMnO2", above=0.021, phonons="stable"),
        judged(161, "MgMn2O4", above=-0.004, phonons="stable"),
        judged(162, "MgMnO3", above=0.062, phonons="unstable"),
        judged(163, "Mg2MnO4", above=0.031, phonons="ambiguous"),
        judged(164, "MgO", above=0.0, novel=False),
        judged(165, "MnO2", above=0.012, novel=False),
    ]
    return docs


def stored(name: str, n_judged: int = 20) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the documents of a whole campaign of this name: its own and its candidates'."""
    which, plain = campaign(name=name), campaign()
    rows = []
    for doc in demo(n_judged):
        steps = sorted(reached(plain, doc.records))
        row = doc.model_copy(update={"reached": steps}).model_dump(mode="json")
        row |= {"campaign": name, "campaign_id": which.campaign_id}
        row |= {"candidate_id": which.candidate_id(doc.index)}
        rows.append(row | {"_id": row["candidate_id"]})
    return campaign_document(which), rows
