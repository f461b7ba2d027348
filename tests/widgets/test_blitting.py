"""Blitting: what stands still is drawn once, what moves is drawn over it, and no trace is left."""

import gc
import threading
import weakref

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lorakit.plots.style import frame, frame_key, moving
from lorakit.widgets import Picture
from lorakit.widgets.picture import DRAWING, FRAMES


@pytest.fixture
def picture() -> Picture:
    return Picture(300, 200, alt="a level")


def draw(ax, level: float, limit: float = 10) -> None:
    with frame(ax, limit) as bare:
        if bare:
            ax.set_xlim(0, 1)
            ax.set_ylim(0, limit)
            ax.set_title("x" * int(limit))
    ax.axhline(level)
    ax.text(0.5, level, f"{level:g}")


def show(picture: Picture, level: float, limit: float = 10) -> bytes:
    with picture.drawing(blit=True) as ax:
        draw(ax, level, limit)
    return picture.value


@pytest.fixture
def renderings(monkeypatch) -> list:
    """One entry for each time that a whole figure is rendered."""
    seen, real = [], FigureCanvasAgg.draw

    def counted(self):
        seen.append(self.figure)
        return real(self)

    monkeypatch.setattr(FigureCanvasAgg, "draw", counted)
    return seen


@pytest.mark.parametrize(
    "moves",
    [
        [(2, 10), (7, 10), (3, 10)],
        [(3, 10), (3, 10)],
        [(2, 10), (150, 200), (3, 10)],
        [(2, 25), (2, 10), (20, 25), (3, 10)],
        [(2, 10), (9, 25), (3, 10), (9, 25), (3, 10)],
        [(2, 10), (9, 25), (2, 10), (150, 200), (3, 10)],
    ],
)
def test_however_it_was_reached_a_picture_is_that_drawn_at_once(picture, moves):
    seen = [show(picture, *move) for move in moves]
    assert seen[-1] == show(Picture(300, 200, alt="another"), 3)
    assert seen == [show(Picture(300, 200, alt="another"), *move) for move in moves]


def test_within_one_frame_it_is_rendered_once(picture, renderings):
    seen = {show(picture, level) for level in (1, 2, 3, 4)}
    assert len(seen) == 4
    assert len(renderings) == 1


def test_each_frame_is_rendered_once_unless_many_others_were_between(picture, renderings):
    for limit in (10, 20, 20, 10):
        show(picture, 3, limit)
    assert len(renderings) == 2
    others = range(30, 30 + FRAMES - 1)  # 10 was the last, and is still kept beside these
    for limit in (*others, 10):
        show(picture, 3, limit)
    assert len(renderings) == 2 + len(others)
    show(picture, 3, 20)
    assert len(renderings) == 3 + len(others)


def test_what_moved_is_gone_from_the_picture_and_from_the_axes(picture):
    show(picture, 3)
    held = [weakref.ref(artist) for artist in moving(picture.axes)]
    assert len(held) == 2
    at_3 = picture.value
    assert show(picture, 7) != at_3
    gc.collect()
    assert [artist() for artist in held] == [None, None]
    assert [line.get_ydata()[0] for line in picture.axes.lines] == [7]
    assert [text.get_text() for text in picture.axes.texts] == ["7"]


def test_bars_that_moved_leave_no_container(picture):
    for width in (1, 2, 3):
        with picture.drawing(blit=True) as ax:
            with frame(ax):
                pass
            ax.barh([0], [width])
    assert [bars[0].get_width() for bars in picture.axes.containers] == [3]


def test_the_axes_are_kept_while_the_frame_is_and_hold_its_key(picture):
    show(picture, 3)
    axes = picture.axes
    show(picture, 4)
    assert picture.axes is axes
    assert frame_key(axes) == (10,)


def test_a_frame_says_whether_the_axes_want_dressing(picture):
    answers = []
    for limit in (10, 10, 20, 10):
        with picture.drawing(blit=True) as ax, frame(ax, limit) as bare:
            answers.append(bare)
    assert answers == [True, False, True, True]


def test_a_drawing_without_a_frame_is_refused_and_shows_nothing(picture):
    with (
        pytest.raises(ValueError, match="only a drawing that begins with frame"),
        picture.drawing(blit=True) as ax,
    ):
        ax.plot([1, 2])
    assert picture.value == b""
    with picture.drawing() as ax:  # without blit nothing is asked of it
        ax.plot([1, 2])
    assert picture.value


@pytest.mark.parametrize("first", [3, None], ids=["after another", "as the first"])
@pytest.mark.parametrize("where", ["dressing", "moving"])
def test_a_drawing_that_fails_keeps_the_old_picture_and_the_next_is_whole(picture, first, where):
    before = show(picture, first) if first else b""
    with pytest.raises(ZeroDivisionError), picture.drawing(blit=True) as ax:
        with frame(ax, 99 if where == "dressing" else 10) as bare:
            if bare and where == "dressing":
                ax.set_title(str(1 / 0))
        ax.axhline(7)
        ax.axhline(1 / 0)
    assert picture.value == before
    assert show(picture, 4) == show(Picture(300, 200, alt="another"), 4)


def test_after_a_drawing_that_fails_another_thread_can_draw(picture):
    with pytest.raises(ZeroDivisionError), picture.drawing(blit=True):
        _ = 1 / 0
    other = threading.Thread(target=show, args=(picture, 4))
    other.start()
    other.join(20)
    assert picture.value
    assert DRAWING.acquire(blocking=False)
    DRAWING.release()


def test_a_whole_drawing_between_two_blitted_ones_leaves_no_trace(picture):
    before = show(picture, 3)
    with picture.drawing() as ax:
        ax.figure.colorbar(ax.imshow([[1, 2]]))
    assert show(picture, 3) == before


def test_two_pictures_do_not_share_a_frame(picture):
    other = Picture(500, 200, alt="another")
    first, second = show(picture, 3), show(other, 4)
    assert show(picture, 4) != first
    assert show(picture, 3) == first
    assert show(other, 4) == second


def test_a_closed_picture_keeps_no_pixels_and_no_figure():
    picture = Picture(300, 200, alt="a level")
    show(picture, 3)
    figure = weakref.ref(picture._figure)
    picture.close()
    assert not picture._kept
    del picture
    gc.collect()
    assert figure() is None


def test_axes_that_a_failed_drawing_left_behind_are_let_go(picture):
    show(picture, 3)
    axes = weakref.ref(picture.axes)
    with pytest.raises(ZeroDivisionError), picture.drawing(blit=True):
        _ = 1 / 0
    show(picture, 3)
    gc.collect()
    assert axes() is None


def test_a_drawing_without_a_frame_is_refused_on_a_picture_that_had_one(picture):
    with picture.drawing(blit=True) as ax:
        with frame(ax) as bare:
            assert bare
        ax.plot([1, 2])
    before = picture.value
    with (
        pytest.raises(ValueError, match="only a drawing that begins with frame"),
        picture.drawing(blit=True) as ax,
    ):
        ax.plot([2, 1])
    assert picture.value == before
