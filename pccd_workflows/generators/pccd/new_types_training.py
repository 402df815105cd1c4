"""Fitting what proposes new structure types to the training crystals that a model has at hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.checkpoint import load_model, save_model
from pccd_workflows.generators.pccd.config import SmallNetwork
from pccd_workflows.generators.pccd.known_types import KnownTypes, find_known_types
from pccd_workflows.generators.pccd.model_info import ModelInfo
from pccd_workflows.generators.pccd.new_types import NewTypes
from pccd_workflows.generators.pccd.pair_distances import fit_distances
from pccd_workflows.generators.pccd.properties import train_properties
from pccd_workflows.generators.pccd.templates import Templates
from pccd_workflows.generators.pccd.wyckoff_network import Sequences, train_wyckoff_network

EVERY = 3
"""Of so many crystals one tells the distances of pairs: more crystals change little."""
COMMON = 0.5
"""A type that n crystals have counts n to this power: new types are more like the rare ones."""


def train_new_types(
    analogues: Analogues, templates: Templates, *, width: int, epochs: int, seed: int
) -> NewTypes:
    """Return what proposes new types, fitted to training crystals.

    Parameters
    ----------
    analogues, templates
        Of the training crystals.
    width, epochs
        Of the network.
    """
    known = find_known_types(analogues, templates)
    rows = np.flatnonzero(known.space_group[analogues.structure_type] > 0)
    number = np.bincount(analogues.structure_type)[analogues.structure_type[rows]]
    weights = torch.from_numpy(number**-COMMON)
    network = train_wyckoff_network(
        sequences_of(analogues, known, rows),
        (weights / weights.mean()).float(),
        width=width,
        epochs=epochs,
        seed=seed,
    )
    distances = fit_distances(templates.template(row) for row in rows[::EVERY].tolist())
    return NewTypes(network, known, distances)


def add_parts(
    folder: Path, new_types: SmallNetwork, properties: SmallNetwork, seed: int
) -> ModelInfo:
    """Fit what needs no more than the training crystals in a model's weights; write the model.

    Raises
    ------
    InputError
        If the weights hold no training crystals.
    """
    model = load_model(folder, "cpu")
    if model.analogues is None or not isinstance(model.templates, Templates):
        raise InputError(f"Model {model.info.name} holds no training crystals to learn types from.")
    proposing = train_new_types(
        model.analogues, model.templates, **new_types.model_dump(), seed=seed
    )
    estimating = train_properties(model.analogues, **properties.model_dump(), seed=seed)
    info = model.info.model_copy(update={"new_types": new_types, "properties": properties})
    return save_model(folder, replace(model, info=info, new_types=proposing, properties=estimating))


def sequences_of(analogues: Analogues, known: KnownTypes, rows: NDArray[np.int64]) -> Sequences:
    """Return training crystals, whose types' positions are known, as sequences of orbits."""
    elements, counts = (column[rows] for column in analogues.by_count)
    kinds = analogues.structure_type[rows]
    longest = int(known.n_orbits.max())
    slot = np.full((len(known.orbits), longest), -1)
    position = np.zeros_like(slot)
    for kind, orbits in enumerate(known.orbits):
        pairs = [(e, place) for e, of_element in enumerate(orbits) for place in of_element]
        if pairs:
            slot[kind, : len(pairs)], position[kind, : len(pairs)] = zip(*pairs, strict=True)
    columns = (elements, counts, known.space_group[kinds] - 1, slot[kinds], position[kinds])
    return Sequences(*(torch.from_numpy(column.astype(np.int64)) for column in columns))
