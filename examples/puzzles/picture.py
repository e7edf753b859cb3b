"""A picture of which thread works where."""

import matplotlib.pyplot as plt

from minidl import plot


def draw_threads(rows: int, columns: int, size: int = 4) -> None:
    """Draw blocks of size x size threads over an array; grey ones are outside of it."""
    down, across = (-(-n // size) * size for n in (rows, columns))
    _, axes = plt.subplots(figsize=(0.6 * across, 0.4 * down + 0.8), layout="constrained")
    for i in range(down):
        for j in range(across):
            inside = i < rows and j < columns
            style = dict(ha="center", va="center", color=plot.BLUE if inside else "silver")
            axes.text(j, i, f"({j % size}, {i % size})", **style)
    for x in range(0, across + 1, size):
        axes.axvline(x - 0.5, color="black")
    for y in range(0, down + 1, size):
        axes.axhline(y - 0.5, color="black")
    axes.set(xlim=(-0.5, across - 0.5), xticks=range(columns), xlabel="j, a column")
    axes.set(ylim=(down - 0.5, -0.5), yticks=range(rows), ylabel="i, a row")
    axes.set_title(f"An array of {rows} x {columns}, and the threads (x, y) of each block")
