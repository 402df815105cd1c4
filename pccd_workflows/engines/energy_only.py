"""Energies of potentials without forces: what a hull of single points costs.

Forces and stress take half to three quarters of an evaluation, and building the graph for them
some more. The energies are those that ASE's calculators return, bit by bit for SevenNet and to
1e-6 eV/atom for CHGNet.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

FORCES = "force_output"
"""The part of a SevenNet model that differentiates its energy."""


def energy_of(atoms: "Atoms") -> float:
    """Return the energy of atoms with a calculator, eV, without forces where that is cheaper."""
    engine: Any = atoms.calc
    if FORCES in getattr(getattr(engine, "model", None), "_modules", {}):
        return _sevennet_energy(atoms, engine)
    if type(engine).__module__.partition(".")[0] == "chgnet":
        import torch

        with torch.inference_mode():
            return float(atoms.get_potential_energy())
    return float(atoms.get_potential_energy())


def _sevennet_energy(atoms: "Atoms", engine: Any) -> float:
    import torch
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    graph = unlabeled_atoms_to_graph(atoms, engine.cutoff)
    data = AtomGraphData.from_numpy_dict(graph)
    if engine.modal:
        data["data_modality"] = engine.modal
    data.to(engine.device)
    with torch.no_grad():
        data = engine.model._preprocess(data)
        for name, module in engine.model._modules.items():
            if name != FORCES:
                data = module(data)
    return float(data["inferred_total_energy"])
