"""A cell that runs again closes what it made before; nothing else is touched."""

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from ipywidgets import Widget

from lorakit.widgets import Explorable, Handshake, Job, cells, explorable
from lorakit.widgets.cells import Cell, current_cell


@pytest.fixture
def running(monkeypatch):
    """Says which cell is running from now on."""

    def run(name: str | None, execution: int = 0) -> None:
        cell = None if name is None else Cell(name, execution)
        monkeypatch.setattr(explorable, "current_cell", lambda: cell)

    return run


def closed(widget) -> bool:
    return widget.comm is None


def test_a_cell_run_again_closes_what_it_made(running):
    running("a", 1)
    first = Handshake()
    running("a", 2)
    second = Handshake()
    assert closed(first) and closed(first.picture) and closed(first.number)
    assert not closed(second) and not closed(second.picture)


@pytest.mark.parametrize("name", ["budget", "live", "memory", "finetune"])
def test_every_kind_of_explorable_makes_way_with_all_its_pictures(running, make, name):
    running("a", 1)
    first = make(name)
    pictures = first.pictures
    running("a", 2)
    second = make(name)
    assert closed(first) and all(map(closed, pictures))
    assert not closed(second)


def test_only_the_last_execution_of_a_cell_is_kept(running):
    for execution in range(1, 6):
        running("a", execution)
        last = Handshake()
    assert Explorable._made == {"a": [(Cell("a", 5), last)]}


def test_two_explorables_of_one_execution_stay(running):
    running("a", 1)
    first, second = Handshake(), Handshake()
    assert not closed(first) and not closed(second)
    running("a", 2)
    Handshake()
    assert closed(first) and closed(second)


def test_explorables_of_other_cells_stay(running):
    running("a", 1)
    first = Handshake()
    running("b", 2)
    Handshake()
    assert not closed(first)


def test_outside_of_a_notebook_nothing_is_kept(running):
    running(None)
    first = Handshake()
    Handshake()
    assert Explorable._made == {}
    assert not closed(first)


def test_here_there_is_no_notebook():
    assert current_cell() is None
    Handshake()
    assert Explorable._made == {}


def test_a_result_is_let_go_when_its_cell_runs_again(running, make):
    running("a", 1)
    first = make("finetune")
    first.train(wait=True)
    assert first.result is not None
    running("a", 2)
    second = make("finetune")
    assert closed(first) and first.result is None
    assert not closed(second)


def test_spectra_are_let_go_when_their_cell_runs_again(running, make):
    running("a", 1)
    first = make("spectrum")
    running("a", 2)
    make("spectrum")
    assert closed(first) and first.results == {}


class Endless(Job):
    """Works until it is stopped."""

    def __init__(self):
        self.began = threading.Event()
        super().__init__([], [], alt="has no end")

    def work(self) -> str:
        self.began.set()
        while not self.stopping():
            time.sleep(0.002)
        return "stopped"


@pytest.fixture
def alive(running) -> Endless:
    """A job that the first execution of cell "a" has left at work."""
    running("a", 1)
    job = Endless()
    job.go()
    assert job.began.wait(20)
    yield job
    job.stop.click()
    job._thread.join(20)


def test_a_job_that_is_alive_has_ended_when_its_cell_has_run_again(running, alive):
    running("a", 2)
    Handshake()
    assert closed(alive) and not alive.running
    assert alive.line.value == "stopped"


def test_a_cell_run_again_may_start_its_job_at_once(running, alive):
    running("a", 2)
    again = Endless()
    again.go()
    assert again.running
    again.close()
    again._thread.join(20)


def test_another_cell_leaves_a_job_at_work(running, alive):
    running("b", 2)
    Handshake()
    assert alive.running and not closed(alive)


def test_a_figure_that_was_closed_is_let_go(running):
    running("a", 1)
    figure = weakref.ref(Handshake().picture._figure)
    running("a", 2)
    Handshake()
    gc.collect()
    assert figure() is None


# Which cell it is


def shell(cell_id: str | None, *texts: str, count: int = 7) -> SimpleNamespace:
    metadata = {} if cell_id is None else {"cellId": cell_id}
    return SimpleNamespace(
        kernel=object(),
        get_parent=lambda: {"metadata": metadata},
        user_ns={"_ih": ["", *texts]},
        execution_count=count,
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (shell("4f2a", "x = 1"), "4f2a"),
        (shell(None, "x = 1", "lk.show()"), "lk.show()"),
        (shell("", "x = 1"), "x = 1"),
    ],
)
def test_a_cell_is_known_by_its_id_else_by_its_text(monkeypatch, given, name):
    monkeypatch.setattr(cells, "get_ipython", lambda: given)
    assert current_cell() == Cell(name, 7)


@pytest.mark.parametrize("given", [None, SimpleNamespace(execution_count=3)])
def test_without_a_kernel_there_is_no_cell(monkeypatch, given):
    monkeypatch.setattr(cells, "get_ipython", lambda: given)
    assert current_cell() is None


def test_a_shell_that_tells_no_parent_and_no_text_has_a_cell_all_the_same(monkeypatch):
    bare = shell(None)
    bare.get_parent, bare.user_ns = dict, {}
    monkeypatch.setattr(cells, "get_ipython", lambda: bare)
    assert current_cell() == Cell("", 7)


def test_what_is_closed_leaves_nothing_in_jupyters_table_of_widgets():
    Handshake().close()  # what all share is there from now on
    before = Widget.get_manager_state()["state"].keys()
    for _ in range(3):
        Handshake().close()
    assert Widget.get_manager_state()["state"].keys() == before
