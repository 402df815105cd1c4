"""New structure types: proposed sequences are possible, unknown, and become crystals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.symmetry import space_group_of
from pccd_workflows.evaluation.types import evaluate_types
from pccd_workflows.generators.pccd.cells import Cell, SampleRequest, draw_cells
from pccd_workflows.generators.pccd.checkpoint import load_model, save_model
from pccd_workflows.generators.pccd.chemistry import covalent_radii
from pccd_workflows.generators.pccd.config import SmallNetwork
from pccd_workflows.generators.pccd.dataset import read_dataset
from pccd_workflows.generators.pccd.generator import aim_of
from pccd_workflows.generators.pccd.new_types import NewType
from pccd_workflows.generators.pccd.new_types_training import sequences_of, train_new_types
from pccd_workflows.generators.pccd.pair_distances import nearest_images
from pccd_workflows.generators.pccd.sample import sample_crystals
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.wyckoff import wyckoff_table
from pccd_workflows.generators.pccd.wyckoff_network import propose
from pccd_workflows.generators.request import Conditions, Generate

WIDTH = SmallNetwork(width=32, epochs=80)


@pytest.fixture(scope="module")
def model(tiny_model):
    found = train_new_types(
        tiny_model.analogues, tiny_model.templates, **WIDTH.model_dump(), seed=0
    )
    info = tiny_model.info.model_copy(update={"new_types": WIDTH})
    return replace(tiny_model, info=info, new_types=found)


def ask(elements, n=8, **conditions):
    return [SampleRequest(i, elements, Conditions(**conditions)) for i in range(n)]


def test_the_network_learns_the_types_of_its_crystals(model):
    likeliest = propose(model.new_types.network, [19, 12, 9], [1, 1, 3])[0]
    assert likeliest.space_group == 221  # the perovskites it was shown
    key = wyckoff_table(221).canonical(likeliest.orbits)
    assert (221, key) in model.new_types.known


def test_likelihood_of_a_sequence_is_that_of_its_proposal(model):
    rows = np.array([0])
    crystal = sequences_of(model.analogues, model.new_types.known, rows)
    elements, counts = (column[0][column[0] > 0].tolist() for column in crystal[:2])
    kind = int(model.analogues.structure_type[0])
    of_group, of_orbits = model.new_types.network.log_likelihood(crystal)
    proposed = propose(model.new_types.network, elements, counts)
    (same,) = [
        one
        for one in proposed
        if one.orbits == model.new_types.known.orbits[kind]
        and one.space_group == model.new_types.known.space_group[kind]
    ]
    with torch.no_grad():
        assert same.log_p == pytest.approx(float(of_group + of_orbits), abs=1e-3)


def test_proposals_hold_the_atoms_and_share_no_point(model):
    for one in model.new_types.candidates([12, 9], [2, 4], Conditions()):
        table = wyckoff_table(one.space_group)
        sizes = [int(table.multiplicity[list(places)].sum()) for places in one.orbits]
        assert sizes == [2, 4]
        points = [p for places in one.orbits for p in places if table.freedom[p] == 0]
        assert len(set(points)) == len(points)
        assert one.key not in model.new_types.known


def test_proposals_obey_space_group_and_crystal_system(model):
    found = model.new_types.candidates([12, 9], [2, 4], Conditions(space_group=136))
    assert {one.space_group for one in found} == {136}
    cubic = model.new_types.candidates([12, 9], [2, 4], Conditions(crystal_system="cubic"))
    assert cubic
    assert all(one.space_group >= 195 for one in cubic)


def test_new_types_come_with_the_symmetry_aimed_at(model):
    requests = ask(("K", "Mg", "F"), n=6, composition="K2Mg2F6")
    sampler = Sampler(new_types=1, steps=8)
    made = sample_crystals(model, requests, seed=1, sampler=sampler)
    assert all(one.cell.new_type is not None for one in made)
    crystals = [one for one in made if one.structure is not None]
    assert len(crystals) >= 5
    found = [space_group_of(one.structure, 0.01) for one in crystals]
    assert all(a >= 1 for a in found)
    same = sum(a == one.cell.space_group for a, one in zip(found, crystals, strict=True))
    assert same >= len(crystals) - 1  # coordinates at random may meet a higher symmetry
    for one in crystals:
        aim = aim_of(model, one.cell, Conditions())
        assert aim.new_type
        assert aim.space_group == one.cell.space_group
        assert set(aim.orbits) == {"K", "Mg", "F"}


def test_the_share_is_the_users_and_nothing_changes_without(model):
    requests = ask(("K", "Mg", "F"), n=60, composition="KMgF3")
    plain = draw_cells(model, requests, 0, Sampler())
    assert all(cell.new_type is None for cell in plain)
    some = draw_cells(model, requests, 0, Sampler(new_types=0.3))
    new = [cell.new_type is not None for cell in some]
    assert 8 <= sum(new) <= 30
    assert [a for a, b in zip(some, new, strict=True) if not b] == [
        a for a, b in zip(plain, new, strict=True) if not b
    ]
    assert aim_of(model, plain[0], Conditions()).new_type is False
    known = Generate(elements=["K"], samples=1).model_dump(mode="json")
    assert "new_types" not in known["sampler"]  # older files keep their hash


def test_a_model_with_new_types_survives_the_disk(model, tmp_path):
    save_model(tmp_path / "kept", model)
    again = load_model(tmp_path / "kept", "cpu")
    asked = ([19, 12, 9], [1, 1, 3], Conditions())
    first, second = (m.new_types.candidates(*asked) for m in (model, again))
    assert {one.key for one in first[:5]} & {one.key for one in second[:5]}
    assert again.new_types.known.orbits == model.new_types.known.orbits


def test_evaluation_needs_a_part_that_proposes(tiny_model, dataset_file):
    held_out = read_dataset(dataset_file).of_split("test")
    with pytest.raises(InputError, match="proposes no new types"):
        evaluate_types(tiny_model, held_out, samples=2, seed=0, sampler=Sampler())


def test_a_held_out_type_is_found_where_positions_say_all(model, dataset_file):
    """With its perovskites forgotten, the model may propose and place them anew."""
    held_out = read_dataset(dataset_file).of_split("test")
    kinds = model.analogues.structure_type
    perovskites = np.unique(kinds[(model.analogues.cells[model.analogues.cell] == 3).any(1)])
    known = model.new_types.known
    groups = known.space_group.copy()
    groups[perovskites] = 0
    forgotten = replace(model.new_types, known=replace(known, space_group=groups))
    unaware = replace(model, new_types=forgotten)
    found = evaluate_types(unaware, held_out, samples=2, seed=0, sampler=Sampler(steps=8))
    assert found["crystals"] == 2
    assert found["type_among_guesses"]["value"] == 1
    assert found["match_rate"]["value"] == 1
    assert set(found) >= {"known_types", "random_positions", "half_new_half_known", "overlap"}


def test_shipped_weights_propose_types_for_a_new_system():
    shipped = load_model(resource("model", "pccd-default"), "cpu")
    found = shipped.new_types.candidates([38, 22, 8], [1, 1, 3], Conditions())
    assert len(found) > 20
    assert not any(one.key in shipped.new_types.known for one in found)
    assert sum(t.numel() for t in shipped.new_types.network.parameters()) < 1_000_000


def test_new_types_are_arranged_the_same_again_and_no_two_atoms_touch(model):
    requests = ask(("K", "Mg", "F"), n=4, composition="K2Mg2F6")
    sampler = Sampler(new_types=1, steps=8)
    first, second = (sample_crystals(model, requests, seed=1, sampler=sampler) for _ in range(2))
    for one, again in zip(first, second, strict=True):
        assert one.analogue == again.analogue
        assert np.allclose(one.structure.lattice.matrix, again.structure.lattice.matrix)
        assert np.allclose(one.structure.frac_coords, again.structure.frac_coords)
        radii = covalent_radii()[[site.specie.Z for site in one.structure]].astype(float)
        near = nearest_images(one.structure.lattice.matrix, one.structure.frac_coords)
        assert (near > 0.55 * (radii[:, None] + radii)).all()


def test_a_crystal_on_the_sites_of_a_known_one_names_it(model):
    """With its perovskites forgotten as a type, they still lend their sites."""
    kinds = model.analogues.structure_type
    perovskites = np.flatnonzero((model.analogues.cells[model.analogues.cell] == 3).any(1))
    kind = int(kinds[perovskites[0]])
    known = model.new_types.known
    aim = NewType(int(known.space_group[kind]), (19, 12, 9), known.orbits[kind], 0.0)
    cell = Cell(aim.numbers, aim.space_group, new_type=aim)
    (request,) = ask(("K", "Mg", "F"), n=1, composition="KMgF3")
    (made,) = sample_crystals(model, [request], seed=0, sampler=Sampler(), cells=[cell])
    assert made.analogue in perovskites.tolist()
    (lonely,) = sample_crystals(
        replace(model, templates=None), [request], seed=0, sampler=Sampler(), cells=[cell]
    )
    assert lonely.analogue is None
    assert space_group_of(lonely.structure, 0.01) == aim.space_group


def test_random_starts_depend_on_the_seed_alone(model):
    """Where no known crystal lends its sites."""
    table = wyckoff_table(62)
    mirror, general = table.freedom.tolist().index(2), int(np.argmax(table.freedom))
    aim = NewType(62, (12, 9), ((mirror,), (general,)), 0.0)
    cell = Cell(aim.numbers, aim.space_group, new_type=aim)
    request = SampleRequest(0, ("Mg", "F"), Conditions())
    bare = replace(model, templates=None)

    def lengths(seed):
        (made,) = sample_crystals(bare, [request], seed=seed, sampler=Sampler(), cells=[cell])
        return made.structure.lattice.abc

    assert lengths(1) == lengths(1)
    assert lengths(1) != lengths(2)
