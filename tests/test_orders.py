"""The orders are held out for good: other names, other wordings."""

import json

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
