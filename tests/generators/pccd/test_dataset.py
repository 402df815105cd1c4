"""Datasets: built, stored, split, refused."""

import json
import re

import numpy as np
import pytest
from mp_server import CRYSTALS, ProjectServer, serve
from pymatgen.core import Lattice, Structure

from pccd_workflows.cli import main
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.execution.mongo import database
from pccd_workflows.generators.pccd.dataset import (
    CHUNK,
    CRYSTAL_SYSTEMS,
    NEVER_RELAXED,
    DatasetLimits,
    build_dataset,
    check_splits,
    content_hash,
    crystal_key,
    crystal_system,
    describe_dataset,
    read_dataset,
    read_provenance,
    split_of,
    write_dataset,
)
from pccd_workflows.generators.pccd.training_records import (
    collection_records,
    materials_project_records,
)
from pccd_workflows.known import mp_client
from pccd_workflows.known.mp_client import Client

SALT = {
    "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
    "species": ["Cs", "Cl"],
    "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "spacegroup": 221,
}


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_round_trip_through_the_file(crystals_file, tmp_path):
    arrays, rejected = build_dataset(crystals_file)
    assert rejected == {"more than 3 elements": 64}
    sha256 = write_dataset(tmp_path / "a.npz", arrays)
    again = read_dataset(tmp_path / "a.npz")
    assert sha256 == content_hash(arrays) == content_hash(again)
    assert len(again) == 384
    assert set(again.n_sites.tolist()) == {2, 5}
    assert describe_dataset(again)["shared_between_splits"] == 0
    assert again.of_split("test").n_sites.tolist() == [5] * 32


def test_values_are_those_of_the_crystal(tmp_path):
    row = SALT | {"band_gap": 6.1, "energy_above_hull": 0.0, "magnetic_ordering": "NM"}
    arrays, _ = build_dataset(write_lines(tmp_path / "x.jsonl", [row]))
    assert arrays.lengths[0] == pytest.approx([4, 4, 4])
    assert arrays.angles[0] == pytest.approx([90, 90, 90])
    assert arrays.numbers[0, :3].tolist() == [55, 17, 0]
    assert (arrays.band_gap[0], arrays.energy_above_hull[0], arrays.ordering[0]) == (
        pytest.approx(6.1),
        0.0,
        0,
    )
    assert CRYSTAL_SYSTEMS[arrays.crystal_system[0]] == "cubic"
    assert arrays.key[0] == crystal_key(["Cl", "Cs"], 221)
    assert arrays.structure(0).matches(
        Structure(Lattice.cubic(4), SALT["species"], SALT["frac_coords"]), scale=False
    )


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        SALT,
        SALT | {"species": ["Cs", "Qq"]},
        SALT | {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, None]]},
        SALT | {"lattice": [[40, 0, 0], [0, 40, 0], [0, 0, 40]]},
        SALT | {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, float("nan")]]},
    ]
    arrays, rejected = build_dataset(write_lines(tmp_path / "x.jsonl", rows), DatasetLimits())
    assert len(arrays) == 1
    assert sum(rejected.values()) == 4
    assert rejected["volume per atom"] == 1
    assert rejected["NaN"] >= 1


def test_cif_folder(tmp_path):
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    structure.to(filename=str(tmp_path / "MgO.cif"))
    arrays, _ = build_dataset(tmp_path)
    assert arrays.numbers[0, :3].tolist() == [12, 8, 0]
    assert arrays.angles[0] == pytest.approx([60, 60, 60], abs=1e-3)
    assert arrays.key[0] == crystal_key(["Mg", "O"], 225)


@pytest.mark.parametrize("content", ["", "not json\n", "{}\n"])
def test_useless_sources_are_refused(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(InputError):
        build_dataset(path)


def test_missing_and_damaged_files_are_refused(tmp_path, dataset_file):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none.jsonl", tmp_path / "empty"):
        with pytest.raises(InputError):
            build_dataset(source)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(dataset_file.read_bytes()[:500])
    for path in (damaged, tmp_path / "none.npz"):
        with pytest.raises(InputError):
            read_dataset(path)


def test_splits_depend_on_the_chemical_system_only():
    systems = [f"{a}-{b}" for a in "ABCDEFGHIJKLMNOPQRST" for b in "ABCDEFGHIJKLMNOPQRST"]
    counts = {s: sum(split_of(x) == s for x in systems) / 400 for s in ("train", "val", "test")}
    assert counts["train"] == pytest.approx(0.92, abs=0.04)
    assert counts["test"] == pytest.approx(0.05, abs=0.03)
    assert split_of("Mg-O") == split_of("Mg-O")


def test_crystal_systems_of_space_groups():
    numbers = [1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230]
    assert [crystal_system(n) for n in numbers] == list(np.repeat(range(7), 2))


def test_filters_leave_out_what_is_outside_and_what_is_unknown(tmp_path):
    rows = [
        SALT | {"band_gap": 6.1, "energy_above_hull": 0.0, "magnetic_ordering": "NM"},
        SALT | {"band_gap": 0.0, "energy_above_hull": 0.2, "magnetic_ordering": "FM"},
        SALT,
        SALT | {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 5]], "spacegroup": 123},
    ]
    path = write_lines(tmp_path / "x.jsonl", rows)

    def left(**limits):
        arrays, rejected = build_dataset(path, DatasetLimits(**limits))
        return len(arrays), dict(rejected)

    assert left(band_gap=(1.0, 9.0)) == (1, {"other band gap": 1, "band gap unknown": 2})
    assert left(max_energy_above_hull=0.1) == (
        1,
        {"too far above the hull": 1, "energy above hull unknown": 2},
    )
    assert left(orderings=("FM", "AFM")) == (
        1,
        {"other magnetic ordering": 1, "magnetic ordering unknown": 2},
    )
    assert left(crystal_systems=("tetragonal",)) == (1, {"other crystal system": 3})
    with pytest.raises(InputError, match=r"Unknown crystal system 'cubist'; use .*cubic"):
        DatasetLimits(crystal_systems=("cubist",))


def test_wider_limits_take_more_elements_and_sites(tmp_path):
    five = {
        "lattice": [[6, 0, 0], [0, 6, 0], [0, 0, 6]],
        "species": ["Li", "Fe", "P", "O", "F"] * 4,
        "frac_coords": np.random.default_rng(0).random((20, 3)).tolist(),
        "spacegroup": 1,
    }
    path = write_lines(tmp_path / "x.jsonl", [SALT, five])
    assert len(build_dataset(path)[0]) == 1
    arrays, _ = build_dataset(path, DatasetLimits(max_elements=5, max_sites=20))
    assert arrays.n_sites.tolist() == [2, 20]


def test_entries_that_were_never_relaxed_are_counted_apart(tmp_path):
    huge = SALT | {
        "lattice": [[9.5, 0, 0], [0, 9.5, 0], [0, 0, 9.5]],
        "species": ["Mg", "Mg", "Al", "Cu"],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    }
    molecule = huge | {"species": ["H"] * 4}
    _, rejected = build_dataset(write_lines(tmp_path / "x.jsonl", [SALT, huge, molecule]))
    assert dict(rejected) == {NEVER_RELAXED: 1, "volume per atom": 1}


def test_chunks_are_joined_in_order(tmp_path):
    rows = [
        SALT | {"lattice": [[a, 0, 0], [0, a, 0], [0, 0, a]]}
        for a in np.linspace(3.5, 4.5, CHUNK + 2)
    ]
    arrays, _ = build_dataset(iter(rows))
    assert len(arrays) == CHUNK + 2
    assert (np.diff(arrays.lengths[:, 0]) > 0).all()


def test_any_cell_of_a_pymatgen_structure_will_do(tmp_path):
    structure = Structure(Lattice.cubic(4), SALT["species"], SALT["frac_coords"])
    big = structure.make_supercell([1, 2, 2], in_place=False).as_dict()
    arrays, _ = build_dataset(write_lines(tmp_path / "x.jsonl", [{"structure": big}]))
    assert arrays.n_sites.tolist() == [2]
    broken = {"structure": {"sites": "?"}}
    assert build_dataset(iter([SALT, broken]))[1] == {"malformed": 1}


def split_rows(*pairs):
    return [SALT | {"species": species, "split": split} for species, split in pairs]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (split_rows((["Cs", "Cl"], "train"), (["Cl", "Cs"], "test")), "Cl-Cs"),
        (split_rows((["Cs", "Cl"], "test")), "nothing to learn"),
        (split_rows((["Cs", "Cs"], "train"), (["K", "Cl"], "val")), "consists of one element"),
    ],
)
def test_splits_that_teach_nothing_are_refused(rows, reason):
    with pytest.raises(InputError, match=reason):
        check_splits(build_dataset(iter(rows))[0])


def test_resplit_mends_a_leak():
    rows = split_rows((["Cs", "Cl"], "train"), (["Cl", "Cs"], "test"))
    arrays, _ = build_dataset(iter(rows), resplit=True)
    assert len(set(arrays.split.tolist())) == 1


@pytest.fixture
def project(monkeypatch):
    server = ProjectServer()
    monkeypatch.setenv("MP_API_KEY", server.key)
    with serve(server):
        yield server


def test_the_materials_project_page_by_page(project):
    project.longest_page = 3
    seen = []
    records = materials_project_records(
        max_elements=2,
        max_sites=8,
        client=Client(endpoint=project.endpoint),
        progress=lambda done, total: seen.append((done, total)),
    )
    arrays, rejected = build_dataset(records)
    assert rejected == {"volume per atom": 1}
    assert len(arrays) == len(CRYSTALS) - 1
    assert seen[-1] == (len(CRYSTALS), len(CRYSTALS))
    assert len(project.requests) == 3
    mno = arrays.take((arrays.numbers == 25).any(1) & (arrays.numbers == 8).any(1))
    assert mno.ordering.tolist() == [2]
    assert mno.band_gap.tolist() == [pytest.approx(4.4)]


def test_a_server_that_stops_early_is_no_dataset(project):
    project.longest_page = 0
    records = materials_project_records(
        max_elements=2, max_sites=8, client=Client(endpoint=project.endpoint)
    )
    with pytest.raises(PccdError, match="sent 0 of 8"):
        build_dataset(records)


def test_a_missing_or_wrong_key_is_one_sentence(project, monkeypatch):
    client = Client(endpoint=project.endpoint)
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    with pytest.raises(InputError, match="refuses the API key"):
        next(materials_project_records(max_elements=2, max_sites=8, client=client))
    project.requests.clear()
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr(mp_client, "SETTINGS", {})
    with pytest.raises(InputError, match="needs an API key"):
        next(materials_project_records(max_elements=2, max_sites=8, client=client))
    assert not project.requests


def test_a_collection_of_the_database(settings):
    structure = Structure(Lattice.cubic(4), SALT["species"], SALT["frac_coords"])
    documents = [
        {"_id": "a", "output": {"structure": structure.as_dict()}, "ordering": "NM"},
        {"_id": "b", "output": {}},
    ]
    database(settings)["mine"].insert_many(documents)
    records = collection_records(database(settings)["mine"], structure="output.structure")
    arrays, rejected = build_dataset(records)
    assert arrays.ordering.tolist() == [0]
    assert rejected == {"malformed": 1}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["dataset", *map(str, arguments)])
    captured = capsys.readouterr()
    assert stopped.value.code == 0, captured.err
    return captured.out


def test_build_and_describe_from_the_command_line(crystals_file, tmp_path, capsys):
    out = tmp_path / "a.npz"
    built = json.loads(
        run(capsys, "build", "--from", crystals_file, "--out", out, "--max-sites", 4, "--json")
    )
    assert built["crystals"] == 256
    assert built["left_out"] == {"more than 4 sites": 128 + 64}
    assert read_provenance(out)["limits"]["max_sites"] == 4
    page = tmp_path / "a.html"
    described = json.loads(run(capsys, "describe", out, "--plots", page, "--json"))
    assert described["sha256"] == built["sha256"]
    assert described["provenance"]["source"] == "crystals.jsonl"
    html = page.read_text()
    assert html.count("<svg") == 8
    assert "tetragonal: 128" in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--band-gap", "4"], "two numbers"),
        (["--band-gap", "4,1"], "lowest comes first"),
        (["--magnetic-ordering", "XY"], "Unknown magnetic ordering"),
        (["--band-gap", "8,9"], "holds no crystal to learn from"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, reason, crystals_file, tmp_path, capsys):
    out = tmp_path / "a.npz"
    with pytest.raises(SystemExit) as stopped:
        main(["dataset", "build", "--from", str(crystals_file), "--out", str(out), *arguments])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()
