"""Views: data to be shown, one kind a file; drawn the same on every face."""

from .bars import Bars
from .graph import Graph
from .grid import Grid
from .lines import Lines
from .overlay import Overlay
from .picture import Picture
from .surface import Surface
from .table import Table
from .view import View, number

__all__ = ["Bars", "Graph", "Grid", "Lines", "Overlay", "Picture", "Surface", "Table", "View", "number"]
