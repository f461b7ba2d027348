"""What is slow waits until nobody asks for it anew."""

import asyncio

import pytest

from lorakit.widgets.later import Later

REST = 0.03


@pytest.fixture(autouse=True)
def as_in_a_lesson(monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")


def calls_of(act) -> list[int]:
    """How many calls there had been after each thing that `act` waited for."""
    calls: list[int] = []
    seen: list[int] = []

    async def main() -> None:
        later = Later(lambda: calls.append(1), seconds=REST)
        async for _ in act(later):
            seen.append(len(calls))

    asyncio.run(main())
    return seen


def test_it_is_called_once_after_the_last_of_many_asked():
    async def act(later):
        for _ in range(4):
            later.ask()
            await asyncio.sleep(REST / 3)
            yield
        await asyncio.sleep(2 * REST)
        yield
        await asyncio.sleep(2 * REST)
        yield

    assert calls_of(act) == [0, 0, 0, 0, 1, 1]


def test_asked_again_it_is_called_again():
    async def act(later):
        for _ in range(2):
            later.ask()
            await asyncio.sleep(2 * REST)
            yield

    assert calls_of(act) == [1, 2]


def test_what_is_cancelled_never_comes():
    async def act(later):
        later.ask()
        later.cancel()
        await asyncio.sleep(2 * REST)
        yield

    assert calls_of(act) == [0]


def test_without_an_event_loop_it_is_called_at_once():
    calls: list[int] = []
    Later(lambda: calls.append(1)).ask()
    assert calls == [1]


def test_under_test_it_is_called_at_once(monkeypatch):
    monkeypatch.setenv("LORAKIT_TEST", "1")

    async def act(later):
        later.ask()
        yield

    assert calls_of(act) == [1]
