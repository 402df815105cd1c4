"""What a model's crystals are worth: the evaluation's measures, wired to potentials and data files.

`evaluation` knows neither potentials nor files; this module lends it both. Everything that is
computed lies on disk by its content (`DiskResults`), so that a second run, another part or another
model pays only for what is new.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Composition, Element, Structure

from pccd_workflows.campaign import load_campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import get_level
from pccd_workflows.evaluation.generation import evaluate_generation
from pccd_workflows.evaluation.published import table_2
from pccd_workflows.evaluation.stability import (
    NEAR_AT_LEVEL,
    NEAR_IN_DATA,
    Judged,
    Phase,
    Progress,
    competing_phases,
    disagreement,
    flattery,
    hull_at_level,
    place,
    silent,
    stated_energy_above_hull,
    symbols,
)
from pccd_workflows.evaluation.summary import protocol_card, report, rows_of, summarize
from pccd_workflows.evaluation.verdicts import Known, draw_samples, judge_samples, requests_for
from pccd_workflows.generators.pccd.dataset import (
    CrystalArrays,
    RejectedError,
    reduced_cell,
    split_of_record,
)
from pccd_workflows.generators.pccd.records import read_records
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions
from pccd_workflows.settings import REPOSITORY, Settings

if TYPE_CHECKING:
    from pccd_workflows.execution.disk_results import DiskResults
    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.model import Model

LEGACY_TABLE = "mp_legacy_formation_energies.jsonl.gz"
"""File beside the data that holds one self-consistent hull, phases above 20 sites included."""
BATCHES = ("seed-batch-1", "seed-batch-2", "seed-batch-3")


class KnownCrystalsFile:
    """The crystals of a data file, read once: about 1 kB each.

    Parameters
    ----------
    path
        JSON lines or a folder of CIFs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Geometry, energy above hull and split of each crystal.

        Raises
        ------
        InputError
            If the file holds no crystal.
        """
        found = [
            {
                "id": str(row.get("id", number)),
                "species": tuple(sys.intern(s) for s in row["species"]),
                "lattice": np.asarray(row["lattice"], dtype=float),
                "frac_coords": np.asarray(row["frac_coords"], dtype=float),
                "energy_above_hull": stated_energy_above_hull(row),
                "split": split_of_record(row),
            }
            for number, row in enumerate(map(_with_cell, read_records(self.path)))
            if {"species", "lattice", "frac_coords"} <= row.keys()
        ]
        if not found:
            raise InputError(
                f"{self.path} holds no crystal: a line needs lattice, species and frac_coords, or "
                "structure."
            )
        return found

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """Return the phases of LEGACY_TABLE beside the file; none if it is not there."""
        path = self.path.with_name(LEGACY_TABLE)
        return list(read_records(path)) if path.exists() else []

    def with_formulas(self, formulas: set[str]) -> list[tuple[str, Structure]]:
        """Return id and crystal of those with one of these formulas."""
        wanted = {_ratio(Composition(formula).get_el_amt_dict()) for formula in formulas}
        return [
            (row["id"], Structure(row["lattice"], row["species"], row["frac_coords"]))
            for row in self.rows
            if _ratio(Counter(row["species"])) in wanted
        ]


@dataclass
class PotentialJudge:
    """Relaxes crystals with a potential and places them on that potential's own hull.

    Attributes
    ----------
    data : KnownCrystalsFile
        The competing phases.
    level : str
        Name of a potential.
    results : DiskResults
        What is computed already.
    relax_phases : bool
        False takes the phases as they are in the data: faster, and some meV/atom too high.
    progress : callable
        Told what is being done.
    about : dict
        What the last call found: number of phases and what the missing ones flatter.
    """

    data: KnownCrystalsFile
    level: str
    results: "DiskResults"
    relax_phases: bool = True
    progress: Progress = silent
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(self, structures: Sequence[Structure]) -> list[Judged]:
        """Return the relaxation and the energy above hull of each crystal."""
        self.about = {}
        if not structures:
            return []
        relaxations = []
        for done, structure in enumerate(structures, start=1):
            relaxations.append(self.results.relax(structure, self.level))
            self.progress(f"relaxing samples, {self.level}", done, len(structures))
        systems = {symbols(s.composition) for s in structures}
        phases = competing_phases(self.data.rows, systems)
        references = hull_at_level(
            [*phases, *_molecules(systems), *self._missing_elements(systems, phases)],
            self.level,
            single_point=lambda s: self.results.single_point(s, self.level),
            relax=(lambda s: self.results.relax(s, self.level)) if self.relax_phases else None,
            progress=self.progress,
        )
        above = place(relaxations, references)
        self.about = {
            "phases": len(references.entries),
            "reference_set": references.reference_id,
            "largest_phase": max((len(p.structure) for p in phases), default=0),
            "missing_phases": self._flattery(structures, above),
        }
        return [Judged(r, e) for r, e in zip(relaxations, above, strict=True)]

    def _missing_elements(
        self, systems: Iterable[Collection[str]], phases: Iterable[Phase]
    ) -> list[Phase]:
        """Return crystals of the elements that the data lacks, from known structure types."""
        from pccd_workflows.engines.potential import supported_elements
        from pccd_workflows.known.prototypes import build_reference_set

        asked = {element for system in systems for element in system}
        found_in = [symbols(phase.structure.composition) for phase in phases]
        have = set().union(*(elements for elements in found_in if len(elements) == 1))
        known = supported_elements(get_level(self.level))
        found = []
        for element in sorted(asked - have if known is None else (asked & known) - have):
            built = build_reference_set(
                element, self.level, relax=lambda s: self.results.relax(s, self.level)
            )
            found += [Phase(e.entry_id, e.structure, None) for e in built.entries if e.structure]
        return found

    def _flattery(
        self, structures: Sequence[Structure], above: Sequence[float | None]
    ) -> dict[str, Any] | None:
        """Return what phases that the data lacks would change; None without the table."""
        if not self.data.table:
            return None
        present = {row["id"] for row in self.data.rows}
        crystals = [(s.composition, e) for s, e in zip(structures, above, strict=True)]
        return {"table": LEGACY_TABLE, **flattery(self.data.table, present, crystals)}

    def card(self) -> dict[str, Any]:
        """Return the protocol of this judge's verdicts."""
        from pccd_workflows.engines.potential import software

        level = get_level(self.level)
        return {
            "potential": {"level": self.level, **software(level)},
            "relaxation": f"cell and sites, forces below {self.results.fmax:g} eV/Å, at most "
            f"{self.results.steps} steps",
            "hull": f"phases of {self.data.path.name} with the same potential: all elements (known "
            "structure types of those that it lacks), and "
            f"compounds at most {NEAR_IN_DATA:g} eV/atom above its hull, or not placed on one; "
            + (
                f"those at most {NEAR_AT_LEVEL:g} eV/atom above the unrelaxed hull are relaxed"
                if self.relax_phases
                else "not relaxed"
            ),
            "corrections": "MaterialsProject2020Compatibility, once",
        }


def _molecules(systems: Iterable[Collection[str]]) -> list[Phase]:
    """Return diatomic crystals of the elements that are molecules: data files often lack them."""
    from pccd_workflows.known.prototypes import DIMERS, dimer_crystals

    elements = sorted(set(DIMERS) & {e for system in systems for e in system})
    return [
        Phase(label, structure, None)
        for element in elements
        for label, structure in dimer_crystals(element)
    ]


def disk_results(settings: Settings) -> "DiskResults":
    """Return this machine's results of potentials outside of campaigns."""
    from pccd_workflows.execution.disk_results import DiskResults

    return DiskResults(settings.data_dir / "results")


def potential_judge(
    data: Path, level: str, settings: Settings, *, progress: Progress = silent
) -> PotentialJudge:
    """Return the judge of a level with the phases of a data file.

    Raises
    ------
    InputError
        The level is no potential.
    MissingDependencyError
        Its package is not installed.
    """
    from pccd_workflows.engines.potential import calculator

    calculator(get_level(level))
    return PotentialJudge(known_file(data), level, disk_results(settings), progress=progress)


@lru_cache(maxsize=2)
def known_file(path: Path) -> KnownCrystalsFile:
    """Return the crystals of a data file; those of the last files stay in memory."""
    return KnownCrystalsFile(path)


def _with_cell(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the cell of its `structure`, if it has an ordered one."""
    if row.get("structure") is None:
        return row
    try:
        return {**row, **reduced_cell(row["structure"])}
    except RejectedError:
        return row


def _ratio(amounts: Any) -> frozenset[tuple[str, int]]:
    """Return element symbols with their numbers in lowest terms: equal for equal formulas."""
    counts = {str(name): round(n) for name, n in amounts.items()}
    common = gcd(*counts.values())
    return frozenset((name, n // common) for name, n in counts.items())


def known_for(folder: Path, data: Path, *, judge: PotentialJudge | None = None) -> Known:
    """Return what a model's crystals are measured against.

    folder: of the model, with its training index. data: known crystals.
    """
    from pccd_workflows.generators.pccd.training_index import load_training_index

    return Known(load_training_index(folder), known_file(data).with_formulas, judge)


def generation_part(
    model: "Model",
    crystals: CrystalArrays,
    known: Known,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
) -> dict[str, Any]:
    """Return the part `generation` of a model's evaluation, with its protocol card.

    Parameters
    ----------
    crystals
        Held-out crystals, whose elements are asked for.
    known
        From `known_for`; its judge, if any, adds the keys of stability.
    """
    result = evaluate_generation(
        model, crystals, known, samples=samples, seed=seed, sampler=sampler
    )
    return {**result, "hull": hull_found(known), "protocol": _card(sampler, known)}


def batches_part(
    model: "Model",
    known: Known,
    *,
    samples: int,
    sampler: Sampler,
    batches: Sequence[str] = BATCHES,
    conditions: Conditions | None = None,
) -> dict[str, Any]:
    """Return the shares of the seed's batches, and its Table 2 with ours beside it.

    Elements are drawn as the campaign files flows/<batch>.yaml say, with their seeds.

    Parameters
    ----------
    samples
        Raw samples of each batch.
    conditions
        What else is asked for; what the campaign files say if left out.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name in batches:
        requests, seed = _batch_requests(name, samples, conditions)
        verdicts = judge_samples(draw_samples(model, requests, seed=seed, sampler=sampler), known)
        parts[name] = {**report(verdicts), "hull": hull_found(known), "rows": rows_of(verdicts)}
        if name == BATCHES[1]:
            plain = [v for v in verdicts if not _has_rare_earth(v.sample.elements)]
            parts[f"{name}-without-rare-earths"] = summarize(plain)
    asked_for = {} if conditions is None else conditions.model_dump(exclude_none=True)
    card = {**_card(sampler, known), "conditions": asked_for}
    return {**parts, "table_2": table_2(parts), "protocol": card}


def _batch_requests(
    name: str, samples: int, conditions: Conditions | None
) -> tuple[list["SampleRequest"], int]:
    """Return what a campaign file of flows/ asks for, and its seed."""
    from pccd_workflows.generators.pccd.cells import draw_elements

    generate = load_campaign(REPOSITORY / "flows" / f"{name}.yaml").generate
    asked = [draw_elements(generate, i) for i in range(samples)]
    return requests_for(asked, conditions or generate.conditions), generate.seed


def _has_rare_earth(elements: Iterable[str]) -> bool:
    return any(Element(symbol).is_rare_earth for symbol in elements)


def hull_found(known: Known) -> dict[str, Any] | None:
    """Return what the judge says of the hull of its last call."""
    return dict(known.judge.about) if isinstance(known.judge, PotentialJudge) else None


def _card(sampler: Sampler, known: Known) -> dict[str, Any]:
    judge = known.judge
    return protocol_card(sampler, judge.card() if isinstance(judge, PotentialJudge) else None)


def compare_levels(
    model: "Model",
    judges: Sequence[PotentialJudge],
    *,
    batch: str,
    samples: int,
    sampler: Sampler,
) -> dict[str, Any]:
    """Return how often two potentials disagree on the same crystals, each on its own hull.

    Parameters
    ----------
    judges
        Two of them.
    batch
        Campaign file of flows/ whose elements are drawn.
    samples
        Raw samples; those that pass the screening are judged.
    """
    one, other = judges
    requests, seed = _batch_requests(batch, samples, None)
    verdicts = judge_samples(draw_samples(model, requests, seed=seed, sampler=sampler), Known())
    structures = [
        v.sample.structure for v in verdicts if v.screened and v.sample.structure is not None
    ]
    above = [[found.energy_above_hull for found in judge(structures)] for judge in (one, other)]
    return {
        "levels": [one.level, other.level],
        "batch": batch,
        "samples": samples,
        "screened": len(structures),
        **disagreement(*above),
        "crystals_by_level": [
            {"formula": s.composition.reduced_formula, one.level: a, other.level: b}
            for s, a, b in zip(structures, *above, strict=True)
        ],
        "protocol": [judge.card() for judge in judges],
    }
