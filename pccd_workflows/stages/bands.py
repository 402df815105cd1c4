"""Bands: the electronic band structure of the crystals that a rung kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pccd_workflows.analysis.magnetism import MagneticOrdering
from pccd_workflows.core.storage import CrystalRef, Storage, load_crystals, store_crystals
from pccd_workflows.engines.records import Bands
from pccd_workflows.stages.stage import (
    Column,
    Description,
    Records,
    Stage,
    facts,
    nothing,
    number,
    point,
)

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign
    from pccd_workflows.stages.rung import Rung


def cells(campaign: "Campaign", rung: "Rung", storage: Storage) -> list[CrystalRef]:
    """Store the cells whose bands a rung asks for, spins as their runs start; return them."""
    from pccd_workflows.engines.vasp import magnetic_cell

    kept = list(storage.rows(campaign.campaign_id, f"hull:{rung.level}", goes_on=True))
    crystals = load_crystals(storage, [row.ref for row in kept])
    return store_crystals(
        storage,
        [
            (row.candidate_id, magnetic_cell(crystal, ordering_of(campaign, row.candidate_id)))
            for row, crystal in zip(kept, crystals, strict=True)
        ],
    )


def ordering_of(campaign: "Campaign", candidate_id: str) -> MagneticOrdering | None:
    """Return the magnetic order that a candidate was asked to have."""
    return campaign.conditions(candidate_id).magnetic_ordering


def gap_text(record: Bands) -> str:
    """Return a band gap in words; empty if it was not computed."""
    if record.is_metal is None or record.band_gap is None:
        return ""
    kind = "direct" if record.direct else "indirect"
    return "metal" if record.is_metal else f"{record.band_gap:.2f} eV, {kind}"


def _levels(campaign: "Campaign") -> Sequence[str]:
    return [rung.level for rung in campaign.rungs if rung.band_structure]


def asked_gap(records: Records) -> str:
    """Return the band gap that the generator was asked for; empty if it was not."""
    generation = records.get("generate")
    asked = None if generation is None else generation.conditions.get("band_gap")
    return "" if asked is None else f"asked for {asked:.2f} eV"


def _describe(record: Bands, records: Records) -> Description:
    edges = (("valence maximum", record.vbm_kpoint), ("conduction minimum", record.cbm_kpoint))
    found = facts(
        asked_gap(records),
        *(f"{name} at k = ({point(where)})" for name, where in edges if where is not None),
        number("Fermi level", record.efermi, "eV", 3),
        f"path {record.kpath}" if record.kpath else "",
        record.reason or "",
    )
    return Description(gap_text(record) or "not computed", "open", found)


STAGE = Stage(
    kind="bands",
    record=Bands,
    levels=_levels,
    outcome=lambda _record, _campaign: None,
    describe=_describe,
    steps=nothing,
    rung=True,
    columns=(
        Column("band_gap", "eV", lambda record: record.band_gap, show=True, text=gap_text),
        Column("band_gap_direct", "", lambda record: record.direct),
        Column("is_metal", "", lambda record: record.is_metal),
        Column("band_gap_level", "", lambda record: record.level),
    ),
    tabulated=lambda record: record.band_gap is not None,
    heavy=("bands", "structure", "settings", "software"),
    figure="pccd_workflows.report.panels:bands_panels",
)
