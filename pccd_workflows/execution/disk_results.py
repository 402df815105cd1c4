"""Relaxations and single points on disk, by content: nothing is computed twice, no server needed.

One small file per result, written whole: a kill -9 costs the crystal in flight.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pymatgen.core import Structure

from pccd_workflows.core.files import write_whole
from pccd_workflows.engines.potential import relax, relaxation_key, single_point
from pccd_workflows.engines.records import Relaxation


class DiskResults:
    """Results of potentials in a folder.

    Parameters
    ----------
    folder
        Made when the first result is stored.
    fmax, steps
        Of every relaxation, as in `potential.relax`.
    """

    def __init__(self, folder: Path, *, fmax: float = 0.05, steps: int = 300) -> None:
        self.folder = folder
        self.fmax, self.steps = fmax, steps
        self.computed = 0
        self.found = 0

    def relax(self, structure: Structure, level: str) -> Relaxation:
        """Return the stored relaxation of exactly this structure, or compute and store it."""
        key = relaxation_key(structure, level, fmax=self.fmax, steps=self.steps)
        stored = self.read(key)
        if stored is not None:
            try:
                return Relaxation.model_validate(stored)
            except ValidationError:  # of an older version: computed again
                self.found -= 1
        relaxation = relax(structure, level, fmax=self.fmax, steps=self.steps)
        self.write(key, relaxation.model_dump(mode="json"))
        return relaxation

    def single_point(self, structure: Structure, level: str) -> float | None:
        """Return the energy of a structure as it is, eV/atom; None where the potential fails."""
        key = hashlib.sha256(
            f"single point {relaxation_key(structure, level, fmax=0.0, steps=0)}".encode()
        ).hexdigest()
        stored = self.read(key)
        if stored is not None and "energy_per_atom" in stored:
            energy: float | None = stored["energy_per_atom"]
            return energy
        try:
            energy = single_point(structure, level)
        except MemoryError:
            raise
        except Exception as error:  # an unknown element, a cell the potential cannot take, ...
            self.write(key, {"energy_per_atom": None, "reason": f"{type(error).__name__}: {error}"})
            return None
        self.write(key, {"energy_per_atom": energy})
        return energy

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a stored result; None if there is none, or a damaged one."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        self.found += 1
        return content if isinstance(content, dict) else None

    def write(self, key: str, content: dict[str, Any]) -> None:
        """Store a result."""
        write_whole(self._path(key), json.dumps(content))
        self.computed += 1
