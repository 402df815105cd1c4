"""Which network an architecture names."""

from pccd_workflows.generators.pccd.config import Architecture
from pccd_workflows.generators.pccd.denoiser import Denoiser, PointTransformer
from pccd_workflows.generators.pccd.paper import PaperUNet


def build_denoiser(architecture: Architecture) -> Denoiser:
    """Return an untrained network."""
    if architecture.kind == "paper-unet":
        return PaperUNet(
            width=architecture.width, depth=architecture.depth, heads=architecture.heads
        )
    return PointTransformer(
        width=architecture.width,
        depth=architecture.depth,
        heads=architecture.heads,
        max_sites=architecture.max_sites,
        max_elements=architecture.max_elements,
        structure_types=architecture.structure_types,
    )
