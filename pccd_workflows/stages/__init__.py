"""The stages of a campaign, in order. A new stage is one file here and one line below.

Stages of installed packages (entry points ``pccd_workflows.stages``, whose value is a `Stage`) come
after them, in the order of their names; a campaign asks for them by name under ``stages``.
"""

from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pccd_workflows.core.errors import InputError
from pccd_workflows.stages import bands, deduplicate, generate, hull, phonons, relax, screen
from pccd_workflows.stages.stage import FunnelStep, Outcome, Records, Stage

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign

__all__ = ["STAGES", "all_stages", "funnel", "funnel_by_stage", "judge", "names", "stage_of"]

ENTRY_POINTS = "pccd_workflows.stages"

STAGES: tuple[Stage, ...] = (
    generate.STAGE,
    screen.STAGE,
    deduplicate.STAGE,
    relax.STAGE,
    hull.STAGE,
    bands.STAGE,
    phonons.STAGE,
)


def all_stages() -> tuple[Stage, ...]:
    """Return the stages of the project and of installed packages, in order.

    Raises
    ------
    InputError
        A stage of an installed package cannot be loaded, or has the name of another one.
    """
    return (*STAGES, *_installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[Stage, ...]:
    found: list[Stage] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        where = f"The stage of entry point {point.name!r} ({point.value})"
        try:
            stage = point.load()
        except Exception as error:
            raise InputError(
                f"{where} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(stage, Stage):
            raise InputError(f"{where} is no Stage.")
        if stage.kind in [other.kind for other in (*STAGES, *found)]:
            raise InputError(f"{where}: there is a stage {stage.kind!r} already.")
        found.append(stage)
    return tuple(found)


def stage_of(name: str) -> Stage:
    """Return the stage of a name such as ``relax:chgnet``.

    Raises
    ------
    InputError
        There is no such stage; the message names those that exist.
    """
    kind = name.partition(":")[0]
    found = next((stage for stage in all_stages() if stage.kind == kind), None)
    if found is None:
        kinds = ", ".join(stage.kind for stage in all_stages())
        raise InputError(f"There is no stage {name!r}; use one of {kinds}.")
    return found


def _instances(campaign: "Campaign") -> list[tuple[Stage, str]]:
    """Return the stages of a campaign with their levels, in the order candidates reach them."""
    known = all_stages()
    first_of_rungs = next(number for number, stage in enumerate(known) if stage.rung)
    before = [stage for stage in known[:first_of_rungs] if not stage.rung]
    after = [stage for stage in known[first_of_rungs:] if not stage.rung]
    of_rungs = [
        (stage, rung.level)
        for rung in campaign.rungs
        for stage in known
        if stage.rung and rung.level in stage.levels(campaign)
    ]
    return [
        *((stage, level) for stage in before for level in stage.levels(campaign)),
        *of_rungs,
        *((stage, level) for stage in after for level in stage.levels(campaign)),
    ]


def names(campaign: "Campaign") -> list[str]:
    """Return every stage that a candidate may go through, in order, as documents name them."""
    return [stage.name(level) for stage, level in _instances(campaign)]


def funnel(campaign: "Campaign") -> list[FunnelStep]:
    """Return the steps of a campaign's funnel, in order."""
    return [step for _, step in funnel_by_stage(campaign)]


def funnel_by_stage(campaign: "Campaign") -> list[tuple[Stage, FunnelStep]]:
    """Return the steps of a campaign's funnel, in order, each with the stage whose it is."""
    return [
        (stage, step)
        for stage, level in _instances(campaign)
        for step in stage.steps(campaign, level)
    ]


def judge(campaign: "Campaign", records: Records) -> Outcome | None:
    """Return where its records leave a candidate: the first one that ends its way decides."""
    for name in names(campaign):
        if name in records:
            outcome = stage_of(name).outcome(records[name], campaign)
            if outcome is not None:
                return outcome
    return None
