"""Numbers of structure types; their names are tested with the standard cells."""

import numpy as np

from pccd_workflows.generators.pccd.structure_type import number_types


def test_types_are_numbered_by_their_frequency_in_the_training_crystals():
    often, seldom, unseen = 77, 3, 12
    types = np.array([seldom, often, often, unseen, unseen, unseen, 0])
    train = np.array([True, True, True, False, False, False, True])
    assert number_types(types, train).tolist() == [2, 1, 1, 0, 0, 0, 0]
    assert number_types(types, np.zeros(7, dtype=bool)).tolist() == [0] * 7
