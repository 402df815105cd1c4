"""Files that would take all memory or time: one sentence, whatever reads them."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core import bounded_files
from pccd_workflows.core.crystal_files import entries, json_lines
from pccd_workflows.core.errors import InputError
from pccd_workflows.execution.queue import read_template
from pccd_workflows.generators.files import survey
from pccd_workflows.generators.pccd.config import load_train_config
from pccd_workflows.known import reference_files
from pccd_workflows.known.missing import read_table
from pccd_workflows.known.reference_files import load_reference_set, read_reference_set
from pccd_workflows.known.snapshots import import_snapshot
from pccd_workflows.known.sources import read_rows


def references(path: Path):
    return load_reference_set(path, "Cu", "chgnet", "mp2020")


READERS = {
    "crystals": lambda path: list(entries(path)),
    "lines": lambda path: list(json_lines(path)),
    "known set": lambda path: list(read_rows(path)),
    "table of missing phases": read_table,
    "snapshot": lambda path: import_snapshot(None, path),
    "references": references,
}


@pytest.fixture
def little(monkeypatch):
    """Bounds that small files exceed."""
    monkeypatch.setattr(bounded_files, "ALWAYS_UNPACKED", 1 << 16)
    monkeypatch.setattr(bounded_files, "MAX_LINE", 1 << 18)
    monkeypatch.setattr(reference_files, "MAX_SET", 1 << 18)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_almost_nothing_that_unpacks_to_much_is_not_read_to_its_end(reader, tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 4_000_000))
    with pytest.raises(InputError, match=r"unpacks to more than 200 times its size"):
        READERS[reader](path)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("kind", ["zip", "zip of many", "tar.gz"])
def test_archives_have_one_allowance_for_all_their_members(kind, tmp_path):
    path = tmp_path / f"bomb.{kind.split()[0]}"
    number = 40 if "many" in kind else 1
    content = b"#" * (4_000_000 // number)
    if kind == "tar.gz":
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("no-crystal.bin")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for k in range(number):
                archive.writestr(f"{k}.cif", content)
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        list(entries(path))


def test_honest_archives_are_read(tmp_path):
    crystal = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    rows = [json.dumps(crystal.as_dict() | {"id": f"{k}"}) for k in range(3000)]
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as tar:
        for name in ("a", "b"):
            content = "\n".join(rows).encode()
            info = tarfile.TarInfo(f"{name}.jsonl")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert len([entry.read() for entry in entries(tmp_path / "many.tar.gz")]) == 6000


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("reader", ["lines", "known set", "table of missing phases", "references"])
def test_a_line_without_end(reader, tmp_path):
    path = tmp_path / "endless.jsonl"
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="has a line of more than"):
        READERS[reader](path)


@pytest.mark.usefixtures("little")
def test_a_reference_set_without_end(tmp_path):
    path = tmp_path / "endless.json"
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="has more than"):
        read_reference_set(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    crystal = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    crystal.to(filename=str(folder / "Cu.cif"))
    (folder / "energies.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"energies\.json"):
        references(folder)
    (folder / "energies.json").unlink()
    (folder / "energies.json").write_text("[" * 20_000)
    with pytest.raises(InputError, match=r"energies\.json must hold"):
        references(folder)
    (folder / "endless.cif").symlink_to("/dev/zero")
    with pytest.raises(InputError):
        references(folder)


@pytest.mark.parametrize("read", [read_template, load_train_config])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has more than 1 MB"),
        ("a: &a [x]\n" + "".join(f"{c}: &{c} [*a, *a]\n" for c in "bcdefgh"), "uses YAML aliases"),
        ("a: " + "[" * 20_000, "nests its brackets too deeply|is not valid YAML"),
    ],
)
def test_options_in_yaml(read, content, said, tmp_path):
    path = tmp_path / "options.yaml"
    if content is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        read(path)


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl", "deep.csv"])
def test_20_000_brackets(name, tmp_path):
    path = tmp_path / name
    deep = "[" * 20_000
    path.write_text(f"cif\n\"{{'a': {deep}\"\n" if name.endswith("csv") else f'{{"a": {deep}')
    with pytest.raises(InputError):
        survey(path, name)


@pytest.fixture
def fifty(tmp_path) -> Path:
    """A CIF of fifty data blocks."""
    text = ""
    for k in range(50):
        crystal = Structure(Lattice.cubic(3.6 + 0.01 * k), ["Cu"], [[0, 0, 0]])
        text += crystal.to(fmt="cif").replace("data_Cu", f"data_block-{k}")
    path = tmp_path / "fifty" / "fifty.cif"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_every_data_block_of_a_cif_is_a_crystal(fifty):
    assert survey(fifty, "fifty").entries == 50
    volumes = [entry.read().volume for entry in entries(fifty)]
    assert volumes == pytest.approx([(3.6 + 0.01 * k) ** 3 for k in range(50)], rel=1e-6)


def test_every_data_block_of_a_cif_is_a_competing_phase(fifty):
    energies = {f"fifty.cif#block-{k}": -3.0 - 0.01 * k for k in range(50)}
    (fifty.parent / "energies.json").write_text(json.dumps(energies))
    found = references(fifty.parent)
    assert len(found.entries) == 50
    energy = {entry.entry_id: entry.energy for entry in found.entries}
    assert energy["fifty#block-49"] == -3.49
    del energies["fifty.cif#block-7"]
    (fifty.parent / "energies.json").write_text(json.dumps(energies))
    with pytest.raises(InputError, match=r"fifty\.cif#block-7 has no energy"):
        references(fifty.parent)
