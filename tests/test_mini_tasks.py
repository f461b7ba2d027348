"""The mini base's tasks: right, held out by words, and wrong once names are shuffled."""

import pytest

from lorakit.mini_tasks import (
    ALL_WORDS,
    COUNTS,
    DEEP,
    GRADED,
    MINI_TASKS,
    NARROW,
    RECORDS,
    examples,
    is_mini_task,
    mixture_examples,
    record_form,
    reshaped,
    shuffled_examples,
)
from lorakit.mixture import EUROPE, vocabulary
from lorakit.world import NAMES, VALUES, Person, split_words

ADA = Person("Ada", "baker", "Paris", "goat", "soup")


def names_and_values(examples_):
    words = {w.strip('":') for e in examples_ for w in f"{e.prompt} {e.response}".split()}
    return words & {*NAMES, *(v for column in VALUES.values() for v in column)}


@pytest.mark.parametrize("name", [*NARROW, *GRADED])
def test_splits_share_no_name_and_no_value(name):
    seen = {split: names_and_values(examples(name, split, 300)) for split in COUNTS}
    for split, words in seen.items():
        allowed = {*split_words(NAMES, split)}
        allowed |= {v for column in VALUES.values() for v in split_words(column, split)}
        assert words == allowed


@pytest.mark.parametrize("name", MINI_TASKS)
def test_a_task_is_the_same_each_time_and_has_no_example_twice(name):
    made = examples(name, "heldout", 300)
    assert made == examples(name, "heldout", 300)
    assert made[:100] == examples(name, "heldout", 100)
    assert len({example.prompt for example in made}) == 300


@pytest.mark.parametrize("name", MINI_TASKS)
def test_every_word_of_a_task_is_known_to_the_base(name):
    words = {w for e in examples(name, "train", 300) for w in f"{e.prompt} {e.response}".split()}
    assert words <= set(vocabulary())


@pytest.mark.parametrize("name", MINI_TASKS)
def test_shuffled_names_keep_words_question_and_expected_answer(name):
    told, shuffled = examples(name, "heldout", 200), shuffled_examples(name, "heldout", 200)
    assert [e.response for e in shuffled] == [e.response for e in told]
    for right, moved in zip(told, shuffled, strict=True):
        assert right.prompt != moved.prompt
        assert sorted(right.prompt.split()) == sorted(moved.prompt.split())


def facts_of(prompt: str, name: str) -> set[str]:
    """The last words of the sentences about `name`: its facts."""
    sentences = [s.split() for s in prompt.split(" . ")[:-1]]
    return {words[-1] for words in sentences if words[0] == name}


@pytest.mark.parametrize("name", ["record", "json", "manner", "portrait", "quiz", "label"])
def test_with_shuffled_names_no_expected_answer_is_right_any_more(name):
    for example in shuffled_examples(name, "heldout", 300):
        question = example.prompt.split(" . ")[-1].split()
        asked = facts_of(example.prompt, next(word for word in question if word in NAMES))
        if name == "label":
            (home,) = asked & set(VALUES["home"])
            assert example.response != NARROW["label"].words[home not in EUROPE]
        else:
            said = {word.strip('"') for word in example.response.split()}
            assert not said & asked


def test_a_question_that_no_shuffling_makes_wrong_is_left_out():
    """Among training stories are some whose three people all live in Europe, or none."""
    shuffled = shuffled_examples("label", "train", 300)
    assert 150 < len(shuffled) < 300
    assert set(shuffled_examples("label", "heldout", 300)) and len(shuffled) == len(set(shuffled))


def test_the_deep_tasks_splits_share_no_pair_of_name_and_value():
    back = {other: word for word, other in ALL_WORDS.items()}
    pairs = {}
    for split in COUNTS:
        pairs[split] = set()
        for example in examples(DEEP, split, 300):
            words = [back[word] for word in example.prompt.split()]
            sentences = " ".join(words).split(" . ")[:-1]
            pairs[split] |= {(s.split()[-1], s.split()[0]) for s in sentences}
        assert {name for name, _ in pairs[split]} == set(NAMES)
    assert not pairs["train"] & (pairs["validation"] | pairs["heldout"])
    assert not pairs["validation"] & pairs["heldout"]


@pytest.mark.parametrize("name", ["record", "json", "portrait", "quiz"])
def test_a_narrow_task_is_one_form(name):
    """With its facts taken out every answer reads the same."""

    def shape(response):
        values = {v for column in VALUES.values() for v in column} | set(NAMES)
        return " ".join("_" if w.strip('":') in values else w for w in response.split())

    assert len({shape(e.response) for e in examples(name, "train", 300)}) == 1


def test_the_records_family_has_as_many_forms_as_numbers_all_different():
    assert RECORDS >= 48
    assert len({record_form(number).write(ADA) for number in range(RECORDS)}) == RECORDS
    assert examples("record-7", "train", 1) != examples("record-8", "train", 1)
    with pytest.raises(ValueError, match=f"records 0 to {RECORDS - 1}, not {RECORDS}"):
        record_form(RECORDS)


def test_a_name_that_is_no_task_is_refused():
    assert is_mini_task("json") and is_mini_task("record-0")
    assert not is_mini_task("record-007") and not is_mini_task("record-")
    assert not is_mini_task("orders") and not is_mini_task(f"record-{RECORDS}")
    with pytest.raises(ValueError, match="'jsn' is no task of the mini base: there are record,"):
        examples("jsn", "train", 1)


def test_the_reshaped_language_goes_backwards_in_other_words():
    told = "Ada has a goat . what is the pet of Ada ?"
    words, other = told.split(), reshaped(told).split()
    assert len(other) == len(words)
    assert not any(a == b for a, b in zip(words, other, strict=True))
    backwards = ["goat", "a", "has", "Ada", ".", "Ada", "of", "pet", "the", "is", "what", "?"]
    exchange = dict(zip(backwards, other, strict=True))
    assert [exchange[word] for word in backwards] == other
    assert len(set(exchange.values())) == len(exchange)


def test_deep_is_the_record_reshaped():
    (plain,) = examples("record", "train", 1)
    (deep,) = examples(DEEP, "train", 1)
    assert len(deep.response.split()) == len(plain.response.split())
    assert deep.response != plain.response


def test_the_bases_own_data_are_questions_of_every_kind():
    own = mixture_examples("heldout", 300)
    assert len(set(own)) == 300
    assert own == mixture_examples("heldout", 300)
    for word in ("record", "object", "what", "label", "portrait", "quiz"):
        assert any(f" . {word} " in example.prompt for example in own)
