"""What `pccd campaign rescore` does and prints."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.levels import get_level
from pccd_workflows.execution import mongo
from pccd_workflows.rescore import (
    Rescored,
    rescore_campaign,
    store_rescored,
    verdict_in_words,
)
from pccd_workflows.settings import Settings

if TYPE_CHECKING:
    from pymongo.database import Database


def run(
    campaign: Campaign,
    settings: Settings,
    references: Sequence[str],
    *,
    level: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Rescore a campaign against each snapshot, print the flips, and store unless told not to."""
    database = mongo.database(settings)
    outcomes = []
    for text in references:
        new_set = find_snapshot(database, campaign, text, level or campaign.rungs[-1].level)
        rescored = rescore_campaign(database, campaign.campaign_id, new_set)
        if not dry_run:
            mongo.put_reference_set(database, new_set)
            store_rescored(database, campaign.campaign_id, rescored)
        outcomes.append(rescored)
    if as_json:
        typer.echo(json.dumps([as_dictionary(rescored) for rescored in outcomes], indent=2))
        return
    for rescored in outcomes:
        print_rescored(rescored, stored=not dry_run)


def find_snapshot(
    database: "Database[dict[str, Any]]", campaign: Campaign, text: str, level: str
) -> ReferenceSet:
    """Return the snapshot that a reference id or a file's path stands for.

    Raises
    ------
    InputError
        It is neither; or a file of phases for a campaign without one set of elements.
    """
    stored = mongo.get_reference_set(database, text)
    if stored is not None:
        return stored
    path = Path(text)
    if not path.exists():
        raise InputError(
            f"{text!r} is neither a file nor a stored reference set; `pccd reference list` shows "
            "those there are."
        )
    from pccd_workflows.known.reference_files import load_reference_set, read_reference_set

    if path.name.endswith((".json", ".json.gz")):
        return read_reference_set(path)
    if campaign.chemsys is None:
        raise InputError(
            "A file of phases is read for one chemical system, and this campaign has several: "
            "build reference sets from it first."
        )
    return load_reference_set(path, campaign.chemsys, level, get_level(level).convention)


def as_dictionary(rescored: Rescored) -> dict[str, Any]:
    """Return what --json prints: energies in eV/atom."""
    return {
        "references": rescored.references,
        "rejudged": len(rescored.rejudged),
        "not_covered": rescored.not_covered,
        "flips": [
            {
                "candidate_id": flip.candidate_id,
                "formula": flip.formula,
                "before": flip.verdicts[0],
                "after": flip.verdicts[1],
                "energy_above_hull_before": flip.before.energy_above_hull,
                "energy_above_hull_after": flip.after.energy_above_hull,
                "reason": flip.reason,
            }
            for flip in rescored.flips
        ],
    }


def print_rescored(rescored: Rescored, *, stored: bool) -> None:
    """Print the flips as a table, with the reason of each."""
    from rich.console import Console

    from pccd_workflows.cli.tables import plain_table

    flips = rescored.flips
    typer.echo(
        f"{rescored.references}: {len(flips)} of {len(rescored.rejudged)} verdicts flip"
        + (f"; {rescored.not_covered} are not covered" if rescored.not_covered else "")
        + (", stored beside the old ones." if stored else ", nothing stored.")
    )
    if not flips:
        return
    table = plain_table("Candidate", "Formula", "Before", "After", "meV/atom", "Why")
    for flip in flips:
        energies = [
            f"{(s.energy_above_hull or 0.0) * EV_TO_MEV:.0f}" for s in (flip.before, flip.after)
        ]
        table.add_row(
            flip.candidate_id,
            flip.formula,
            *map(verdict_in_words, (flip.before, flip.after)),
            " -> ".join(energies),
            flip.reason,
        )
    Console().print(table)
