"""Sampling: reproducible crystal by crystal, and conditions act."""

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import FrameworkComparator
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.symmetry import space_group_of
from pccd_workflows.generators.elements import draw_elements
from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.cells import SampleRequest, draw_cells, likeliest_cells
from pccd_workflows.generators.pccd.checkpoint import load_model
from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.pointcloud.decode import decode
from pccd_workflows.generators.pccd.sample import sample_clouds, sample_crystals
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions, Generate

FAST = Sampler(name="dpm-solver++", steps=15, start=1)


def ask(elements=("Na", "Cl"), n=16, first=0, **conditions):
    return [SampleRequest(first + i, elements, Conditions(**conditions)) for i in range(n)]


def crystals(model, requests, sampler=FAST, seed=5):
    return [decode(c) for c in sample_clouds(model, requests, seed=seed, sampler=sampler)]


def axis_ratio(structures):
    return np.median([max(s.lattice.abc) / min(s.lattice.abc) for s in structures])


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm-solver++"])
def test_a_crystal_does_not_depend_on_its_batch(tiny_model, name):
    sampler = Sampler(name=name, steps=8, start=1)
    requests = [*ask(n=3), *ask(("Cs", "Mg", "F"), n=3, first=3)]
    together = sample_clouds(tiny_model, requests, seed=5, sampler=sampler)
    backwards = sample_clouds(tiny_model, requests[::-1], seed=5, sampler=sampler)[::-1]
    for i, request in enumerate(requests):
        (alone,) = sample_clouds(tiny_model, [request], seed=5, sampler=sampler)
        for other in (together[i], backwards[i]):
            difference = (other.values - alone.values + 0.5) % 1 - 0.5
            assert np.abs(difference).max() < 1e-3
            assert other.elements == alone.elements
    (other_seed,) = sample_clouds(tiny_model, requests[:1], seed=6, sampler=sampler)
    assert np.abs(other_seed.values - together[0].values).max() > 1e-3
    assert np.abs(together[1].values - together[0].values).max() > 1e-3


def test_a_trained_model_draws_what_it_learned(tiny_model):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Lattice, Structure

    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(4.2), ["K", "Mg", "F"], [[0, 0, 0], [0.5] * 3, [0, 0.5, 0.5]]
    )
    made = crystals(tiny_model, ask(("K", "Mg", "F")))
    assert all(s.composition.reduced_formula == "KMgF3" for s in made)
    assert sum(StructureMatcher().fit(perovskite, s) for s in made) >= 12


def test_conditions_act(tiny_model):
    long = axis_ratio(crystals(tiny_model, ask(crystal_system="tetragonal")))
    cubic = axis_ratio(crystals(tiny_model, ask(crystal_system="cubic")))
    assert long > 1.4
    assert cubic < 1.2
    wide_gap = axis_ratio(crystals(tiny_model, ask(band_gap=4.0)))
    metal = axis_ratio(crystals(tiny_model, ask(band_gap=0.0)))
    assert wide_gap > 1.4
    assert metal < 1.2


def test_the_space_group_acts(tiny_model):
    tetragonal = axis_ratio(crystals(tiny_model, ask(space_group=123)))
    cubic = axis_ratio(crystals(tiny_model, ask(space_group=221)))
    assert tetragonal > 1.4
    assert cubic < 1.2


def space_groups(model, requests, sampler):
    return [cell.space_group for cell in draw_cells(model, requests, 0, sampler)]


def test_the_space_group_is_drawn_like_the_crystals_it_learned_from(tiny_model):
    sampler = Sampler(steps=1, temperature=1)
    drawn = space_groups(tiny_model, ask(n=60, composition="NaCl"), sampler)
    assert set(drawn) == {123, 221}  # the two structures of NaCl in the data
    assert 15 < drawn.count(123) < 45
    cubic = ask(composition="NaCl", crystal_system="cubic")
    assert set(space_groups(tiny_model, cubic, sampler)) == {221}
    perovskite = ask(("K", "Mg", "F"), n=1, composition="KMgF3")
    assert space_groups(tiny_model, perovskite, sampler) == [221]


def test_the_structure_type_is_one_that_crystals_of_the_space_group_have(tiny_model):
    cells = draw_cells(tiny_model, ask(n=60), 0, Sampler())
    kinds = {(cell.space_group, cell.structure_type) for cell in cells}
    assert len(kinds) == 2  # cubic and tetragonal CsCl type
    assert all(kind > 0 for _, kind in kinds)
    (unheard_of,) = ask(n=1, composition="Na3Cl2")
    assert draw_cells(tiny_model, [unheard_of], 0, Sampler())[0].structure_type == 0


def test_what_is_asked_twice_is_worked_out_once(tiny_model, monkeypatch):
    requests = [*ask(n=12), *ask(n=12, crystal_system="cubic")]
    alone = [draw_cells(tiny_model, [request], 0, Sampler())[0] for request in requests]
    votes, asked = Analogues.cell_votes, []

    def counted(self, elements, conditions, *, recall=False):
        asked.append((elements, conditions))
        return votes(self, elements, conditions, recall=recall)

    monkeypatch.setattr(Analogues, "cell_votes", counted)
    assert draw_cells(tiny_model, requests, 0, Sampler()) == alone
    assert len(asked) == 2


def test_temperature_zero_takes_the_likeliest(tiny_model):
    greedy = Sampler(steps=1, temperature=0)
    assert len(set(space_groups(tiny_model, ask(n=20, composition="NaCl"), greedy))) == 1


def test_cold_compositions_are_few():
    model = load_model(resource("model", "pccd-default"), "cpu")
    (request,) = ask(("Mg", "Mn", "O"), n=1)

    def formulas(temperature):
        sampler = Sampler(composition_temperature=temperature)
        return {draw_cells(model, [request], seed, sampler)[0].numbers for seed in range(40)}

    assert len(formulas(0)) == 1
    assert 1 < len(formulas(0.4)) < len(formulas(1))


def test_known_compounds_come_again_when_asked_for():
    """The structure types drawn for MgMn2O4 are those of its known phases, or by analogy others."""
    model = load_model(resource("model", "pccd-default"), "cpu")
    known = model.analogues
    (request,) = ask(("Mg", "Mn", "O"), n=1, composition="Mg2Mn4O8")
    names = electropositive_first([12, 25, 8])
    phases = (known.elements[:, :3] == names).all(1) & (known.elements[:, 3:] == 0).all(1)
    counts = {12: 2, 25: 4, 8: 8}
    phases &= (known.cells[known.cell][:, :3] == [counts[z] for z in names]).all(1)
    assert phases.any()

    def kinds(*, recall):
        sampler = Sampler(temperature=1, recall=recall)
        return {
            draw_cells(model, [request], seed, sampler)[0].structure_type for seed in range(60)
        } - {0}

    assert kinds(recall=True) <= set(known.structure_type[phases].tolist())
    assert not kinds(recall=False) <= set(known.structure_type[phases].tolist())


def test_temperature_scales_the_noise(tiny_model):
    requests = ask(n=6, composition="NaCl", space_group=221)

    def spread(temperature, name):
        sampler = Sampler(name=name, steps=15, temperature=temperature, start=1)
        return float(
            np.std([s.lattice.abc for s in crystals(tiny_model, requests, sampler)], 0).max()
        )

    for name in ("dpm-solver++", "ddim", "ddpm"):
        assert spread(0, name) == pytest.approx(0, abs=1e-6)  # no noise, one answer
        assert spread(1, name) > spread(0.1, name) > 0


def test_noised_crystals_get_all_the_noise_at_any_temperature(tiny_model):
    requests = ask(n=2, composition="NaCl", space_group=221)
    start = torch.zeros(2, 3, 128, tiny_model.denoiser.columns)
    cold, warm = (
        sample_clouds(
            tiny_model, requests, seed=0, sampler=Sampler(steps=5, temperature=t), start=start
        )
        for t in (0, 1)
    )
    assert all(np.array_equal(a.values, b.values) for a, b in zip(cold, warm, strict=True))


def test_atoms_are_kept_apart(tiny_model):
    requests = ask(n=4, composition="Na4Cl4")  # a cell it has never seen

    def closest(separation):
        sampler = Sampler(steps=15, separation=separation, start=1)
        distances = [
            s.distance_matrix + 9 * np.eye(8) for s in crystals(tiny_model, requests, sampler)
        ]
        return min(d.min() for d in distances)

    assert closest(0.75) > 1.2
    assert closest(0.0) < closest(0.75)


def test_crystals_of_four_elements(tiny_model):
    quaternary = ask(("K", "Ca", "Mg", "F"), n=4)
    for cloud, made in zip(
        sample_clouds(tiny_model, quaternary, seed=1, sampler=FAST),
        crystals(tiny_model, quaternary, seed=1),
        strict=True,
    ):
        assert cloud.values.shape == (3, 128, 4)
        assert made.composition.formula == "K1 Ca1 Mg1 F6"


def test_guidance_acts_and_one_means_conditional_only(tiny_model, monkeypatch):
    requests = ask(n=4, crystal_system="tetragonal")

    def clouds(guidance):
        sampler = Sampler(name="ddim", steps=6, guidance=guidance, start=1)
        return np.array(
            [c.values for c in sample_clouds(tiny_model, requests, seed=1, sampler=sampler)]
        )

    plain, ignored = clouds(1.0), clouds(0.0)
    stretch = [c[:, 2, 64:, :].mean(1).max(1).mean() for c in (ignored, plain)]
    assert stretch[1] > stretch[0]
    assert np.abs(clouds(3.0) - plain).max() > 1e-3
    calls = []
    network = type(tiny_model.denoiser).network
    monkeypatch.setattr(
        type(tiny_model.denoiser), "network", lambda *a: calls.append(1) or network(*a)
    )
    clouds(1.0)
    once = len(calls)
    clouds(2.0)
    assert once == 6
    assert len(calls) - once == 12


def test_composition_and_number_of_atoms_are_obeyed(tiny_model):
    for made in crystals(tiny_model, ask(n=4, composition="Na2Cl2")):
        assert made.composition.formula == "Na2 Cl2"
    for made in crystals(tiny_model, ask(n=4, n_sites=2)):
        assert len(made) == 2


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (ask(("Na", "O")), "never seen O"),
        (ask(("Na", "Cl", "F", "Mg", "Ca")), "1 to 4 elements"),
        (ask(composition="NaBr"), "does not have the elements"),
        (ask(composition="Na(Cl"), "not a formula"),
        (ask(composition="Na1.5Cl"), "fractional"),
        (ask(composition="Na20Cl20"), "40 atoms"),
        (ask(composition="NaCl", n_sites=4), "contradict"),
        (ask(n_sites=7), "no cell of 7 atoms"),
        (ask(n_sites=40), "up to 16 atoms"),
        (ask(magnetic_ordering="FM"), "not trained on magnetic_ordering"),
    ],
)
def test_what_the_model_cannot_do_is_said(tiny_model, request_, word):
    with pytest.raises(InputError, match=word):
        sample_clouds(tiny_model, request_, seed=0, sampler=FAST)


def test_elements_are_given_in_turn_or_drawn():
    given = Generate(elements=["O", "Mg"])
    assert draw_elements(given, 7) == ("O", "Mg")
    turns = Generate(element_sets=[["O", "Mg"], ["Na", "Cl"]])
    assert [draw_elements(turns, i) for i in range(3)] == [("O", "Mg"), ("Na", "Cl"), ("O", "Mg")]
    draw = {"from": ["Li", "Mg", "Fe", "Zn"], "n_elements": [2, 3], "always": ["O"]}
    drawn = Generate.model_validate({"draw": draw, "seed": 3})
    sets = [draw_elements(drawn, i) for i in range(200)]
    assert sets == [draw_elements(drawn, i) for i in range(200)]
    assert {len(s) for s in sets} == {2, 3}
    assert all("O" in s for s in sets)
    assert len(set(sets)) == 4 + 6
    assert sets != [draw_elements(drawn.model_copy(update={"seed": 4}), i) for i in range(200)]


def test_crystals_have_the_symmetry_they_aim_at(tiny_model):
    requests = [*ask(n=12), *ask(("K", "Ca", "Mg", "F"), n=4, first=12)]
    sampler = Sampler(steps=6, temperature=1, start=1)
    for made in sample_crystals(tiny_model, requests, seed=3, sampler=sampler):
        assert made.analogue is not None
        assert space_group_of(made.structure, 0.001) == made.cell.space_group
    free = sampler.model_copy(update={"symmetric": False})
    loose = sample_crystals(tiny_model, requests, seed=3, sampler=free)
    assert {made.analogue for made in loose} == {None}
    assert any(space_group_of(made.structure, 0.001) == 1 for made in loose)


def test_a_crystal_alone_is_the_same_as_in_a_batch(tiny_model):
    requests = [*ask(n=3), *ask(("Cs", "Mg", "F"), n=3, first=3)]
    sampler = Sampler(steps=6, temperature=1, start=1)
    together = sample_crystals(tiny_model, requests, seed=5, sampler=sampler)
    for request, made in zip(requests, together, strict=True):
        (alone,) = sample_crystals(tiny_model, [request], seed=5, sampler=sampler)
        assert alone.analogue == made.analogue
        assert np.allclose(alone.structure.lattice.abc, made.structure.lattice.abc, atol=1e-4)
        assert np.allclose(alone.structure.frac_coords, made.structure.frac_coords, atol=1e-4)


def test_crystals_are_those_that_the_clouds_say(tiny_model):
    requests = ask(("K", "Mg", "F"), n=3)
    made = sample_crystals(tiny_model, requests, seed=5, sampler=FAST)
    for one, read in zip(made, crystals(tiny_model, requests), strict=True):
        assert np.allclose(one.structure.lattice.abc, read.lattice.abc, atol=1e-3)
        assert one.structure.composition == read.composition


def test_sampling_may_start_at_the_analogue(tiny_model):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    request = ask(("K", "Mg", "F"), n=1, composition="KMgF3")
    for start in (0.0, 0.1):
        sampler = Sampler(steps=10, start=start)
        (made,) = sample_crystals(tiny_model, request, seed=0, sampler=sampler)
        known = tiny_model.templates.template(made.analogue)
        analogue = Structure(known.lattice, known.numbers, known.frac_coords)
        assert StructureMatcher(comparator=FrameworkComparator()).fit(made.structure, analogue)
    (copied,) = sample_crystals(tiny_model, request, seed=0, sampler=Sampler(), refined=False)
    assert sorted(copied.structure.lattice.abc) == pytest.approx([4.2] * 3)


def test_the_likeliest_types_are_different_guesses(tiny_model):
    requests = [*ask(n=1, composition="NaCl"), *ask(("K", "Mg", "F"), n=1, composition="KMgF3")]
    first, second = likeliest_cells(tiny_model, requests, 2, Sampler())
    assert first == draw_cells(tiny_model, requests, 0, Sampler(temperature=0))
    assert {first[0].space_group, second[0].space_group} == {123, 221}
    assert second[1] == first[1]  # of one type only


def test_the_shipped_model_makes_symmetric_crystals():
    model = load_model(resource("model", "pccd-default"), "cpu")
    elements = [("Mg", "Mn", "O"), ("Ca", "Sn", "O"), ("Fe", "S")]
    requests = [SampleRequest(i, elements[i % 3], Conditions()) for i in range(24)]
    made = sample_crystals(model, requests, seed=0, sampler=Sampler())
    assert all(one.analogue is not None for one in made)
    obtained = [space_group_of(one.structure, 0.01) == one.cell.space_group for one in made]
    assert sum(obtained) >= 23
    asked = [SampleRequest(i, elements[i % 3], Conditions(space_group=62)) for i in range(6)]
    for one in sample_crystals(model, asked, seed=0, sampler=Sampler()):
        assert space_group_of(one.structure, 0.01) == 62


def test_sampler_options_that_are_not_changed_leave_hashes_as_they_are():
    assert not {"symmetric", "start"} & set(Sampler().model_dump())
    changed = Sampler(symmetric=False, start=0.2)
    assert Sampler.model_validate(changed.model_dump()) == changed
    assert {"symmetric", "start"} <= set(changed.model_dump())
