"""Named crystals: asked for by their elements, how often do they come, and how good are they?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition, Structure

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.intervals import share
from pccd_workflows.engines.records import Phonons
from pccd_workflows.evaluation.assessment import hull_found
from pccd_workflows.evaluation.published import NAMED_CRYSTALS
from pccd_workflows.evaluation.stability import symbols
from pccd_workflows.evaluation.verdicts import (
    Known,
    Verdict,
    draw_samples,
    judge_samples,
    requests_for,
)
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.stages.phonons import PhononsSection

if TYPE_CHECKING:
    from pccd_workflows.execution.disk_results import DiskResults
    from pccd_workflows.generators.pccd.model import Model


@dataclass(frozen=True)
class Draw:
    """How many samples, what fixes them, and how noise becomes crystals."""

    samples: int
    seed: int
    sampler: Sampler


def rediscover(
    model: "Model",
    known: Known,
    *,
    draw: Draw,
    formulas: Sequence[str] = NAMED_CRYSTALS,
    phonons: Callable[[Structure], Phonons] | None = None,
) -> dict[str, Any]:
    """Ask for the elements of named crystals and see how often their formulas come.

    Parameters
    ----------
    draw
        Samples of each formula's elements; nothing but the elements is asked.
    formulas
        Any formula units.
    phonons
        Verdict on the best crystal of each formula; needs a judge in `known`.

    Returns
    -------
    dict
        By formula: appeared (share of the raw samples), best (the crystal nearest to the hull, or
        None), phonons.

    Raises
    ------
    InputError
        If a formula is none.
    """
    return {
        formula: _rediscover_one(model, formula, known, draw=draw, phonons=phonons)
        for formula in formulas
    }


def _rediscover_one(
    model: "Model",
    formula: str,
    known: Known,
    *,
    draw: Draw,
    phonons: Callable[[Structure], Phonons] | None,
) -> dict[str, Any]:
    composition = checked_formula(formula)
    elements = tuple(sorted(symbols(composition)))
    requests = requests_for([elements] * draw.samples)
    made = draw_samples(model, requests, seed=draw.seed, sampler=draw.sampler)
    target = composition.reduced_formula
    hits = [s for s in made if s.structure and s.structure.composition.reduced_formula == target]
    verdicts = judge_samples(hits, known)
    placed = [v for v in verdicts if v.energy_above_hull is not None]
    best = min(placed, key=lambda v: v.energy_above_hull or 0.0, default=None)
    result: dict[str, Any] = {
        "appeared": share(len(hits), draw.samples),
        "screened": share(sum(v.screened for v in verdicts), draw.samples),
        "distinct": sum(v.first_of_its_kind for v in verdicts),
        "matches_reference": share(
            sum(v.known_reference is not None for v in verdicts), len(verdicts)
        ),
        "best": None if best is None else _best(best),
        "hull": hull_found(known),
        "phonons": None,
    }
    if phonons is not None and best is not None and best.judged is not None:
        relaxed = best.judged.relaxation.structure
        if relaxed is not None:
            verdict = phonons(relaxed)
            fields = {"verdict", "reason", "min_frequency", "level", "tolerance"}
            result["phonons"] = verdict.model_dump(include=fields)
    return result


def _best(verdict: Verdict) -> dict[str, Any]:
    judged = verdict.judged
    if judged is None or judged.relaxation.structure is None:
        raise ValueError("This crystal was not relaxed.")
    relaxed = judged.relaxation.structure
    return {
        "energy_above_hull": judged.energy_above_hull,
        "n_sites": len(relaxed),
        "space_group": relaxed.get_space_group_info(symprec=0.1)[0],
        "reference": verdict.known_reference,
        "in_training": verdict.in_training,
        "rmsd_to_relaxed": judged.relaxation.rms_displacement,
        "structure": relaxed.as_dict(),
    }


def checked_formula(text: str) -> Composition:
    """Return the composition of a formula; InputError if it is none."""
    try:
        composition = Composition(text)
    except (ValueError, KeyError):
        composition = Composition()
    if not composition or not composition.valid:
        raise InputError(f"{text!r} is not a chemical formula; write e.g. Mg2Mn3O8.")
    return composition


def phonon_verdict(structure: Structure, level: str, results: "DiskResults") -> Phonons:
    """Return the phonon verdict of one crystal, computed in this process, without a database."""
    import tempfile
    import time

    from jobflow import run_locally

    from pccd_workflows.engines.phonons import phonon_flow, phonon_key, phonon_record, tight_cell
    from pccd_workflows.execution.stores import memory_store

    section = PhononsSection(level=level)
    key = phonon_key(structure, level, section)
    if (stored := results.read(key)) is not None:
        return Phonons.model_validate(stored)
    began = time.monotonic()
    try:
        tight = tight_cell(structure, level)
        flow = phonon_flow(tight, level, section)
        store = memory_store()
        with tempfile.TemporaryDirectory(prefix="pccd-phonons-") as folder:
            run_locally(flow, store=store, log=False, ensure_success=True, root_dir=folder)
        document = store.get_output(flow.output.uuid, load=True)
        seconds = time.monotonic() - began
        record = phonon_record(document, level, section, seconds=seconds)
    except (PccdError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        record = Phonons(
            level=level, verdict="error", reason=reason, tolerance=section.tolerance_thz
        )
    results.write(key, record.model_dump(mode="json"))
    return record
