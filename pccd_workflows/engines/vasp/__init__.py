"""VASP: inputs, one run at a time, what the runs amount to, bands, and the engine of it all."""

from pccd_workflows.engines.vasp.bands import magnetic_cell
from pccd_workflows.engines.vasp.engine import ENGINE
from pccd_workflows.engines.vasp.inputs import check_command

__all__ = ["ENGINE", "check_command", "magnetic_cell"]
