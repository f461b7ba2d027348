"""An explorable: its errors are seen where they happen, its pictures also without a kernel."""

import base64
import gc
import io
import threading
import weakref

import ipywidgets
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lorakit.widgets import Explorable, Picture, shown


class Inverse(Explorable):
    """Draws 1 / number: zero is the mistake to make."""

    def __init__(self):
        self.number = ipywidgets.IntSlider(2, min=-9, max=9)
        self.twin = ipywidgets.IntSlider(2, min=-9, max=9)
        self.picture = Picture(200, 100, alt="a level")
        super().__init__([self.number, self.picture], alt="one divided by a number")
        self.number.observe(self.refresh, names="value")
        self.twin.observe(self.follow, names="value")

    @shown
    def refresh(self, change=None) -> float:
        """Draw again."""
        level = 1 / self.number.value
        with self.picture.drawing() as ax:
            ax.axhline(level)
        return level

    @shown
    def follow(self, change=None) -> None:
        self.number.value = self.twin.value


@pytest.fixture
def explorable(monkeypatch) -> Inverse:
    monkeypatch.delenv("LORAKIT_TEST", raising=False)
    return Inverse()


def test_an_error_in_a_callback_is_shown_and_the_next_success_clears_it(explorable):
    explorable.number.value = 0
    assert "ZeroDivisionError: division by zero" in explorable.error.value
    explorable.number.value = 4
    assert explorable.error.value == ""


def test_an_error_in_a_callback_is_raised_as_well_in_test_mode(explorable, monkeypatch):
    monkeypatch.setenv("LORAKIT_TEST", "1")
    with pytest.raises(ZeroDivisionError):
        explorable.number.value = 0
    assert "division by zero" in explorable.error.value


def test_a_shown_callback_stays_what_it_was(explorable):
    assert explorable.refresh() == 0.5
    assert (explorable.refresh.__name__, explorable.refresh.__doc__) == ("refresh", "Draw again.")


def test_an_error_in_a_callback_set_off_by_another_is_not_cleared_by_it(explorable):
    explorable.twin.value = 0
    assert "division by zero" in explorable.error.value
    explorable.twin.value = 5
    assert explorable.error.value == ""


def test_an_error_in_a_thread_is_shown_while_another_callback_runs(explorable):
    thread = threading.Thread(target=explorable.refresh)

    class Slow(Explorable):
        @shown
        def start(self):
            thread.start()
            thread.join()

    with explorable.number.hold_trait_notifications():
        explorable.number.value = 0
        Slow([], alt="").start()
        assert "division by zero" in explorable.error.value
        explorable.number.value = 1


def test_an_error_is_shown_as_text_not_as_html(explorable):
    explorable.show_error(ValueError("rank <b>0</b>"))
    assert "ValueError: rank &lt;b&gt;0&lt;/b&gt;" in explorable.error.value
    assert "<b>0" not in explorable.error.value


def test_a_shown_error_keeps_nothing_alive(explorable):
    class Tensor:
        pass

    def fail() -> weakref.ref:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise MemoryError("out of memory")

    class Fails(Explorable):
        @shown
        def start(self):
            fail()

    held: list[weakref.ref] = []
    box = Fails([], alt="")
    box.start()
    gc.collect()
    assert "out of memory" in box.error.value
    assert held[0]() is None


def test_errors_stand_between_the_controls_and_the_first_picture(explorable):
    assert explorable.children == (explorable.number, explorable.error, explorable.picture)
    assert Explorable([explorable.number], alt="").children[0] is explorable.number


def test_pictures_are_found_in_boxes_within_the_box():
    first, second, third = (Picture(100, 50, alt=str(i)) for i in range(3))
    box = ipywidgets.HBox([first, ipywidgets.VBox([ipywidgets.IntSlider(), second])])
    assert Explorable([box, third], alt="").pictures == [first, second, third]


def test_the_output_of_a_composed_explorable_is_one_picture_and_a_text_that_never_changes():
    pictures = [Picture(100, 50, alt="a"), Picture(120, 60, alt="b"), Picture(300, 300, alt="c")]
    explorable = Explorable(pictures, alt="three pictures")
    for picture in pictures[:2]:
        with picture.drawing() as ax:
            ax.axhline(0.5)
    bundle = explorable._repr_mimebundle_()
    assert bundle["text/plain"] == "three pictures"
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).size == (120, 110)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorable.model_id


def test_an_explorable_without_pictures_has_its_text_alone():
    bundle = Explorable([], alt="nothing to see")._repr_mimebundle_()
    assert bundle["text/plain"] == "nothing to see"
    assert "image/png" not in bundle


@pytest.mark.parametrize("make", [Inverse, lambda: Picture(9, 9, alt="a")], ids=["box", "picture"])
def test_what_a_cell_shows_is_that_output_and_none_of_ipywidgets_own(make):
    what = make()
    data, _ = DisplayFormatter().format(what)
    assert data == what._repr_mimebundle_()
