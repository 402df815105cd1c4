"""The parts of an evaluation with a real, tiny model."""

import json
import re

import numpy as np
import pytest
import torch

from pccd_workflows.core.errors import InputError
from pccd_workflows.evaluation.crystals import (
    draw_rows,
    formula_of,
    read_crystals,
)
from pccd_workflows.evaluation.inversion import invert_structures
from pccd_workflows.evaluation.prediction import predict_structures
from pccd_workflows.evaluation.reconstruction import reconstruct
from pccd_workflows.generators.pccd.dataset import read_dataset
from pccd_workflows.generators.pccd.inversion import fixed_point, generate, invert, ode_levels
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.schedule import cosine_log_snr

SAMPLER = Sampler(steps=10)


@pytest.fixture(scope="module")
def held_out(dataset_file):
    return read_dataset(dataset_file).of_split("test")


def test_fixed_point_of_a_map_that_plain_iteration_leaves():
    matrices = torch.tensor([[[-3.0, 0.5], [0.0, 0.2]], [[0.1, 0.0], [0.0, -0.9]]]).double()
    offset = torch.ones(2, 2).double()
    evaluated: list[int] = []

    def function(x, rows):
        evaluated.append(len(x))
        return (matrices[rows] @ x[..., None])[..., 0] + offset[rows]

    found, left = fixed_point(function, torch.zeros(2, 2).double(), tolerance=1e-10, rounds=30)
    exact = torch.linalg.solve(torch.eye(2) - matrices, offset[..., None])[..., 0]
    assert torch.allclose(found, exact, atol=1e-8)
    assert (left <= 1e-10).all()
    assert len(evaluated) < 12


def test_round_trip_of_the_ode_is_exact_where_the_answer_is_known():
    # Clean data N(0, 1) per value: the best prediction of x_0 is a x, and the flow is a rotation
    # that keeps the variance: noise = data for any level.
    def predict(x, level, rows):
        return torch.sigmoid(level).sqrt() * x

    levels = ode_levels(cosine_log_snr(1000, 4.0), 400)
    clean = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    inverted = invert(predict, clean, levels, tolerance=1e-12)
    assert (inverted.residual <= 1e-12).all()
    assert torch.allclose(generate(predict, inverted.noise, levels), clean, atol=1e-9)
    assert torch.allclose(inverted.noise, clean, rtol=0.05)


def test_inversion_finds_every_held_out_crystal(tiny_model, held_out):
    result = invert_structures(tiny_model, held_out, samples=6, seed=1)
    summary = result.summary()
    assert summary["match_rate"]["value"] == 1.0
    assert summary["solved"]["value"] == 1.0
    assert np.nanmax(result.rmse) < 1e-3


def test_prediction_asks_for_the_composition(tiny_model, held_out):
    result = predict_structures(
        tiny_model, held_out, samples=8, seed=0, sampler=SAMPLER, attempts=2
    )
    assert [t.composition for t in result.targets] == [
        m.composition for m in result.made[0] if m is not None
    ]
    assert result.rmse.shape == (2, 8)
    assert (
        result.summary()["best_of"]["match_rate"]["value"]
        >= (result.summary()["match_rate"]["value"])
    )
    assert result.summary()["match_rate"]["value"] > 0.5  # perovskites it has learned
    again = predict_structures(tiny_model, held_out, samples=8, seed=0, sampler=SAMPLER)
    assert np.array_equal(again.rmse[0], result.rmse[0], equal_nan=True)


def test_control_starts_from_pure_noise(tiny_model, held_out):
    made = reconstruct(tiny_model, held_out, samples=6, seed=0, sampler=SAMPLER)
    control = reconstruct(tiny_model, held_out, samples=6, seed=0, sampler=SAMPLER, control=True)
    assert made.targets == control.targets
    assert made.made != control.made
    # at t = T little is left of the crystals: the same noise makes nearly the same
    assert np.abs(made.lengths[1] - control.lengths[1]).max() < 0.1


def test_structures_are_the_crystals_of_the_columns(held_out):
    drawn = draw_rows(held_out, 5, 3)
    for row in range(5):
        structure = drawn.structure(row)
        assert len(structure) == drawn.n_sites[row]
        assert structure.lattice.abc == pytest.approx(drawn.lengths[row].tolist(), abs=1e-5)
        assert structure.composition.formula.replace(" ", "") == "".join(
            sorted(re.findall(r"[A-Z][a-z]?\d+", formula_of(drawn, row)), key=_electronegativity)
        )
    assert len(draw_rows(held_out, 10**6, 0)) == len(held_out)


def _electronegativity(part):
    from pymatgen.core import Element

    return Element(re.match("[A-Za-z]+", part)[0]).X


def test_read_crystals_skips_what_the_model_cannot_do(tiny_model, tmp_path):
    rows = [
        {"lattice": (np.eye(3) * 4).tolist(), "species": species, "frac_coords": frac}
        for species, frac in (
            (["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            (["Na", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        )
    ]
    path = tmp_path / "held_out.jsonl"
    path.write_text("\n".join(json.dumps({**row, "split": "val"}) for row in rows))
    found = read_crystals(path, "val", tiny_model.info)
    assert len(found.crystals) == 1
    assert found.skipped == {"elements the model has never seen": 1}
    assert len(read_crystals(path, "all", tiny_model.info).crystals) == 1
    with pytest.raises(InputError, match="no crystal of the split test; --split all"):
        read_crystals(path, "test", tiny_model.info)
    with pytest.raises(InputError, match="must be one of"):
        read_crystals(path, "tset", tiny_model.info)
