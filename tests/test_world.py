"""Stories: three people, four facts each, nobody's fact another's, words dealt to splits."""

import random

import pytest

from lorakit.world import (
    ATTRIBUTES,
    NAMES,
    PEOPLE,
    SPLITS,
    VALUES,
    split_words,
    tell,
    tell_pairs,
)


def stories(teller=tell, split=None, count=300):
    draw = random.Random(0)
    return [teller(draw, split) for _ in range(count)]


@pytest.mark.parametrize("words", [NAMES, *VALUES.values()], ids=["names", *VALUES])
def test_every_word_belongs_to_one_split(words):
    dealt = [word for split in SPLITS for word in split_words(words, split)]
    assert sorted(dealt) == sorted(set(words))
    assert all(len(split_words(words, split)) > PEOPLE for split in SPLITS)


@pytest.mark.parametrize("split", [None, *SPLITS])
def test_a_story_keeps_to_its_splits_words(split):
    for story in stories(split=split):
        for person in story.people:
            assert person.name in split_words(NAMES, split)
            for attribute in ATTRIBUTES:
                assert getattr(person, attribute) in split_words(VALUES[attribute], split)


@pytest.mark.parametrize("teller", [tell, tell_pairs])
def test_no_two_people_share_a_name_or_a_fact(teller):
    for story in stories(teller, "train"):
        assert all(len(set(column)) == PEOPLE for column in zip(*story.people, strict=True))


def test_pairs_of_name_and_value_belong_to_one_split_and_all_words_to_every_split():
    pairs = {}
    for split in SPLITS:
        people = [p for story in stories(tell_pairs, split, 2000) for p in story.people]
        pairs[split] = {(p.name, getattr(p, key)) for p in people for key in ATTRIBUTES}
        assert {name for name, _ in pairs[split]} == set(NAMES)
        assert {value for _, value in pairs[split]} == {v for c in VALUES.values() for v in c}
    assert not pairs["train"] & pairs["heldout"]
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["validation"] & pairs["heldout"]


def test_the_text_tells_each_fact_once():
    for story in stories():
        sentences = story.text.removesuffix(" .").split(" . ")
        assert len(sentences) == PEOPLE * len(ATTRIBUTES)
        for person in story.people:
            own = [s for s in sentences if s.startswith(f"{person.name} ")]
            for attribute in ATTRIBUTES:
                value = getattr(person, attribute)
                assert sum(s.endswith(f" {value}") for s in own) == 1


def test_renaming_moves_names_and_leaves_everything_else():
    (story,) = stories(count=1)
    moved = story.renamed(1)
    assert [p.name for p in moved.people] == [story.people[i].name for i in (2, 0, 1)]
    assert [p[1:] for p in moved.people] == [p[1:] for p in story.people]
    assert moved.text.split()[1:3] == story.text.split()[1:3]
    assert story.renamed(3) == story


def test_the_same_seed_tells_the_same_story():
    assert stories(split="heldout") == stories(split="heldout")
