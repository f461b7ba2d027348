"""A picture: drawn in place, the same size for ever, whole even if two threads draw."""

import base64
import io
import subprocess
import sys
import threading

import pytest
from PIL import Image, ImageChops

from lorakit.widgets.picture import Picture, packed, stacked


def line(picture: Picture, *heights: float) -> bytes:
    with picture.drawing() as ax:
        ax.plot(heights)
    return picture.value


@pytest.fixture
def picture() -> Picture:
    return Picture(300, 200, alt="a line")


def size(data: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.size


def test_a_picture_changes_there_and_back(picture):
    first = line(picture, 1, 2)
    second = line(picture, 2, 1)
    assert second != first
    assert line(picture, 1, 2) == first


def test_what_was_drawn_before_is_gone(picture):
    with picture.drawing() as ax:
        ax.figure.colorbar(ax.imshow([[1, 2]]))
    assert line(picture, 1, 2) == line(Picture(300, 200, alt="another"), 1, 2)


def test_the_size_is_fixed_in_the_file_and_on_the_page(picture):
    assert size(line(picture, 1, 2)) == size(line(picture, 1e-9, 1e9)) == (300, 200)
    assert (picture.image.layout.width, picture.image.layout.height) == ("300px", "200px")
    assert picture.image.layout.flex == "0 0 auto"
    assert picture.image.layout.object_fit == "contain"


def test_a_drawing_that_fails_keeps_the_old_picture_and_lets_go_of_the_lock(picture):
    before = line(picture, 1, 2)
    with pytest.raises(ZeroDivisionError), picture.drawing() as ax:
        ax.plot([1, 1 / 0])
    assert picture.value == before
    other = threading.Thread(target=line, args=(picture, 2, 1))
    other.start()
    other.join(timeout=10)
    assert picture.value != before


def test_two_threads_that_draw_at_once_each_show_a_whole_picture(picture):
    rising, falling = line(picture, 1, 2), line(picture, 2, 1)
    seen: list[bytes] = []
    picture.image.observe(lambda change: seen.append(bytes(change["new"])), names="value")
    errors: list[BaseException] = []

    def draw(*heights: float) -> None:
        try:
            for _ in range(8):
                line(picture, *heights)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=draw, args=heights) for heights in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(seen) == {rising, falling}


def test_a_picture_tells_in_words_what_is_to_be_seen(picture):
    assert picture.text == "a line"
    picture.text = "loss < 1 & falling"
    assert picture.text == "loss < 1 & falling"
    assert picture.children[-1].value == "loss &lt; 1 &amp; falling"


def test_a_picture_follows_the_dark_theme(picture):
    assert "figure" in picture.image._dom_classes
    assert any(".figure {filter: invert" in getattr(c, "value", "") for c in picture.children[:1])


# Without a kernel


def test_the_output_carries_the_picture_and_a_text_that_never_changes(picture):
    line(picture, 1, 2)
    first = picture._repr_mimebundle_()
    assert first.keys() == {
        "text/plain",
        "image/png",
        "application/vnd.jupyter.widget-view+json",
    }
    assert size(base64.b64decode(first["image/png"])) == (300, 200)
    line(picture, 2, 1)
    picture.text = "now falling"
    second = picture._repr_mimebundle_()
    assert first["text/plain"] == second["text/plain"] == "a line"
    assert first["image/png"] != second["image/png"]


def test_a_picture_never_drawn_carries_none(picture):
    assert "image/png" not in picture._repr_mimebundle_()


def test_pictures_are_stacked_pixel_by_pixel_in_nearly_their_colours():
    pngs = [line(Picture(*shape, alt=""), 1, 2) for shape in ((300, 200), (200, 150))]
    sheet = Image.open(io.BytesIO(stacked(pngs)))
    assert (sheet.mode, sheet.size) == ("P", (300, 350))
    sheet = sheet.convert("RGB")
    assert sheet.getpixel((299, 349)) == (255, 255, 255)
    for data, box in zip(pngs, [(0, 0, 300, 200), (0, 200, 200, 350)], strict=True):
        one = Image.open(io.BytesIO(data)).convert("RGB")
        off = ImageChops.difference(sheet.crop(box), one).getextrema()
        assert max(most for _, most in off) < 16, "of 255, in any channel"


def test_of_very_many_colours_fills_keep_theirs_and_the_rest_is_near():
    image = Image.radial_gradient("L").convert("RGB")
    image = Image.merge("RGB", [image.getchannel(0), *2 * [Image.linear_gradient("L")]])
    fills = [(17, 34, 51), (250, 3, 120)]
    for place, fill in enumerate(fills):
        image.paste(fill, (0, 100 * place, 256, 100 * place + 40))
    few = packed(image)
    assert (few.mode, len(image.getcolors(1 << 24)) > 10_000) == ("P", True)
    shown = few.convert("RGB")
    assert [shown.getpixel((128, 100 * place + 20)) for place in range(2)] == fills
    off = ImageChops.difference(shown, image).getextrema()
    assert max(most for _, most in off) < 48, "of 255, in any channel"


def test_drawing_never_loads_pyplot():
    code = (
        "import sys, lorakit.widgets as w\n"
        "p = w.Picture(300, 200, alt='')\n"
        "with p.drawing() as ax: ax.plot([1, 2])\n"
        "p._repr_mimebundle_()\n"
        "assert p.value and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_that_is_yet_to_be_drawn_shows_no_broken_image(picture):
    assert picture.image.layout.visibility == "hidden"
    line(picture, 1, 2)
    assert picture.image.layout.visibility == "visible"
