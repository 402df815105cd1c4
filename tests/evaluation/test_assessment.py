"""Measures wired to a potential and a data file: copper and gold with EMT, which costs nothing."""

import gzip
import json

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.cli import main
from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.records import Phonons
from pccd_workflows.evaluation import assessment, rediscovery
from pccd_workflows.evaluation.assessment import (
    PotentialJudge,
    batches_part,
    compare_levels,
    known_file,
)
from pccd_workflows.evaluation.rediscovery import Draw, checked_formula, phonon_verdict, rediscover
from pccd_workflows.evaluation.verdicts import Known, Sample
from pccd_workflows.execution.disk_results import DiskResults
from pccd_workflows.generators.pccd.dataset import split_of
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.report.generation import batches_page

FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
DRAW = Draw(4, 0, Sampler())


def fcc(a: float, species: list[str]) -> Structure:
    return Structure(Lattice.cubic(a), species, FCC)


CUAU3 = fcc(4.0, ["Cu", "Au", "Au", "Au"])
CU3AU = fcc(3.72, ["Au", "Cu", "Cu", "Cu"])


@pytest.fixture(autouse=True)
def levels(monkeypatch):
    for name in ("emt", "emt-too"):
        level = Level(name, "potential", "mp2020", "ase.calculators.emt:EMT", {}, "ase")
        monkeypatch.setitem(LEVELS, name, level)


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "id": f"mp-{number}",
            "lattice": s.lattice.matrix.tolist(),
            "species": [site.specie.symbol for site in s],
            "frac_coords": s.frac_coords.tolist(),
            "energy_above_hull": 0.0,
        }
        for number, s in enumerate([fcc(3.6, ["Cu"] * 4), fcc(4.05, ["Au"] * 4), CU3AU])
    ]
    path = tmp_path / "known.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    table = {"id": "mp-9", "formula": "CuAu3", "formation_energy_per_atom": -0.3}
    (tmp_path / "mp_legacy_formation_energies.jsonl.gz").write_bytes(
        gzip.compress(json.dumps(table).encode())
    )
    return path


@pytest.fixture
def judge(data, tmp_path):
    return PotentialJudge(known_file(data), "emt", DiskResults(tmp_path / "results"))


def test_known_crystals_may_be_structures_or_cifs(tmp_path):
    doubled = Structure(
        Lattice.tetragonal(3, 6), ["Cs", "Cl"] * 2, [[0, 0, 0], [0.5, 0.5, 0.25]] * 2
    )
    doubled.translate_sites([2, 3], [0, 0, 0.5])
    lines = tmp_path / "structures.jsonl"
    lines.write_text(json.dumps({"id": "one", "structure": doubled.as_dict()}) + "\n")
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    doubled.to(str(cifs / "one.cif"))
    for data in (lines, cifs):
        (row,) = known_file(data).rows
        assert (row["id"], sorted(row["species"])) == ("one", ["Cl", "Cs"])
        assert row["split"] == split_of("Cl-Cs")
        ((name, crystal),) = known_file(data).with_formulas({"CsCl"})
        assert name == "one"
        assert len(crystal) == 2


def test_a_file_without_crystals_is_no_known_file(tmp_path):
    data = tmp_path / "nothing.jsonl"
    data.write_text('{"id": "one", "energy": 1.0}\n')
    with pytest.raises(InputError, match="holds no crystal"):
        _ = known_file(data).rows


def test_a_known_crystal_lies_on_its_own_hull(judge):
    known, new = judge([CU3AU, CUAU3])
    assert known.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert new.energy_above_hull is not None
    assert judge.card()["potential"]["level"] == "emt"
    assert judge.about["phases"] == 3
    assert judge.about["largest_phase"] == 4
    assert judge.about["missing_phases"]["phases_in_table"] == 1
    assert (
        judge.about["missing_phases"]["shift"]["largest"] > 0.1
    )  # CuAu3 of the table is not in the data


def test_an_element_that_the_data_lacks_is_taken_from_known_structure_types(judge, data):
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[1:]))  # no copper
    lacking = PotentialJudge(known_file(data), "emt", judge.results)
    known, _ = lacking([CU3AU, CUAU3])
    assert known.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert lacking.about["phases"] > 3  # gold, Cu3Au, and structures of copper


def test_the_second_run_computes_nothing(judge, data, tmp_path):
    first = judge([CUAU3])
    again = PotentialJudge(known_file(data), "emt", DiskResults(tmp_path / "results"))
    assert again([CUAU3])[0].energy_above_hull == first[0].energy_above_hull
    assert again.results.computed == 0


def test_references_are_found_by_formula(data):
    find = known_file(data).with_formulas
    assert [i for i, _ in find({"Cu3Au", "NaCl"})] == ["mp-2"]
    assert find({"CuAu3"}) == []


def drawn(monkeypatch, structures):
    """Make every model draw these crystals."""
    made = [Sample(("Au", "Cu"), s, None if s else "shape") for s in structures]
    for module in (assessment, rediscovery):
        monkeypatch.setattr(module, "draw_samples", lambda *_, **__: list(made))


def test_named_crystals_are_counted_and_the_best_is_shown(monkeypatch, judge, data):
    drawn(monkeypatch, [CU3AU, CU3AU, CUAU3, None])
    seen = []

    def phonons(structure):
        seen.append(structure)
        return Phonons(level="emt", verdict="stable", tolerance=0.1)

    known = Known(None, known_file(data).with_formulas, judge)
    found = rediscover(None, known, draw=DRAW, formulas=["Cu3Au", "AuCu"], phonons=phonons)
    assert found["Cu3Au"]["appeared"]["value"] == 0.5
    assert found["Cu3Au"]["distinct"] == 1
    assert found["Cu3Au"]["best"]["energy_above_hull"] == pytest.approx(0.0, abs=1e-3)
    assert found["Cu3Au"]["best"]["reference"] == "mp-2"
    assert found["Cu3Au"]["phonons"]["verdict"] == "stable"
    assert found["AuCu"]["appeared"]["value"] == 0.0
    assert found["AuCu"]["best"] is None
    assert len(seen) == 1
    json.dumps(found)


def test_without_a_judge_named_crystals_are_only_counted(monkeypatch, data):
    drawn(monkeypatch, [CU3AU, None])
    known = Known(None, known_file(data).with_formulas)
    found = rediscover(None, known, draw=Draw(2, 0, Sampler()), formulas=["Cu3Au"])
    assert found["Cu3Au"]["matches_reference"]["value"] == 1.0
    assert found["Cu3Au"]["best"] is None


def test_levels_are_compared_on_the_same_crystals(monkeypatch, judge, data, tmp_path):
    drawn(monkeypatch, [CU3AU, CUAU3, None])
    other = PotentialJudge(known_file(data), "emt-too", DiskResults(tmp_path / "results"))
    found = compare_levels(None, [judge, other], batch="seed-batch-3", samples=3, sampler=Sampler())
    assert found["levels"] == ["emt", "emt-too"]
    assert found["judged_by_both"] == 2
    assert found["rate"]["stable_80"]["value"] == 0.0
    assert found["mean_absolute_difference"] == pytest.approx(0.0, abs=1e-9)
    json.dumps(found)


def test_table_2_has_the_seeds_numbers_beside_ours(monkeypatch, judge, data):
    drawn(monkeypatch, [CU3AU, CUAU3, None])
    found = batches_part(
        None,
        Known(None, known_file(data).with_formulas, judge),
        samples=3,
        sampler=Sampler(),
        batches=["seed-batch-2"],
    )
    rows = {row["batch"]: row for row in found["table_2"]["rows"]}
    cell = rows["seed-batch-2"]["stable_250"]
    assert cell["seed_of_screened"] == 0.618
    assert cell["ours_of_screened"]["n"] == 2
    assert cell["ours_of_raw"]["n"] == 3
    assert rows["seed-batch-1"]["stable_250"]["ours_of_raw"] is None
    assert found["table_2"]["peers"]["iMatGen"]["stable_80"] == 0.0036
    assert "VASP" in found["table_2"]["caveat"]
    assert found["protocol"]["stability"]["potential"]["level"] == "emt"
    json.dumps(found)
    page = batches_page(found)
    assert page.count("<svg") == 6  # two tables, and both forms of batch 2 with theirs
    assert "VASP" in page


@pytest.mark.parametrize("text", ["", "Xx2O", "hello", "Mg2Mn3O8)"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(InputError, match="not a chemical formula"):
        checked_formula(text)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model", "rediscover", "m", "--formulas", "Qq2"], "not a chemical formula"),
        (["model", "rediscover", "m", "--phonons", "--no-relax"], "--phonons"),
        (["model", "batches", "m", "--only", "4"], "seed-batch-4"),
        (["model", "compare-levels", "m", "--levels", "chgnet"], "two potentials"),
        (["model", "batches", "m", "--steps", "5", "--sampler", "x"], "name"),
        (["model", "batches", "no-such-model"], "no trained model"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, reason, data, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--data", str(data)])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.startswith("pccd:")


def test_phonons_need_no_database_and_are_computed_once(tmp_path, monkeypatch):
    results = DiskResults(tmp_path / "results")
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    first = phonon_verdict(copper, "emt", results)
    assert first.verdict == "stable"
    assert first.n_displacements == 1
    monkeypatch.setattr("jobflow.run_locally", None)
    assert phonon_verdict(copper, "emt", results) == first
