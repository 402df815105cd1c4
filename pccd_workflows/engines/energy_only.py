"""Energies of potentials without forces: what a hull of single points costs.

Forces and stress take half to three quarters of an evaluation, and building the graph for them
some more. The energies are those of `potential.single_point`, bit by bit for SevenNet and to
1e-6 eV/atom for CHGNet.
"""

from typing import TYPE_CHECKING, Any

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.optimize import to_atoms
from pccd_workflows.engines.potential import calculator, single_point, supported_elements

if TYPE_CHECKING:
    from pymatgen.core import Structure

FORCES = "force_output"
"""The part of a SevenNet model that differentiates its energy."""


def energy_only(structure: "Structure", level: str) -> float:
    """Return the energy of `structure` as it is, eV/atom.

    Raises
    ------
    InputError
        The potential was not trained on one of its elements.

    And whatever the potential raises.
    """
    import torch

    engine = calculator(get_level(level))
    known = supported_elements(get_level(level))
    foreign = sorted({e.symbol for e in structure.elements} - known) if known is not None else []
    if foreign:
        raise InputError(f"{level} was not trained on {', '.join(foreign)}.")
    if FORCES in getattr(getattr(engine, "model", None), "_modules", {}):
        return _sevennet_energy(structure, engine)
    with torch.inference_mode():
        return single_point(structure, level)


def _sevennet_energy(structure: "Structure", engine: Any) -> float:
    import torch
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    graph = unlabeled_atoms_to_graph(to_atoms(structure), engine.cutoff)
    data = AtomGraphData.from_numpy_dict(graph)
    if engine.modal:
        data["data_modality"] = engine.modal
    data.to(engine.device)
    with torch.no_grad():
        data = engine.model._preprocess(data)
        for name, module in engine.model._modules.items():
            if name != FORCES:
                data = module(data)
    return float(data["inferred_total_energy"]) / len(structure)
