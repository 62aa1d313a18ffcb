"""What all pictures share: colours, frames, legends, and the way into a file.

Colours are Okabe and Ito's, told apart with any kind of colour vision. Matplotlib is an extra, and
imported when something is drawn.
"""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError, install_hint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#999999", "#000000"
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK, GREY)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def no_drawing(what: str) -> str:
    """The sentence for somebody who has no matplotlib."""
    return f"{what} needs matplotlib, which is not installed. {install_hint('figures')}."


def check_can_draw(what: str) -> None:
    """Refuse where matplotlib is not installed.

    Raises:
        RequestError: with the command that installs it.
    """
    if not can_draw():
        raise RequestError(no_drawing(what))


def panels(
    title: str, num_rows: int, num_columns: int, size: tuple[float, float]
) -> tuple["Figure", list[list[Any]]]:
    """A figure of `size` inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots(num_rows, num_columns, squeeze=False).tolist()


def tidy(axes: Any) -> None:
    """A light grid, and a frame on two sides."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: "Figure") -> None:
    """One legend for the series of all panels."""
    found = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {label: handle for one in reversed(found) for handle, label in zip(*one, strict=True)}
    labels = dict.fromkeys(label for _, labels in found for label in labels)
    figure.legend(
        [handles[label] for label in labels],
        list(labels),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize="small",
    )


def save_png(figure: "Figure", path: Path, dpi: int) -> None:
    """The picture, whole or not there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, dpi=dpi)
    write_atomically(path, picture.getvalue())
