"""What a place on a hull is called: how much of what is known the hull is made of decides."""

from collections.abc import Mapping, Sequence

from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.core.units import EV_TO_MEV

MOST_NAMED = 8
"""Missing phases of a chemical system that are named; all are counted."""
ON_HULL = 1e-4
"""eV/atom; a stable phase sits on the hull up to rounding, and no model is better than this."""


def hull_name(n_missing: int | None) -> str:
    """Return what a hull is called.

    n_missing: phases that are known to exist and that it lacks, in the crystal's chemical system
    and its parts; None where nobody compared it with what is known.
    """
    if n_missing is None:
        return "the hull of its references"
    if n_missing == 0:
        return "the hull"
    return f"the known hull; {n_missing} phase{'' if n_missing == 1 else 's'} missing"


def place_in_words(energy_above_hull: float | None, n_missing: int | None) -> str:
    """Return where a crystal lies: below, on or above which hull; empty if that is not known.

    energy_above_hull: eV/atom. n_missing: as in `hull_name`; of a crystal above a hull it does not
    matter, since missing phases can only lower the hull.
    """
    if energy_above_hull is None:
        return ""
    if energy_above_hull > ON_HULL:
        return "above the hull"
    side = "below" if energy_above_hull < -ON_HULL else "on"
    return f"{side} {hull_name(n_missing)}"


def may_be_stable(energy_above_hull: float | None) -> bool:
    """Return whether a crystal lies on or below its hull."""
    return energy_above_hull is not None and energy_above_hull <= ON_HULL


def may_be_words(identifiers: Sequence[str]) -> str:
    """Return what is said of a crystal of whose composition known phases have no structure here."""
    if not identifiers:
        return ""
    names = ", ".join(identifiers[:MOST_NAMED]) + (" ..." if len(identifiers) > MOST_NAMED else "")
    return f"new only if it is none of the known phases of its composition: {names}"


def missing_lines(missing: Sequence[MissingPhase]) -> list[str]:
    """Return the missing phases of a chemical system in words, at most MOST_NAMED of them."""
    lines = [f"missing: {_missing_phase(phase)}" for phase in missing[:MOST_NAMED]]
    left = len(missing) - len(lines)
    return [*lines, f"and {left} more that would move it less"] if left else lines


def missing_notes(missing: Mapping[str, Sequence[MissingPhase]]) -> list[str]:
    """Return a sentence for each chemical system of which a hull lacks known phases.

    missing: by system; those that could move the hull most come first.
    """
    return [_missing_note(chemsys, phases) for chemsys, phases in sorted(missing.items()) if phases]


def _missing_note(chemsys: str, missing: Sequence[MissingPhase]) -> str:
    number = f"{len(missing)} known phase{'' if len(missing) == 1 else 's'} of {chemsys}"
    have = "has" if len(missing) == 1 else "have"
    movers = _named([phase for phase in missing if phase.could_move_hull])
    predicted = _named([phase for phase in missing if phase.predicted_from])
    said = f": {movers}" if movers else ", none of which could lower the hull"
    if predicted:
        said = f"; predicted: {predicted}" + (f"; not predicted: {movers}" if movers else "")
    return f"{number} {have} no structure here{said}."


def _named(phases: Sequence[MissingPhase]) -> str:
    """Return phases in words; one of a composition, at most MOST_NAMED."""
    distinct = list({phase.formula: phase for phase in reversed(phases)}.values())[::-1]
    left = len(distinct) - MOST_NAMED
    named = "; ".join(_missing_phase(phase) for phase in distinct[:MOST_NAMED])
    return f"{named}; and {left} more" if left > 0 else named


def _missing_phase(phase: MissingPhase) -> str:
    what = f"{phase.formula} ({phase.id})"
    if phase.predicted_from:
        return f"{what} from {phase.predicted_from}"
    if phase.could_move_hull:
        return f"{what} could lower the hull by {EV_TO_MEV * phase.shift:.0f} meV/atom there"
    return f"{what} lies {EV_TO_MEV * phase.energy_above_hull:.0f} meV/atom above its table's hull"
