"""`pccd model batches | rediscover | compare-levels`: wrong options, and what is printed."""

import json

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.cli import main


@pytest.fixture
def data(tmp_path):
    copper = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    path = tmp_path / "known.jsonl"
    path.write_text(json.dumps({"id": "one", "structure": copper.as_dict()}))
    return path


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model", "rediscover", "m", "--formulas", "Qq2"], "not a chemical formula"),
        (["model", "rediscover", "m", "--phonons", "--no-relax"], "--phonons"),
        (["model", "batches", "m", "--only", "4"], "seed-batch-4"),
        (["model", "compare-levels", "m", "--levels", "chgnet"], "two potentials"),
        (["model", "compare-levels", "m", "--levels", "chgnet,7net-0,chgnet"], "two potentials"),
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
