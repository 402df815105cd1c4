"""What a campaign will cost, rung by rung: a stated model, corrected by what finished runs cost.

The models are those of the levels (`pccd_workflows.engines.cost_models`). Their scale is a guess
(an order of magnitude: machines, PREC and NELM differ) until runs of the level are in the table of
costs; then it is the median of what they took relative to the model, and the steps are theirs, too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition, Element

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.engines.cost_models import Crystal
from pccd_workflows.engines.levels import get_level
from pccd_workflows.stages.rung import Rung

if TYPE_CHECKING:
    from pymongo.database import Database

    from pccd_workflows.settings import Settings

Document = dict[str, Any]

TYPICAL_ATOMS = 12
"""Atoms of a cell that is not known yet."""
ENOUGH = 3
"""Runs of one name from which a correction is taken."""


@dataclass(frozen=True)
class CostEstimate:
    """What a rung will cost.

    candidates: relaxed, at most. references: competing phases computed with DFT, at most.
    calibrated_by: finished runs behind the correction; 0: the model's guess, good to a factor 10.
    correction: measured over modelled time.
    limit: the rung's budget, core-hours.
    """

    level: str
    candidates: int
    references: int
    core_hours: float
    gpu_hours: float
    core_hours_per_candidate: float
    calibrated_by: int
    correction: float
    limit: float | None = None
    spent: float = 0.0

    @property
    def affordable(self) -> int:
        """Candidates that the budget pays for."""
        if self.limit is None or self.core_hours_per_candidate <= 0:
            return self.candidates
        left = max(self.limit - self.spent, 0.0)
        return min(self.candidates, int(left / self.core_hours_per_candidate))

    def as_dict(self) -> Document:
        """Return plain values, for JSON."""
        return {**asdict(self), "affordable": self.affordable}


def valence_electrons(symbol: str) -> int:
    """Return the electrons outside the noble-gas core and outside a closed d or f shell."""
    element = Element(symbol)
    if element.is_lanthanoid or element.is_actinoid:
        return 11
    if element.group > 12:
        return int(element.group) - 10
    return int(element.group)


def describe(composition: Composition) -> Crystal:
    """Return what the cost of a cell of `composition` depends on."""
    electrons = sum(valence_electrons(e.symbol) * n for e, n in composition.items())
    return Crystal(composition.num_atoms, electrons)


@dataclass(frozen=True)
class History:
    """What finished runs of a level say: corrections and steps by name, and how many there are."""

    corrections: Mapping[str, float]
    steps: Mapping[str, float]
    runs: int
    gpu_share: float = 0.0


def history_of(level: str, rows: Iterable[Document]) -> History:
    """Return what the costs of one level say.

    rows: as `pccd_workflows.execution.costs.finished_runs` returns them.
    """
    model = get_level(level).cost
    ratios: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    gpus = []
    for row in rows:
        modelled = model.seconds(row)
        if not modelled or row.get("plan") not in ("relax", "reference", "bands"):
            continue
        ratios.setdefault(row["run"], []).append(row["seconds"] * row["cores"] / modelled)
        steps.setdefault(row["run"], []).append(row["n_steps"])
        gpus.append(row["gpu_hours"] / row["core_hours"] if row["core_hours"] else 0.0)
    known = {name: values for name, values in ratios.items() if len(values) >= ENOUGH}
    return History(
        corrections={name: median(values) for name, values in known.items()},
        steps={name: sum(steps[name]) / len(steps[name]) for name in known},
        runs=sum(map(len, known.values())),
        gpu_share=median(gpus) if known else 0.0,
    )


def core_seconds(level: str, crystal: Crystal, history: History, *, bands: bool = False) -> float:
    """Return the core-seconds of relaxing one crystal at a level; `bands`: of its bands, too."""
    model, overall = get_level(level).cost, _overall(history)
    total = 0.0
    for name, facts in model.expected(crystal, bands=bands).items():
        known = {**facts, "n_steps": history.steps.get(name, facts["n_steps"])}
        total += (model.seconds(known) or 0.0) * history.corrections.get(name, overall)
    return total


def _overall(history: History) -> float:
    values = list(history.corrections.values())
    return median(values) if values else 1.0


def estimate(
    rung: Rung,
    crystals: Sequence[Crystal],
    history: History,
    *,
    references: int = 0,
    spent: float = 0.0,
    limit: float | None = None,
) -> CostEstimate:
    """Return what a rung costs if it relaxes `crystals` and as many references of their mean size.

    Where the rung asks for band structures, every crystal gets one.

    spent, limit: core-hours that were used already, and that may be.
    """
    relaxing = [core_seconds(rung.level, crystal, history) / 3600 for crystal in crystals]
    hours = relaxing
    if rung.band_structure:
        seconds = (core_seconds(rung.level, c, history, bands=True) for c in crystals)
        hours = [second / 3600 for second in seconds]
    mean, plain = (sum(each) / len(each) if each else 0.0 for each in (hours, relaxing))
    total = mean * len(hours) + plain * references
    return CostEstimate(
        level=rung.level,
        candidates=len(hours),
        references=references,
        core_hours=total,
        gpu_hours=total * history.gpu_share,
        core_hours_per_candidate=mean,
        calibrated_by=history.runs,
        correction=_overall(history),
        limit=limit,
        spent=spent,
    )


def expected_crystal(campaign: Campaign) -> Crystal:
    """Return the crystal that a campaign's samples are on average, by what was asked for."""
    conditions = campaign.asked[0].asked_conditions()
    if conditions.composition is not None:
        return describe(Composition(conditions.composition))
    symbols = campaign.elements
    mean = sum(map(valence_electrons, symbols)) / len(symbols)
    atoms = conditions.n_sites or TYPICAL_ATOMS
    return Crystal(atoms, atoms * mean)


def estimate_campaign(campaign: Campaign, settings: "Settings | None") -> list[CostEstimate]:
    """Return what each rung costs at most: every sample survives, but for the budgets.

    A campaign that runs already counts with the crystals that reached the rung, once there are
    some. Without `settings`, or without a database, nothing is known of earlier runs.
    """
    from pccd_workflows.execution import costs

    database = _database(settings)
    found, most = [], campaign.n_samples
    for rung in campaign.rungs:
        most = min(most, rung.budget.candidates or most)
        crystals: Sequence[Crystal] = [expected_crystal(campaign)] * most
        rows: list[Document] = []
        spent, limit = 0.0, rung.budget.core_hours
        if database is not None:
            rows = costs.finished_runs(database, rung.level)
            spent = costs.spent(database, campaign.campaign_id, rung.level)
            raised = costs.budget(database, campaign.campaign_id, rung.level)
            limit = limit if raised is None else raised
            if known := _reached(database, campaign, rung):
                crystals = known[: rung.budget.candidates]
        references = _references(campaign, rung)
        history = history_of(rung.level, rows)
        found.append(
            estimate(rung, crystals, history, references=references, spent=spent, limit=limit)
        )
    return found


def _database(settings: "Settings | None") -> "Database[Document] | None":
    from pccd_workflows.execution import mongo

    if settings is None:
        return None
    try:
        return mongo.database(settings)
    except DatabaseError:
        return None


def _reached(database: "Database[Document]", campaign: Campaign, rung: Rung) -> list[Crystal]:
    """Return the crystals of a campaign that got as far as a rung, the best first."""
    query: Document = {"campaign_id": campaign.campaign_id}
    number = campaign.rungs.index(rung)
    if number == 0:
        query |= {"novelty": {"$ne": None}, "novelty.duplicate_of": None}
    else:
        before = campaign.rungs[number - 1].level
        query["stabilities"] = {"$elemMatch": {"level": before, "passed": True}}
    fields = {"structure.sites.species.element": 1}
    rows = database["candidates"].find(query, fields).sort("energy_above_hull", 1)
    return [describe(_composition(row)) for row in rows if row.get("structure")]


def _composition(row: Document) -> Composition:
    amounts: dict[str, float] = {}
    for site in row["structure"]["sites"]:
        symbol = site["species"][0]["element"]
        amounts[symbol] = amounts.get(symbol, 0) + 1
    return Composition(amounts)


def _references(campaign: Campaign, rung: Rung) -> int:
    """Return how many competing phases a rung computes with DFT, at most."""
    from pccd_workflows.stages.references import recomputes

    if not recomputes(campaign, rung):
        return 0
    sets = [getattr(source, "element_sets", None) or [0] for source in campaign.asked]
    systems = 1 if campaign.chemsys is not None else sum(map(len, sets))
    return rung.budget.references * systems


def read_budget(text: str, campaign: Campaign) -> tuple[str, float]:
    """Return level and core-hours of ``LEVEL=HOURS``.

    Raises
    ------
    InputError
        It is not of that form, no positive number, or the campaign has no such rung.
    """
    level, equals, number = text.partition("=")
    levels = [rung.level for rung in campaign.rungs]
    try:
        hours = float(number)
    except ValueError:
        hours = math.nan
    if not equals or not 0 < hours < math.inf:
        raise InputError(f"--core-hours {text!r}: write LEVEL=HOURS, e.g. {levels[-1]}=500.")
    if level not in levels:
        raise InputError(f"--core-hours: the campaign has no rung {level!r}; use one of {levels}.")
    return level, hours
