"""The orders are held out for good: other names, other wordings; in three forms."""

import json

import pytest

from lorakit.orders import FORMS, orders
from lorakit.tasks import load_task


def test_there_are_60_orders_to_train_on_and_100_to_be_judged_by():
    task = load_task("orders")
    assert (len(set(task.train)), len(set(task.heldout))) == (60, 100)


def test_no_held_out_name_or_wording_is_ever_trained_on():
    task = load_task("orders")

    def seen(examples):
        for example in examples:
            answer = json.loads(example.response)
            wording = example.prompt
            for value in answer.values():
                assert str(value) in wording
                wording = wording.replace(str(value), "_", 1)
            yield answer["customer"], wording

    train_names, train_wordings = zip(*seen(task.train), strict=True)
    names, wordings = zip(*seen(task.heldout), strict=True)
    assert not set(names) & set(train_names)
    assert not set(wordings) & set(train_wordings)


@pytest.mark.parametrize("task", FORMS)
def test_every_form_is_told_of_the_same_orders(task):
    for split in ("train", "heldout"):
        for example, as_json in zip(orders(task, split), orders("orders", split), strict=True):
            assert example.prompt.partition(": ")[2] == as_json.prompt.partition(": ")[2]
            order = json.loads(as_json.response)
            for value in (order["customer"], order["item"], order["quantity"]):
                assert str(value) in example.response
            assert order["day"][:3].lower() in example.response.lower()


def test_no_answer_in_one_form_is_right_in_another():
    answers = [{e.response for e in orders(task, "heldout")} for task in FORMS]
    assert len(set.union(*answers)) == sum(map(len, answers))
