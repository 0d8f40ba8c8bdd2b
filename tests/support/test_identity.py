"""What makes two runs the same: an argument that is not named has the meaning it had before it existed."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from gtnlib.support.identity import FORMER, differences, plain


@pytest.mark.parametrize("name", FORMER)
def test_an_argument_that_is_not_named_has_its_former_meaning(name):
    plain, named, other = {"a": 1}, {"a": 1, "b": {name: FORMER[name]}}, {"a": 1, "b": {name: "other"}}
    assert not differences(plain, named) and not differences(named, plain) and not differences(plain, plain)
    assert differences(plain, other) == [f"b.{name} is {FORMER[name]!r} there, but 'other' here"]
    assert len(differences(other, plain)) == len(differences(named, other)) == 1


def test_an_argument_without_a_former_meaning_must_be_named():
    assert differences({}, {"restart": 1}) == ["restart is 'not set' there, but 1 here"]
    assert differences({"final_rate": 1}, {}) == ["final_rate is 1 there, but 'not set' here"]


def test_a_name_with_its_arguments_is_compared_argument_by_argument():
    one, two = ({"methods": {"implicit": ["Implicit", {"neumann_terms": terms}]}} for terms in (5, 10))
    assert differences(one, two) == ["methods.implicit.neumann_terms is 5 there, but 10 here"]
    named = {"methods": {"implicit": ["Implicit", {"solver": "neumann", "neumann_terms": 5}]}}
    assert differences(one, named) == []
    one, two = ({"student": [kind, {"name": "x"}]} for kind in ("MLP", "LeNet"))
    assert differences(one, two) == ["student is 'MLP' there, but 'LeNet' here"]


def test_a_number_is_the_same_whatever_library_holds_it():
    assert plain(np.int64(3)) == 3 and plain(np.float32(0.5)) == plain(torch.tensor(0.5)) == 0.5
    assert plain(np.bool_(True)) is True and plain(Fraction(1, 4)) == 0.25
    stored, given = plain({"clip": np.float32(2)}), {"clip": np.float32(1)}
    assert differences(stored, given) == ["clip is 2.0 there, but 1.0 here"]


def test_arrays_are_told_apart_by_their_values():
    one, same, other = (plain(partial(max, key=np.array(values))) for values in ([1, 2], [1, 2], [1, 3]))
    assert one == same and one != other
    assert plain(torch.ones(2, 3))["shape"] == [2, 3]


def test_an_empty_table_is_not_nothing():
    found = differences({"trials": {"a": {}}}, {"trials": {"a": {}, "b": {}}})
    assert found == ["trials.b is 'not set' there, but {} here"]
    assert differences({"arguments": {}}, {"arguments": {}}) == []


def test_a_name_without_arguments_is_still_a_name():
    given = ("MLP", {}), ("LeNet", {}), ("MLP", {"k": 1})
    one, two, three = ({"students": {"a": list(pair)}} for pair in given)
    assert differences(one, two) == ["students.a is 'MLP' there, but 'LeNet' here"] and not differences(
        one, one
    )
    assert differences(one, three) == ["students.a.k is 'not set' there, but 1 here"]


def test_an_empty_table_has_the_former_meaning_of_what_it_leaves_out():
    assert not differences({"metagrad_args": {}}, {"metagrad_args": {"solver": "neumann"}})
    assert not differences({"methods": {"implicit": ["Implicit", {}]}},
                           {"methods": {"implicit": ["Implicit", {"solver": "neumann"}]}})  # fmt: skip
