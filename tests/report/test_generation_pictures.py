"""Pictures of a generation's measures show what is there and nothing else."""

from pccd_workflows.core.intervals import share
from pccd_workflows.evaluation.batches import seed_table
from pccd_workflows.report.generation import generation_pictures, table_2_picture

PART = {
    "valid": share(9, 10),
    "unique": share(8, 10),
    "novel": share(7, 10),
    "stable_0": share(1, 10),
    "stable_250": share(4, 10),
    "of_screened": {"stable_250": share(4, 8), "stable_80": share(0, 8)},
    "rows": [
        {"energy_above_hull": e, "rmsd_to_relaxed": 0.1} for e in (-0.05, 0.03, 0.09, 0.2, 3.0)
    ]
    + [{"energy_above_hull": None, "rmsd_to_relaxed": None}] * 5,
}


def test_every_measured_share_is_a_bar_with_its_interval():
    bars, energies, moved = map(str, generation_pictures(PART, "batch 1"))
    assert bars.count("<rect") == 5
    assert "valid: 90.0% (95 %: 59.6% to 98.2%)" in bars
    assert "of 5 crystals" in energies
    assert "5 crystals by relaxing" in moved


def test_without_relaxation_there_are_shares_only():
    part = {"valid": share(0, 0), "unique": share(8, 10), "rows": [{"energy_above_hull": None}]}
    (bars,) = generation_pictures(part, "batch 1")
    assert str(bars).count("<rect") == 1


def test_table_2_has_a_bar_of_the_seed_even_where_we_have_none():
    table = seed_table({}).as_json()
    ours = {"ours_of_screened": share(4, 8), "ours_of_raw": share(4, 10)}
    table["rows"][0]["stable_250"] |= ours
    drawn = str(table_2_picture(table))
    assert drawn.count("<rect") == 5
    assert "seed-batch-1, ours: 50.0%" in drawn
    assert "seed-batch-3, seed: 66.7%" in drawn
