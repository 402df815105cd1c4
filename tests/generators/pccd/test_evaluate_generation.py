"""A trained model is measured, the same way twice."""

from pccd_workflows.evaluation.generation import Known, evaluate_generation
from pccd_workflows.generators.pccd.dataset import build_dataset
from pccd_workflows.generators.pccd.sampler import Sampler


def test_a_trained_model_is_measured(tiny_model, crystals_file):
    crystals = build_dataset(crystals_file)[0].of_split("test")
    sampler = Sampler(steps=10)
    result = evaluate_generation(tiny_model, crystals, Known(), samples=8, seed=3, sampler=sampler)
    assert result["decoded"]["n"] == 8
    assert result["elements_present"]["value"] == 1.0
    assert result["obedience"]["composition"]["value"] == 1.0
    again = evaluate_generation(tiny_model, crystals, Known(), samples=8, seed=3, sampler=sampler)
    assert again == result
