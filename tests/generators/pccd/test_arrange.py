"""Atoms of a new type moved to where known crystals have them, the symmetry kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pccd_workflows.generators.pccd import arrange as module
from pccd_workflows.generators.pccd.arrange import arrange
from pccd_workflows.generators.pccd.frames import Frame, Template, frame_of
from pccd_workflows.generators.pccd.pair_distances import fit_distances, nearest_images


def rutile(u: float = 0.305, a: float = 4.6, c: float = 2.95) -> Template:
    coords = [[0, 0, 0], [0.5, 0.5, 0.5]]
    coords += [[u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    numbers = np.array([22, 22, 8, 8, 8, 8])
    return Template(136, numbers, np.array(coords) % 1.0, np.diag([a, a, c]))


def frame(template: Template) -> Frame:
    found = frame_of(template, "standard")
    assert found is not None
    return found


def lattice_of(one: Frame) -> np.ndarray:
    assert one.angles == pytest.approx([90, 90, 90], abs=1e-4)
    return np.diag(one.lengths)


FITTED = fit_distances([rutile()] * 200)
# one crystal does not say how much of its volume is whose
VOLUME = np.full_like(FITTED.volume, np.linalg.det(rutile().lattice) / 6)
DISTANCES = replace(FITTED, volume=VOLUME)


@pytest.mark.parametrize(("u", "a", "c"), [(0.24, 4.6, 2.95), (0.33, 4.2, 3.6), (0.2, 5.2, 2.5)])
def test_atoms_come_to_the_distances_of_known_crystals(u: float, a: float, c: float) -> None:
    found = arrange([frame(rutile(u, a, c))], DISTANCES, 200)
    assert found.misfit < 0.05
    known = nearest_images(rutile().lattice, rutile().frac_coords)
    near = nearest_images(lattice_of(found.frame), found.frame.frac_coords)
    assert near[0, 2:].min() == pytest.approx(known[0, 2:].min(), abs=0.15)
    assert near[2, 3:].min() == pytest.approx(known[2, 3:].min(), abs=0.15)


def test_the_symmetry_stays_to_the_last_digit() -> None:
    moved = arrange([frame(rutile(0.24))], DISTANCES, 50).frame
    again = moved.matrix @ moved.frac_coords.ravel() + moved.offset
    assert again == pytest.approx(moved.frac_coords.ravel(), abs=1e-12)
    assert moved.lengths[0] == pytest.approx(moved.lengths[1], abs=1e-9)
    assert moved.frac_coords[2, 0] == pytest.approx(moved.frac_coords[2, 1], abs=1e-12)
    assert moved.frac_coords[2, 0] != pytest.approx(0.24, abs=0.01)


def test_the_best_start_is_kept() -> None:
    starts = [frame(rutile(u)) for u in (0.1, 0.305, 0.2)]
    found = arrange(starts, DISTANCES, 0)
    assert found.start == 1
    assert found.frame.frac_coords == pytest.approx(starts[1].frac_coords, abs=1e-6)


def test_atoms_that_touch_are_pushed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where distances say nothing, radii still do."""
    vague = replace(DISTANCES, width=np.full_like(DISTANCES.width, np.inf))
    start = frame(rutile(0.08))
    near = nearest_images(np.diag(start.lengths), start.frac_coords)
    assert near[2, 3] < 1.1
    moved = arrange([start], vague, 100).frame
    assert nearest_images(lattice_of(moved), moved.frac_coords).min() > 1.1
    monkeypatch.setattr(module, "PUSH", 0.0)
    moved = arrange([start], vague, 100).frame
    assert nearest_images(lattice_of(moved), moved.frac_coords).min() < 1.1


def test_the_volume_is_the_one_expected() -> None:
    vague = replace(DISTANCES, width=np.full_like(DISTANCES.width, np.inf))
    moved = arrange([frame(rutile(a=6.0, c=4.0))], vague, 150).frame
    expected = DISTANCES.volume_of(rutile().numbers)
    assert np.prod(moved.lengths) == pytest.approx(expected, rel=0.03)


def test_nearest_images_are_those_of_all_neighbouring_cells() -> None:
    rng = np.random.default_rng(3)
    frac, lattice = rng.random((5, 3)), np.eye(3) * 4 + rng.normal(scale=0.4, size=(3, 3))
    at = torch.tensor(frac[None], dtype=torch.float32)
    axes = torch.tensor(lattice[None], dtype=torch.float32)
    images = module._nearest_images(at, axes)
    vectors = (at[:, :, None] - at[:, None] + images) @ axes[:, None]
    assert vectors.norm(dim=3)[0].numpy() == pytest.approx(nearest_images(lattice, frac), rel=1e-4)


def test_a_start_without_volume_loses_and_alone_becomes_no_crystal() -> None:
    good, flat = frame(rutile(0.24)), frame(rutile(0.24))
    flat = replace(flat, lengths=np.array([4.6, 4.6, np.nan]))
    assert arrange([flat, good], DISTANCES, 20).start == 1
    assert arrange([flat], DISTANCES, 20).misfit == np.inf


def test_it_is_the_same_where_no_gradients_are_kept() -> None:
    with torch.no_grad():
        quiet = arrange([frame(rutile(0.24))], DISTANCES, 30)
    assert quiet.misfit == arrange([frame(rutile(0.24))], DISTANCES, 30).misfit
    assert quiet.misfit < arrange([frame(rutile(0.24))], DISTANCES, 0).misfit
