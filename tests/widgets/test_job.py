"""Work in a thread: the cell goes on, Stop stops it, one at a time, errors are shown."""

import threading
import time

import pytest

from lorakit.run import Progress
from lorakit.widgets import Job
from lorakit.widgets import job as module


class Counts(Job):
    """Counts to three, each time it is let; fails at two if told to."""

    def __init__(self, *, fails: bool = False):
        self.fails, self.done = fails, 0
        self.began, self.gate = threading.Event(), threading.Event()
        super().__init__([], [], alt="counts to three")

    def work(self) -> str:
        self.done = 0
        while self.done < 3 and not self.stopping():
            self.done += 1
            self.show(Progress(stage="counting", done=self.done, total=3, seconds_left=2.6))
            self.began.set()
            if self.fails and self.done == 2:
                raise OSError("no room")
            assert self.gate.wait(20)
        return f"{self.done} of 3"


class Other(Counts):
    """Another kind of explorable."""


@pytest.fixture
def job():
    job = Counts()
    yield job
    end(job)


@pytest.fixture
def alive(job) -> Counts:
    """A job at its first count."""
    job.go()
    assert job.began.wait(20)
    return job


def end(job: Counts) -> None:
    job.stop.click()
    job.gate.set()
    eventually(lambda: not job.running)


def eventually(holds, seconds: float = 20):
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last, "never came true"
        time.sleep(0.005)


def test_before_it_starts_nothing_is_done(job):
    assert job.line.value == "not started"
    assert not job.running
    assert job.stop.disabled and not job.start.disabled


def test_the_cell_returns_at_once_and_the_work_goes_on(alive):
    assert alive.running
    assert alive.done == 1
    assert alive.start.disabled and not alive.stop.disabled


def test_the_line_and_the_bar_tell_how_far_it_is_and_how_long_it_takes(alive):
    assert alive.line.value == "counting: 1 of 3, 3 s left"
    assert (alive.bar.value, alive.bar.max) == (1, 3)
    alive.gate.set()
    eventually(lambda: not alive.running)
    assert alive.line.value == "3 of 3"
    assert (alive.bar.value, alive.bar.max) == (3, 3)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(stage="loading the base"), "loading the base"),
        (Progress(stage="training", done=2, total=9), "training: 2 of 9"),
        (
            Progress(stage="training", done=2, total=9, seconds_left=0.4),
            "training: 2 of 9, 0 s left",
        ),
    ],
)
def test_what_has_no_parts_is_told_by_its_name_alone(job, progress, line):
    job.show(progress)
    assert job.line.value == line


def test_a_shorter_stage_after_a_longer_one_moves_the_bar_whole(job):
    job.show(Progress(stage="long", done=90, total=100))
    job.show(Progress(stage="short", done=2, total=5))
    assert (job.bar.value, job.bar.max) == (2, 5)


def test_stop_ends_it_between_two_counts(alive):
    alive.stop.click()
    alive.gate.set()
    eventually(lambda: not alive.running)
    assert alive.line.value == "1 of 3"
    assert not alive.start.disabled and alive.stop.disabled


def test_a_stop_from_before_does_not_stop_the_next(job):
    job.stop.click()
    job.gate.set()
    job.go(wait=True)
    assert job.line.value == "3 of 3"


def test_after_a_stop_it_can_start_again(alive):
    end(alive)
    alive.go(wait=True)
    assert alive.line.value == "3 of 3"


def test_another_kind_of_explorable_is_refused_while_one_is_alive(alive):
    other = Other()
    with pytest.raises(RuntimeError, match="a run is alive: press its Stop, or wait for its end"):
        other.go()
    assert other.done == 0
    assert not other.start.disabled and other.line.value == "not started"
    assert alive.running


def test_the_same_one_is_refused_while_it_is_alive(alive):
    with pytest.raises(RuntimeError, match="a run is alive"):
        alive.go()
    assert alive.start.disabled and not alive.stop.disabled


def test_a_refused_start_does_not_stop_the_one_that_is_alive(alive):
    with pytest.raises(RuntimeError):
        Other().go()
    alive.gate.set()
    eventually(lambda: not alive.running)
    assert alive.line.value == "3 of 3"


def test_with_wait_another_waits_for_its_end_and_then_runs(alive):
    other = Other()
    other.gate.set()
    waiting = threading.Thread(target=other.go, kwargs={"wait": True})
    waiting.start()
    waiting.join(0.05)
    assert other.done == 0 and waiting.is_alive()
    alive.gate.set()
    waiting.join(20)
    assert (alive.line.value, other.line.value) == ("3 of 3", "3 of 3")


def test_with_wait_the_same_one_is_waited_for_and_not_done_twice(alive, monkeypatch):
    works = []
    monkeypatch.setattr(alive, "work", lambda: works.append(1))
    alive.gate.set()
    alive.go(wait=True)
    assert alive.line.value == "3 of 3"
    assert works == []


def test_an_error_is_shown_the_lock_is_let_go_and_start_works_again(monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    job = Counts(fails=True)
    job.gate.set()
    job.start.click()
    eventually(lambda: not job.running)
    assert "OSError: no room" in job.error.value
    assert job.line.value == "ended by an error"
    assert not job.start.disabled and job.stop.disabled
    assert not module._ONE_AT_A_TIME.locked()
    job.fails = False
    job.start.click()
    eventually(lambda: not job.running)
    assert (job.error.value, job.line.value) == ("", "3 of 3")


def test_an_error_that_comes_before_start_returns_is_shown_all_the_same(monkeypatch):
    class Quick(threading.Thread):
        def start(self):
            super().start()
            self.join(20)

    monkeypatch.delenv("LORAKIT_TEST")
    monkeypatch.setattr(module.threading, "Thread", Quick)
    job = Counts(fails=True)
    job.gate.set()
    job.start.click()
    assert "OSError: no room" in job.error.value


def test_with_wait_the_error_is_raised_and_another_can_run():
    job, other = Counts(fails=True), Other()
    job.gate.set()
    other.gate.set()
    with pytest.raises(OSError, match="no room"):
        job.go(wait=True)
    assert job.line.value == "ended by an error"
    other.go(wait=True)
    assert other.line.value == "3 of 3"


def test_a_refusal_is_shown_where_start_was_clicked(alive, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    other = Other()
    other.start.click()
    assert "a run is alive" in other.error.value
    assert alive.error.value == ""


def test_a_click_does_not_wait(job, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    job.start.click()
    assert job.running


def test_under_test_a_click_does_its_work_before_it_returns(job):
    job.gate.set()
    job.start.click()
    assert job.line.value == "3 of 3"


def test_closing_stops_a_job_that_is_alive(alive):
    alive.close()
    alive.gate.set()
    eventually(lambda: not alive.running)
    assert alive.done == 1
    assert not module._ONE_AT_A_TIME.locked()


def test_a_job_says_what_its_work_is_or_is_refused():
    with pytest.raises(NotImplementedError):
        Job([], [], alt="nothing to do").go(wait=True)
    assert not module._ONE_AT_A_TIME.locked()


def test_a_kernel_that_ends_does_not_wait_for_the_work(alive):
    assert alive._thread.daemon


def test_whoever_waits_for_a_job_that_is_alive_gets_its_error(monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    job = Counts(fails=True)
    job.go()
    threading.Timer(0.1, job.gate.set).start()
    with pytest.raises(OSError, match="no room"):
        job.go(wait=True)


def test_a_thread_that_cannot_start_leaves_start_enabled_and_others_free(monkeypatch):
    class Broken(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    monkeypatch.delenv("LORAKIT_TEST")
    job, other = Counts(), Other()
    with monkeypatch.context() as patch:
        patch.setattr(module.threading, "Thread", Broken)
        job.start.click()
    assert "can&#x27;t start new thread" in job.error.value
    assert not job.start.disabled
    other.gate.set()
    other.go(wait=True)


def test_an_interrupted_job_says_so_and_another_can_run(monkeypatch):
    job, other = Counts(), Other()
    monkeypatch.setattr(job, "work", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        job.go(wait=True)
    assert job.line.value == "interrupted"
    other.gate.set()
    other.go(wait=True)


def test_the_shown_error_of_a_thread_unfolds_to_where_it_was_raised(monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    job = Counts(fails=True)
    job.gate.set()
    job.go()
    job._thread.join(20)
    assert "in work" in job.error.value
    assert job._error.__traceback__ is None


def test_what_is_left_follows_from_what_the_steps_so_far_took(job, monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", lambda: 107.0)
    job.advance("counting", 2, 10, began=100.0)
    assert job.line.value == "counting: 2 of 10, 28 s left"
    assert (job.bar.value, job.bar.max) == (2, 10)
