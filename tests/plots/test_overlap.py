"""The map of overlaps: row i, column j, one scale from 0 to 1, numbers where there is room."""

import pytest
import torch
from drawings import texts

from lorakit.plots import draw_overlap


def draw(ax, rows: int, columns: int) -> torch.Tensor:
    phi = torch.arange(rows * columns).reshape(rows, columns) / (2 * rows * columns)
    draw_overlap(ax, phi.double(), title="q_proj", first="rank 4", second="rank 8")
    return phi


def test_the_map_holds_phi_by_rows_and_columns_on_a_scale_from_0_to_1(ax):
    phi = draw(ax, 3, 5)
    (image,) = ax.images
    assert torch.equal(torch.tensor(image.get_array().tolist()), phi)
    assert image.get_clim() == (0, 1)
    assert image.get_extent()[2] > image.get_extent()[3]  # i = 1 is on top


def test_what_is_compared_is_named(ax):
    draw(ax, 3, 5)
    assert (ax.get_title(), ax.get_ylabel(), ax.get_xlabel()) == (
        "q_proj",
        "first i of rank 4",
        "first j of rank 8",
    )
    assert "overlap" in texts(ax)


def test_numbers_are_in_their_cells_where_there_is_room(ax):
    phi = draw(ax, 3, 5)
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(cells) == 15
    assert cells[4, 2] == f"{phi[2, 4]:.2f}" == "0.47"
    assert cells[0, 1] == f"{phi[1, 0]:.2f}"


def test_where_there_is_no_room_there_are_none(ax):
    draw(ax, 3, 7)
    assert len(ax.texts) == 0


@pytest.mark.parametrize(
    ("count", "labels"),
    [
        (1, ["1"]),
        (4, ["1", "2", "3", "4"]),
        (8, [str(n) for n in range(1, 9)]),
        (12, ["1", "2", "4", "6", "8", "10", "12"]),
        (64, ["1", "8", "16", "24", "32", "40", "48", "56", "64"]),
    ],
)
def test_directions_are_counted_from_1_with_room_for_each_number(ax, count, labels):
    draw(ax, 2, count)
    assert [t.get_text() for t in ax.get_xticklabels()] == labels
    assert [int(place) + 1 for place in ax.get_xticks()] == [int(label) for label in labels]
