"""CHGNet as an ASE calculator at half the cost of the package's own."""

import warnings
from typing import Any, ClassVar

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor

UNTRAINED = frozenset(range(84, 89))
"""Po, At, Rn, Fr and Ra: MPtrj holds the other 89 of the first 94 elements (Nat. Mach. Intell. 5,
1031 (2023)); the weights of these five are whatever they started from."""


class ChgnetCalculator(Calculator):  # type: ignore[misc]
    """Energy (eV), forces (eV/Å), stress (eV/Å^3) and magnetic moments (µB) of CHGNet 0.3.0.

    chgnet's calculator differentiates the energy twice and keeps both graphs for training. Here
    one backward pass to fractional coordinates x and lattice rows L gives both: with r = x L,
    forces are -(dE/dx) L^-T and the stress is L^T (dE/dL) / V. Energies are bit-identical, forces
    agree to float32 precision.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress", "magmoms"]

    def __init__(self, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # chgnet reads the cell's volume from a tensor that is to be differentiated, harmlessly
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
        self.device = device
        self.model = CHGNet.load(verbose=False, use_device=device).eval().requires_grad_(False)
        self.model.graph_converter.set_isolated_atom_response("ignore")
        self.model_name = f"CHGNet {self.model.version}"
        self.atomic_numbers = frozenset(range(1, 95)) - UNTRAINED

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill `results` for `atoms`: everything, or no gradients if only the energy is wanted."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        structure = AseAtomsAdaptor.get_structure(self.atoms)
        graph = self.model.graph_converter(structure).to(self.device)
        prediction = self.model([graph], task="em")
        energy = prediction["e"].sum() * (len(structure) if self.model.is_intensive else 1)
        self.results = {
            "energy": float(energy.detach()),
            "free_energy": float(energy.detach()),
            "magmoms": prediction["m"][0].detach().cpu().numpy(),
        }
        if properties == ["energy"]:
            return
        gradients = torch.autograd.grad(
            energy, [graph.atom_frac_coord, graph.lattice], materialize_grads=True
        )
        along_x, along_lattice = (g.cpu().numpy().astype(float) for g in gradients)
        lattice = structure.lattice
        stress = lattice.matrix.T @ along_lattice / lattice.volume
        self.results["forces"] = -along_x @ lattice.inv_matrix.T
        self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
