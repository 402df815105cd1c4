"""Estimates: the model, its correction by finished runs, budgets that stop a rung and go on."""

import json
from datetime import UTC, datetime

import pytest
import yaml
from jobflow import Flow
from pymatgen.core import Composition, Lattice, Structure
from vasp_fixture import use_standin

from pccd_workflows import cost
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal
from pccd_workflows.cli import main
from pccd_workflows.core.errors import InputError
from pccd_workflows.execution import costs, launchpad, mongo
from pccd_workflows.jobs.dft import dft_job
from pccd_workflows.stages.rung import Rung

LEVEL = "vasp/mp-gga"


def campaign(**rung) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "priced",
            "generate": {
                "elements": ["Mg", "O"],
                "samples": 50,
                "conditions": {"composition": "Mg4O4"},
            },
            "rungs": [{"level": "chgnet"}, {"level": LEVEL, **rung}],
        }
    )


def row(run: str, seconds: float, **facts) -> dict:
    """Return a row of the ledger: four cores, a cell like Mg4O4."""
    return {
        "level": LEVEL,
        "plan": "relax",
        "run": run,
        "seconds": seconds,
        "cores": 4,
        "n_electrons": 32,
        "n_kpoints": 20,
        "n_spins": 2,
        "n_steps": 10,
        "core_hours": 4 * seconds / 3600,
        "gpu_hours": 0.0,
        **facts,
    }


def test_electrons_are_counted_outside_closed_shells():
    expected = {"H": 1, "O": 6, "Mg": 2, "Al": 3, "Si": 4, "Mn": 7, "Zn": 12, "Br": 7, "La": 11}
    assert {s: cost.valence_electrons(s) for s in expected} == expected
    assert cost.describe(Composition("Mg4O4")) == cost.Crystal(8, 32)


def test_work_grows_between_the_square_and_the_cube_of_the_electrons():
    facts = {"n_kpoints": 4, "n_spins": 1, "n_steps": 10}
    small, large = (cost.modelled_seconds(LEVEL, n_electrons=n, **facts) for n in (100, 200))
    assert 4 < large / small < 8
    more = cost.modelled_seconds(LEVEL, n_electrons=100, **(facts | {"n_spins": 2}))
    assert more == pytest.approx(2 * small)
    # a cell twice as large has half the k-points
    few, many = (cost.irreducible_kpoints(LEVEL, n) for n in (16, 8))
    assert many == pytest.approx(2 * few)


def test_finished_runs_correct_the_model():
    crystal = cost.Crystal(8, 32)
    plain = cost.core_seconds(LEVEL, crystal, cost.history_of(LEVEL, []))
    modelled = cost.modelled_seconds(LEVEL, n_electrons=32, n_kpoints=20, n_spins=2, n_steps=10)
    slow = [row(name, 3 * modelled / 4) for name in cost.STEPS[LEVEL] for _ in range(3)]
    history = cost.history_of(LEVEL, [*slow, row("relax 1", 1.0, plan="forces")])
    assert history.runs == 9
    assert history.corrections == pytest.approx(dict.fromkeys(cost.STEPS[LEVEL], 3.0))
    assert history.steps["static"] == 10
    corrected = cost.core_seconds(LEVEL, crystal, history)
    guessed_steps = sum(cost.STEPS[LEVEL].values())
    assert corrected == pytest.approx(plain * 3 * 30 / guessed_steps)
    # too few to say anything
    assert cost.history_of(LEVEL, slow[:2]).runs == 0


def test_a_budget_says_how_many_it_pays_for():
    rung = Rung(level=LEVEL)
    found = cost.estimate(
        rung, [cost.Crystal(8, 32)] * 10, cost.history_of(LEVEL, []), references=5, limit=1.0
    )
    assert found.core_hours == pytest.approx(15 * found.core_hours_per_candidate)
    assert found.affordable == min(10, int(1.0 / found.core_hours_per_candidate))
    assert found.as_dict()["affordable"] == found.affordable


@pytest.mark.parametrize("level", [LEVEL, "vasp/mp-r2scan"])
def test_band_structures_are_priced_for_candidates_only(level):
    crystals, nothing = [cost.Crystal(8, 32)] * 10, cost.history_of(level, [])
    plain, asked = (
        cost.estimate(Rung(level=level, band_structure=b), crystals, nothing, references=5)
        for b in (False, True)
    )
    bands = asked.core_hours_per_candidate - plain.core_hours_per_candidate
    assert 0 < bands < plain.core_hours_per_candidate * 2
    assert asked.core_hours == pytest.approx(plain.core_hours + 10 * bands)
    # finished runs correct them like any other
    mesh = cost.irreducible_kpoints(level, 8)
    points = {name: m * mesh + path for name, (m, path) in cost.BAND_KPOINTS[level].items()}
    rows = []
    for name, n_kpoints in points.items():
        facts = {"n_electrons": 32, "n_kpoints": n_kpoints, "n_spins": 2, "n_steps": 1}
        seconds = 3 * cost.modelled_seconds(level, **facts) / 4
        rows += [row(name, seconds, level=level, plan="bands", **facts)] * 3
    history = cost.history_of(level, rows)
    assert history.corrections == pytest.approx(dict.fromkeys(points, 3.0))


def test_the_command_prices_a_file_and_learns(settings, tmp_path, capsys):
    path = tmp_path / "priced.yaml"
    whole = campaign(budget={"candidates": 5, "core_hours": 100})
    path.write_text(yaml.safe_dump(whole.resolved()))

    def said(*options: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["campaign", "cost", str(path), *options])
        assert not end.value.code
        return capsys.readouterr().out

    def priced() -> dict:
        return json.loads(said("--json"))

    first = priced()
    potential, dft = first["rungs"]
    assert (potential["candidates"], dft["candidates"], dft["limit"]) == (50, 5, 100)
    assert dft["references"] == 40  # prototypes, recomputed
    assert dft["core_hours"] > potential["core_hours"] > 0
    assert dft["calibrated_by"] == 0
    modelled = cost.modelled_seconds(LEVEL, n_electrons=32, n_kpoints=20, n_spins=2, n_steps=10)
    rows = [row(name, modelled, outcome="done") for name in cost.STEPS[LEVEL] for _ in range(3)]
    mongo.database(settings)["costs"].insert_many(
        [r | {"campaign_id": whole.campaign_id, "at": datetime.now(UTC)} for r in rows]
    )
    dft = priced()["rungs"][1]
    assert dft["calibrated_by"] == 9
    assert dft["correction"] == pytest.approx(4.0)
    assert dft["spent"] == pytest.approx(9 * 4 * modelled / 3600)
    table = said()
    assert "4 times the model" in table
    assert "chgnet: no finished runs yet" in table


def test_a_spent_budget_skips_the_rest_and_goes_on_when_raised(settings, tmp_path, monkeypatch):
    from pccd_workflows.settings import get_settings

    use_standin(monkeypatch, tmp_path)
    found, whole = get_settings(), campaign(budget={"core_hours": 1e-6})
    database = mongo.database(found)
    mongo.ensure_indexes(database)
    document = {"_id": whole.campaign_id, "campaign": whole.resolved(), "name": whole.name}
    database["campaigns"].insert_one(document)
    sites = [[0, 0, 0], [0.5] * 3]
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], sites)
    crystal = Crystal(candidate_id="c-0", structure=cell.get_primitive_structure())
    flow = Flow([dft_job(crystal, LEVEL, None)])
    flow.update_metadata({"campaign_id": whole.campaign_id})
    launchpad.submit(flow, found)
    launchpad.run_worker(found)
    # one run was started, none after it
    assert database["costs"].count_documents({}) == 1
    assert database["results"].count_documents({"kind": "relaxation"}) == 0
    assert database["skipped"].count_documents({}) == 1
    assert set(launchpad.campaign_states(found, whole.campaign_id)) == {"COMPLETED"}
    reason = costs.overspent(database, whole.campaign_id, LEVEL)
    assert reason.startswith("The rung's budget of 1e-06 core-hours is spent")
    assert costs.raise_budget(found, whole.campaign_id, LEVEL, 10.0) == 1
    launchpad.run_worker(found)
    assert database["costs"].count_documents({}) == 3
    (relaxation,) = database["results"].find({"kind": "relaxation"})
    assert relaxation["result"]["verdict"] == "converged"
    assert costs.overspent(database, whole.campaign_id, LEVEL) is None


def test_a_spent_budget_skips_band_structures(settings, tmp_path, monkeypatch):
    from pccd_workflows.settings import get_settings

    use_standin(monkeypatch, tmp_path)
    found = get_settings()
    whole = campaign(budget={"core_hours": 0.5}, band_structure=True)
    database = mongo.database(found)
    mongo.ensure_indexes(database)
    document = {"_id": whole.campaign_id, "campaign": whole.resolved(), "name": whole.name}
    database["campaigns"].insert_one(document)
    # of the half hour, each used a part
    used = {"relax": 0.3, "bands": 0.15, "reference": 0.1, "forces": 0.05}
    for plan, hours in used.items():
        run = row(plan, 1.0, plan=plan, core_hours=hours, campaign_id=whole.campaign_id)
        database["costs"].insert_one(run)
    assert costs.spent(database, whole.campaign_id, LEVEL) == pytest.approx(0.6)
    cell = Structure(Lattice.cubic(3.0), ["Mg"], [[0, 0, 0]])
    flow = Flow([dft_job(Crystal(candidate_id="c-0", structure=cell), LEVEL, None, "bands")])
    flow.update_metadata({"campaign_id": whole.campaign_id})
    launchpad.submit(flow, found)
    launchpad.run_worker(found)
    assert launchpad.campaign_states(found, whole.campaign_id) == {"COMPLETED": 1}
    store = mongo.job_store(found)
    store.connect()
    (output,) = store.query({"output.stage": f"bands:{LEVEL}"}, ["output"], load=True)
    reason = output["output"]["records"]["c-0"]["reason"]
    assert reason == "The rung's budget of 0.5 core-hours is spent (0.6 were used)."
    assert database["skipped"].count_documents({}) == 1


@pytest.mark.parametrize("text", ["chgnet", "chgnet=", "chgnet=-1", "chgnet=nan", "7net-0=5"])
def test_a_budget_that_makes_no_sense_is_refused(text):
    with pytest.raises(InputError, match="--core-hours"):
        cost.read_budget(text, campaign())
    assert cost.read_budget("chgnet=2.5", campaign()) == ("chgnet", 2.5)


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 1),
        ({"SLURM_NTASKS": "32", "SLURM_CPUS_PER_TASK": "2"}, 64),
        ({"SLURM_NTASKS": "8"}, 8),
        ({"PBS_NP": "16"}, 16),
        ({"NSLOTS": "4"}, 4),
        ({"SLURM_NTASKS": "many"}, 1),
    ],
)
def test_cores_are_those_of_the_queue(monkeypatch, variables, cores):
    for name in ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "PBS_NP", "NCPUS", "NSLOTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert costs.allocated_cores() == cores
