"""The seed paper's batches beside ours."""

import json

from pccd_workflows.evaluation.batches import measure_batches, seed_table
from pccd_workflows.evaluation.known_file import known_file
from pccd_workflows.evaluation.samples import Yardstick, among
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions
from pccd_workflows.report.generation import batches_page


def measured(known, batch, **options):
    return measure_batches(None, known, samples=3, sampler=Sampler(), batches=[batch], **options)


def test_table_2_has_the_seeds_numbers_beside_ours(drawn, judge, data, cu3au, cuau3):
    drawn(cu3au, cuau3, None)
    known = Yardstick({"references": among(known_file(data).with_formulas)}, judge)
    found = measured(known, "seed-batch-2")
    rows = {row.batch: row for row in found.table_2.rows}
    cell = rows["seed-batch-2"].stable_250
    assert cell.seed_of_screened == 0.618
    assert cell.ours_of_screened["n"] == 2
    assert cell.ours_of_raw["n"] == 3
    assert rows["seed-batch-1"].stable_250.ours_of_raw is None
    assert found.table_2.peers["iMatGen"]["stable_80"] == 0.0036
    shown = json.loads(json.dumps(found.as_json()))
    assert "VASP" in shown["table_2"]["caveat"]
    assert shown["protocol"]["stability"]["potential"]["level"] == "emt"
    assert shown["protocol"]["conditions"] == {}
    batch = shown["seed-batch-2"]
    assert batch["stable_250"]["n"] == 3
    assert batch["hull"]["systems"] == 1
    assert [row["decode_error"] for row in batch["rows"]] == [None, None, "shape"]
    assert set(shown["seed-batch-2-without-rare-earths"]) >= {"valid", "stable_80", "of_screened"}
    page = batches_page(shown)
    assert page.count("<svg") == 6  # two tables, and both forms of batch 2 with theirs
    assert "VASP" in page


def test_without_a_judge_nothing_is_said_of_stability(drawn, cu3au):
    drawn(cu3au)
    shown = measured(Yardstick(), "seed-batch-3", conditions=Conditions(n_sites=4)).as_json()
    assert not {"stable_250", "of_screened", "sun"} & set(shown["seed-batch-3"])
    assert shown["seed-batch-3"]["hull"] is None
    assert "stability" not in shown["protocol"]
    assert shown["protocol"]["conditions"]["n_sites"] == 4


def test_the_seeds_table_needs_nothing_of_ours():
    rows = seed_table({}).rows
    assert [row.batch for row in rows][:1] == ["seed-batch-1"]
    assert all(row.screened is None and row.stable_80.ours_of_raw is None for row in rows)
