"""What a place on a hull is called: how much of what is known the hull is made of decides."""

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
