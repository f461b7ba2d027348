"""How the command line speaks: literal texts, whole characters, Ctrl-C, errors in one line."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import typer

from lorakit.console import (
    plain_errors,
    show,
    show_result,
    stop_on_interrupt,
    tell_progress,
    whole_characters,
)
from lorakit.counts import Count
from lorakit.experiment import Stopped
from lorakit.history import History
from lorakit.memory import MemoryBreakdown, StepMemory
from lorakit.run import Answer, Progress, Result, Run
from lorakit.scoring import Score


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def told(capsys):
    """The lines that a listener says of a stage's steps."""

    def lines(total: int, done, **more) -> list[str]:
        report = tell_progress()
        for number in done:
            report(Progress(stage="training", done=number, total=total, **more))
        return capsys.readouterr().err.splitlines()

    return lines


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (2, [1, 2]),
        (7, [1, 2, 3, 4, 5, 6, 7]),
        (40, [1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]),
        (1000, [1, *range(100, 1001, 100)]),
    ],
)
def test_progress_is_said_at_the_first_step_and_at_every_tenth(told, total, said):
    lines = told(total, range(total + 1))
    assert lines == ["training", *(f"  {number} of {total}" for number in said)]


def test_progress_has_the_last_loss_and_the_time_left(told):
    assert told(4, [1], losses=(3.0, 2.34567), seconds_left=61.2) == [
        "training",
        "  1 of 4, loss 2.35, 61 s left",
    ]
    assert told(4, [1], seconds_left=300.0)[1] == "  1 of 4, 5 min left"


def test_a_resumed_run_begins_where_it_stands(told):
    assert told(40, [25, 26, 27, 28])[1:] == ["  25 of 40", "  28 of 40"]


def test_each_stage_is_said_once_as_it_is(capsys):
    report = tell_progress()
    for stage in ("converting [b]x.gguf", "converting [b]x.gguf", "judging"):
        report(Progress(stage=stage))
    assert capsys.readouterr().err == "converting [b]x.gguf\njudging\n"


def test_the_first_ctrl_c_asks_and_the_second_breaks_off(capfd):
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt() as stop:
        assert not stop()
        press_ctrl_c()
        assert stop()
        assert "Ctrl-C again breaks off now and loses it" in capfd.readouterr().err
        press_ctrl_c()


@pytest.mark.parametrize("pressed", [False, True])
def test_after_the_run_ctrl_c_is_what_it_was(pressed):
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as stop:
        if pressed:
            press_ctrl_c()
        assert stop() == pressed
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("rank must be\nat least 1"), 1, "error: rank must be at least 1"),
        (FileNotFoundError("no [b]x[/b]"), 1, "error: no [b]x[/b]"),
        (ArithmeticError("the loss is nan"), 1, "error: the loss is nan"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 1, "error: out of memory: lower --b"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "error: out of memory: l"),
        (Stopped("nothing was trained"), 130, "nothing was trained"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error, code, line):
    @plain_errors
    def command():
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == code
    said = capsys.readouterr()
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("error", [RuntimeError("shapes do not multiply"), KeyError("bug")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    @plain_errors
    def command():
        raise error

    with pytest.raises(type(error), match=str(error)):
        command()


def test_half_a_character_waits_for_its_other_tokens():
    tokens = list("né→x".encode())
    pieces = list(whole_characters(tokens, lambda ids: bytes(ids).decode(errors="replace")))
    assert pieces == ["n", "é", "→", "x", ""]


def test_a_text_that_ends_within_a_character_shows_that_it_does():
    tokens = list("né".encode())[:-1]
    pieces = whole_characters(tokens, lambda ids: bytes(ids).decode(errors="replace"))
    assert "".join(pieces) == "n\N{REPLACEMENT CHARACTER}"


def test_no_tokens_are_no_text():
    assert "".join(whole_characters([], lambda ids: "never asked")) == ""


PEAK = MemoryBreakdown(weights=40_000, activations=2_000)
STEP = StepMemory(
    source="measured on a CPU",
    phases={"forward": MemoryBreakdown(weights=40_000), "backward": PEAK},
    most=PEAK,
    reserved=42_000,
    device=42_000,
    timeline=None,
    starts={},
)


@pytest.fixture
def result() -> Result:
    """Of a run that was stopped in its only step."""
    return Result(
        run=Run(steps=1),
        device="CPU",
        model=None,
        tokenizer=None,
        parameters=Count(total=10, trainable=1),
        disk=1000,
        history=History(notes=["a [note]"]),
        memory=None,
        before=Score(right=0, count=2, loss=3.0),
        answers=[Answer(prompt="what?", expected="that", base="this", tuned="that")],
    )


def test_base_and_tuned_answer_stand_under_their_own_names(capsys, result):
    show_result(result, Path("out"), as_json=False)
    shown = capsys.readouterr()
    lines = [line.strip() for line in shown.out.splitlines()]
    table = lines.index("expected: that")
    assert lines[table - 1] == "what?"
    assert [lines[table + 2].split(), lines[table + 4].split()] == [
        ["base", "tuned"],
        ["this", "that"],
    ]
    assert "note: a [note]\n" in shown.err


@pytest.mark.parametrize(("memory", "said"), [(None, "not measured"), (STEP, "42.0 kB")])
def test_memory_is_that_of_the_peak_if_a_step_was_followed(capsys, result, memory, said):
    result.memory = memory
    show_result(result, Path("out"), as_json=False)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "peak" in line)
    assert line.strip() == f"memory at its peak   {said}"
    show_result(result, Path("out"), as_json=True)
    told = json.loads(capsys.readouterr().out)["memory"]
    assert told == (memory and memory.to_json())


MARKED = "[red]x[/red] [/] :smile: /a/very/long/path/to/somewhere"


def test_a_table_shows_a_text_literally(capsys):
    show([(MARKED, "1,234,567")])
    assert f"  {MARKED}   1,234,567" in capsys.readouterr().out


def test_a_narrow_table_folds_and_cuts_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    show([(MARKED, "1,234,567")])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 12
    assert sorted("".join(shown.split())) == sorted("".join(MARKED.split()) + "1,234,567")


def test_numbers_stand_to_the_right_under_their_header_and_texts_to_the_left(capsys):
    show([("one", 7, "x"), ("two", 1_234_567, "long")], "", "bytes", "of")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines if line.strip("─ ")] == [
        "            bytes   of",
        "  one           7   x",
        "  two   1,234,567   long",
    ]


def test_a_text_among_numbers_stands_with_them(capsys):
    show([("budget", 1000), ("fits", "no")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == ["  budget   1,000", "  fits        no"]
