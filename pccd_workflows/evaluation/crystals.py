"""Held-out crystals and what models make of them, as the parts of the evaluation need them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.dataset import (
    ORDERINGS,
    SPLITS,
    CrystalArrays,
    DatasetLimits,
    build_dataset,
    read_dataset,
    split_of_record,
)
from pccd_workflows.generators.pccd.generator import decode_or_say_why
from pccd_workflows.generators.pccd.pointcloud.elements import (
    atomic_number,
    canonical_elements,
    symbol,
)
from pccd_workflows.generators.pccd.pointcloud.encode import PointCloud
from pccd_workflows.generators.pccd.records import Record, read_records
from pccd_workflows.generators.request import Conditions

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.model_info import ModelInfo

LITERATURE_MATCHER: dict[str, Any] = {"stol": 0.5, "ltol": 0.3, "angle_tol": 10.0}
"""Tolerances of the match rates of CDVAE, DiffCSP, FlowMM and all that compare with them."""
ALL = "all"


@dataclass(frozen=True)
class HeldOut:
    """Crystals to measure a model on.

    Attributes
    ----------
    crystals
    skipped
        Crystals of the split that the model cannot be asked for, by reason.
    """

    crystals: CrystalArrays
    skipped: dict[str, int]


def read_crystals(data: Path, split: str, info: "ModelInfo") -> HeldOut:
    """Read the crystals of a split that a model can be asked for.

    Parameters
    ----------
    data
        Dataset (.npz), JSON lines (.jsonl, .jsonl.gz) or folder of CIFs.
    split
        train, val, test or all.
    info
        Of the model: its elements and limits.

    Raises
    ------
    InputError
        If the split or the data is unknown, or nothing is left.
    """
    if split not in (*SPLITS, ALL):
        raise InputError(f"--split {split!r} must be one of {', '.join((*SPLITS, ALL))}.")
    if data.suffix == ".npz":
        arrays, rejected = read_dataset(data), {}
    else:
        limits = DatasetLimits(max_sites=info.max_sites, max_elements=info.max_elements)
        arrays, counted = build_dataset(_maybe_of_split(data, split), limits, with_types=False)
        rejected = dict(counted)
    if split != ALL:
        arrays = arrays.take(arrays.split == SPLITS.index(split))  # type: ignore[arg-type]
    known = np.zeros(256, dtype=bool)
    known[[0, *(atomic_number(e) for e in info.elements)]] = True
    fits = arrays.n_sites <= info.max_sites
    seen = known[arrays.numbers].all(1)
    few = np.array(
        [len(set(row[row > 0])) <= info.max_elements for row in arrays.numbers], dtype=bool
    )
    for reason, bad in (
        (f"more than {info.max_sites} sites", ~fits),
        (f"more than {info.max_elements} elements", ~few),
        ("elements the model has never seen", ~seen),
    ):
        if bad.any():
            rejected[reason] = rejected.get(reason, 0) + int(bad.sum())
    crystals = arrays.take(fits & few & seen)
    if len(crystals) == 0:
        what = "crystal" if split == ALL else f"{split} crystal"
        hint = "" if split == ALL else "; --split all takes every crystal"
        raise InputError(f"{data} has no {what} that {info.name} can make{hint}.")
    return HeldOut(crystals, rejected)


def _maybe_of_split(data: Path, split: str) -> Iterator[Record]:
    """Yield the records that may be of the split: canonical cells of the others cost minutes."""
    none = True
    for record in read_records(data):
        if split == ALL or split_of_record(record) in (split, None):
            none = False
            yield record
    if none:
        hint = "" if split == ALL else f" of the split {split}; --split all takes every crystal"
        raise InputError(f"{data} holds no crystal{hint}.")


def draw_rows(crystals: CrystalArrays, samples: int, seed: int) -> CrystalArrays:
    """Return `samples` crystals drawn without repetition (all, if there are fewer)."""
    size = min(samples, len(crystals))
    rows = np.random.default_rng(seed).choice(len(crystals), size=size, replace=False)
    return crystals.take(rows)


def elements_of(crystals: CrystalArrays, row: int) -> tuple[str, ...]:
    """Return the symbols of a crystal's elements, by atomic number."""
    numbers = crystals.numbers[row]
    return canonical_elements(symbol(int(z)) for z in numbers[numbers > 0])


def formula_of(crystals: CrystalArrays, row: int) -> str:
    """Return a crystal's cell as a formula, e.g. Mg2Mn4O8."""
    numbers = crystals.numbers[row]
    counts = Counter(symbol(int(z)) for z in numbers[numbers > 0])
    return "".join(f"{name}{n}" for name, n in counts.items())


def composition_requests(crystals: CrystalArrays, info: "ModelInfo") -> list["SampleRequest"]:
    """Return requests for the cells of crystals, e.g. Mg2Mn4O8; for their elements if a model
    cannot be asked for more.
    """
    from pccd_workflows.generators.pccd.cells import SampleRequest

    asks = "composition" in info.conditions
    return [
        SampleRequest(
            i,
            elements_of(crystals, i),
            Conditions(composition=formula_of(crystals, i) if asks else None),
        )
        for i in range(len(crystals))
    ]


def seed_requests(crystals: CrystalArrays, info: "ModelInfo") -> list["SampleRequest"]:
    """Return requests for what the seed paper gives: elements, band gap, magnetic ordering."""
    from pccd_workflows.generators.pccd.cells import SampleRequest

    return [
        SampleRequest(i, elements_of(crystals, i), _seed_conditions(crystals, i, info.conditions))
        for i in range(len(crystals))
    ]


def _seed_conditions(crystals: CrystalArrays, row: int, knows: Sequence[str]) -> Conditions:
    gap, ordering = crystals.band_gap[row], crystals.ordering[row]
    return Conditions(
        band_gap=float(gap) if np.isfinite(gap) and "band_gap" in knows else None,
        magnetic_ordering=(
            ORDERINGS[ordering] if ordering >= 0 and "magnetic_ordering" in knows else None
        ),
    )


def decoded(clouds: Sequence[PointCloud]) -> tuple[list[Structure | None], Counter[str]]:
    """Return the crystals of clouds (None where there is none) and the classes of failures."""
    structures: list[Structure | None] = []
    errors: Counter[str] = Counter()
    for cloud in clouds:
        structure, error_class, _ = decode_or_say_why(cloud)
        structures.append(structure)
        if error_class is not None:
            errors[error_class] += 1
    return structures, errors


def literature_matcher() -> "StructureMatcher":
    """Return the matcher of the literature's match rates."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**LITERATURE_MATCHER)


def normalised_rmse(
    matcher: "StructureMatcher", made: Structure | None, target: Structure
) -> float | None:
    """Return the RMS displacement in units of (V/N)^(1/3) if two crystals match, else None."""
    if made is None or made.composition != target.composition:
        return None
    found: Any = matcher.get_rms_dist(made, target)
    return None if found is None else float(found[0])


def match_all(
    made: Sequence[Structure | None], targets: Sequence[Structure]
) -> NDArray[np.float64]:
    """Return the normalised RMSE of each pair, NaN where the crystals do not match, (n,)."""
    matcher = literature_matcher()
    found = [normalised_rmse(matcher, m, t) for m, t in zip(made, targets, strict=True)]
    return np.array([np.nan if rmse is None else rmse for rmse in found])
