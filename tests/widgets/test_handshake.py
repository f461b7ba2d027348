"""The number that a slider sends is the number in words and in the picture."""

import pytest

from lorakit.widgets import Handshake


@pytest.mark.parametrize("number", [0, 3, 10])
def test_the_kernel_answers_with_the_number_it_heard(number):
    handshake = Handshake()
    handshake.number.value = number
    bar, text = handshake.picture.axes.patches[-1], handshake.picture.axes.texts[-1]
    assert (bar.get_x(), bar.get_width()) == (0, number)
    assert text.get_text() == str(number)
    assert handshake.picture.text == f"you moved it to {number}"


def test_no_number_leaves_the_axis():
    handshake = Handshake()
    low, high = handshake.picture.axes.get_xlim()
    assert low <= handshake.number.min and handshake.number.max < high
