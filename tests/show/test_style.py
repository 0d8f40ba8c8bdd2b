"""What the chapters draw with: image grids, bands, players, numbers for the prose."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from gtnlib.show import notebook, style


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_mosaic_holds_every_image_in_its_place_and_nothing_between():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 3, 4)
    grid = style.mosaic(images, columns=3, gap=2)
    assert grid.shape == (2 * 3 + 2, 3 * 4 + 2 * 2)
    for i in range(5):
        top, left = (i // 3) * 5, (i % 3) * 6
        assert (grid[top : top + 3, left : left + 4] == i).all()
    assert np.isnan(grid).sum() == grid.size - 5 * 12


def test_mosaic_of_colour_images_keeps_the_channels():
    assert style.mosaic(torch.rand(4, 3, 5, 5), columns=2, gap=1).shape == (11, 11, 3)


def test_show_images_labels_rows_and_columns():
    images = torch.rand(6, 1, 8, 8, requires_grad=True)
    ax = style.show_images(images, columns=3, row_labels="ab", column_labels="xyz")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y", "z"]


@pytest.mark.parametrize("seeds", [1, 4])
def test_band_is_mean_and_standard_deviation_in_percent(seeds):
    curves = torch.rand(seeds, 3, generator=torch.Generator().manual_seed(0))
    _, ax = plt.subplots()
    style.plot_band(ax, (0, 5, 10), curves, "name", style.BLUE)
    assert ax.lines[0].get_ydata() == pytest.approx(100 * curves.mean(0).numpy())
    spread = 100 * curves.std(0).numpy() if seeds > 1 else np.zeros(3)
    vertices = ax.collections[0].get_paths()[0].vertices
    assert vertices[:, 1].max() == pytest.approx((100 * curves.mean(0).numpy() + spread).max(), 1e-4)


def test_player_needs_no_network_and_can_be_read_aloud():
    fig, ax = plt.subplots(figsize=(1, 1))
    html = notebook.player(fig, lambda i: ax.set_title(str(i)), frames=3, alt="three numbers").data
    assert "https://" not in html
    assert 'alt="three numbers"' in html
    assert 'aria-label="frame"' in html
    assert html.count("data:image/png") == 3
    assert not plt.fignum_exists(fig.number)


def test_scientific_writes_one_digit_and_a_power_of_ten():
    assert [notebook.scientific(v) for v in (3.14e-7, 9.6e-4, 42.0, 0.0)] == [
        "3 · 10⁻⁷",
        "1 · 10⁻³",
        "4 · 10¹",
        "0",
    ]


def test_glue_does_nothing_where_no_book_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    assert notebook.glue("accuracy", "97 %") is None


def test_every_method_has_a_colour_of_its_own_told_apart_without_colour_vision():
    assert {"unrolled", "implicit", "matching", "real images"} <= set(style.COLOURS)
    grey = sorted(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)) for color in style.COLOURS.values())
    assert min(np.diff(grey)) > 0.02


@pytest.mark.parametrize("name, method", [
    ("gtn-unrolled-100-adam", "unrolled"), ("pixels-matching-10", "matching"), ("real-128", "real images"),
    ("herding", "real images"), ("parameters", None),
])  # fmt: skip
def test_names_tell_the_method(name, method):
    assert style.method_of(name) == method


def test_shades_end_at_the_colour_itself_and_start_lighter():
    first, *_, last = style.shades(style.BLUE, 4)
    assert last == pytest.approx(to_rgb(style.BLUE)) and min(np.subtract(first, last)) > 0
    assert style.shades(style.BLUE, 1) == [pytest.approx(to_rgb(style.BLUE))]


def test_a_matrix_writes_every_number_on_its_square():
    _, ax = plt.subplots()
    style.matrix(ax, np.array([[0.1, -0.001], [0.5, 0.9]]), "ab", "xy", 0, 1, "{:.2f}")
    assert [text.get_text() for text in ax.texts] == ["0.10", "0.00", "0.50", "0.90"]
    assert [text.get_color() for text in ax.texts] == ["black", "black", "black", "white"]
