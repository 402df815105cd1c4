"""Published figures, to stand beside ours; each with the protocol it belongs to."""

from collections.abc import Mapping
from typing import Any

NAMED_CRYSTALS = ("Mg2Mn3O8", "CaZn3O4", "La2ZnO4", "MgFe2O4", "Ca2SnO4", "LiMg6", "MgSc2O4")
"""Crystals that the seed paper shows or finds to be stable (10.1016/j.isci.2024.111659)."""

CAVEAT = (
    "Not comparable cell by cell. The seed relaxes with VASP (PBE), takes the Materials Project's "
    "hull and counts crystals that passed its screening (1809, 746 and 120; how many raw samples "
    "that took is not given). Ours are relaxed with the potential of the protocol card, placed on "
    "that potential's own hull, and given both of screened and of raw samples. The elements of the "
    "seed's batch 3 are not published; ours are those of flows/seed-batch-3.yaml. PGCGM, Kim and "
    "iMatGen as quoted by the seed; for PGCGM its text says 106 of 1579, which is 6.7 %."
)

SEED_TABLE_2: Mapping[str, Mapping[str, float | None]] = {
    "seed-batch-1": {"stable_250": 0.3944, "stable_80": 0.0890, "novel": 0.9287},
    "seed-batch-2": {"stable_250": 0.6180, "stable_80": 0.1635, "novel": 0.8968},
    "seed-batch-2-without-rare-earths": {"stable_250": 0.8966, "stable_80": 0.6092, "novel": None},
    "seed-batch-3": {"stable_250": 0.6667, "stable_80": 0.3417, "novel": 0.9000},
}
"""Seed Table 2 and text: shares of screened crystals."""

PEERS_TABLE_2: Mapping[str, Mapping[str, float | None]] = {
    "PGCGM": {"stable_250": 0.053, "stable_80": None},
    "Kim 2020 (GAN)": {"stable_250": None, "stable_80": 0.018},
    "iMatGen": {"stable_250": None, "stable_80": 0.0036},
}
"""As the seed's Table 2 quotes them."""

PEERS_SUN: tuple[Mapping[str, Any], ...] = (
    {
        "model": "MatterGen",
        "stable": 0.7441,
        "sun": 0.3857,
        "rmsd": 0.021,
        "protocol": "DFT, <= 0.1 eV/atom against Alex-MP-ICSD (MatterGen's README)",
    },
    {
        "model": "DiffCSP (MP-20)",
        "stable": 0.3623,
        "sun": 0.1271,
        "rmsd": 0.232,
        "protocol": "DFT, <= 0.1 eV/atom against Alex-MP-ICSD (MatterGen's README)",
    },
    {
        "model": "CDVAE",
        "stable": 0.1931,
        "sun": 0.1399,
        "rmsd": 0.359,
        "protocol": "DFT, <= 0.1 eV/atom against Alex-MP-ICSD (MatterGen's README)",
    },
)
"""Unconditional generators; no elements are given to them, so theirs is the easier choice of
chemistry and the harder one of composition."""
