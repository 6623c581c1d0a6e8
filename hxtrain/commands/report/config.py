"""Settings of a report: runs, rows and curves, and published values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends.files import path_part

LAYOUTS = ("series", "matrix", "gallery")


@dataclass
class PublishedValue:
    """A published value.

    Attributes:
        mean: Mean in the unit of the report's `y`.
        std: Standard deviation in the unit of the report's `y`; None if it is not published.
        x: Position on a curve, in the unit of the axis; None in a row.
        source: Publication.
    """

    mean: float = 0.0
    std: Optional[float] = None  # noqa: UP045
    x: Optional[float] = None  # noqa: UP045
    source: str = ""


@dataclass
class Series:
    """A row of a table, or a curve.

    Attributes:
        label: Name of the row or curve.
        where: Values that a run must have to belong to the series, by key; a list allows several values.
        published: Published values for comparison.
        folders: Folders of the runs; if empty, the folders of the report.
        group: Setting whose values are separate points of this curve; None for the report's `group`.
    """

    label: str = ""
    where: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # language: a key of YAML files
    published: List[PublishedValue] = field(default_factory=list)  # noqa: UP006
    folders: List[str] = field(default_factory=list)  # noqa: UP006
    group: Optional[str] = None  # noqa: UP045


@dataclass
class Column:
    """A further quantity of the table.

    Attributes:
        key: Key of a run.
        label: Name of the quantity, with its unit.
        scale: Factor of the value.
        digits: Number of decimal places.
    """

    key: str = ""
    label: str = ""
    scale: float = 1.0
    digits: int = 1


@dataclass
class Measure:
    """A quantity that some rows of a matrix, or entries of a gallery, report in place of the report's `y`.

    Attributes:
        where: Values that the runs of a row must have, by key.
        key: Key of the quantity.
        label: Name of the quantity, with its unit.
        scale: Factor of the quantity.
        digits: Number of decimal places.
    """

    where: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # language: a key of YAML files
    key: str = ""
    label: str = ""
    scale: float = 1.0
    digits: int = 2


@dataclass
class ReportConfig:
    """Settings of a report.

    A key is an entry of `result.json` and `evaluation.json` such as `test_accuracy`, a setting such as `chip.preset`,
    or, for an evaluation, a setting of the training such as `trained.network.dropout`.

    Attributes:
        name: Stem of the output files.
        out: Folder of the output files.
        layout: Kind of the page: `series` (each series is a row or a curve), `matrix` (each combination of the keys in
            `rows` that the runs have is a row, each series a column) or `gallery` (a section for each learning rule).
        folders: Folders with runs at any depth.
        where: Values that all runs must have, by key.
        series: Rows or curves.
        rows: Keys of a matrix, with the names of their columns.
        measures: Quantities of rows that report another one than `y`; the first that fits a row's runs counts.
        experiments: Experiments of a gallery with their rule, by name; runs are in folders of these names.
        plots: Plots of a gallery by file name; the first that a run has is shown.
        pages: Pages with the results of experiments that have no run in a gallery, by the end of the experiment's name.
        group: Setting whose values are separate points of a curve; None if a series is one row.
        x: Key whose mean is the position of a point on the axis; None for the value of `group`.
        xlabel: Label of the x axis.
        xscale: Factor of the x values.
        xlog: Whether the x axis is logarithmic.
        y: Key of the reported quantity.
        ylabel: Label of the reported quantity.
        yscale: Factor of the reported quantity.
        digits: Decimal places of the reported quantity.
        columns: Further quantities.
        title: Title of the report.
        text: Description below the title.
        commands: Commands of the runs and of this report, for the record.
    """

    name: str = "report"
    out: str = "results/reports"
    layout: str = "series"
    folders: List[str] = field(default_factory=list)  # noqa: UP006
    where: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # language: a key of YAML files
    series: List[Series] = field(default_factory=list)  # noqa: UP006
    rows: List[Column] = field(default_factory=list)  # noqa: UP006
    measures: List[Measure] = field(default_factory=list)  # noqa: UP006
    experiments: Dict[str, str] = field(default_factory=dict)  # noqa: UP006
    plots: List[str] = field(  # noqa: UP006
        default_factory=lambda: ["trains", "window", "fields", "reward", "plane", "learning_curves"]
    )
    pages: Dict[str, str] = field(default_factory=dict)  # noqa: UP006
    group: Optional[str] = None  # noqa: UP045
    x: Optional[str] = None  # noqa: UP045
    xlabel: str = ""
    xscale: float = 1.0
    xlog: bool = False
    y: str = "test_accuracy"
    ylabel: str = "test accuracy (%)"
    yscale: float = 100.0
    digits: int = 2
    columns: List[Column] = field(default_factory=list)  # noqa: UP006
    title: str = ""
    text: str = ""
    commands: List[str] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        path_part(self.name, "name")
        if not self.folders:
            raise ValueError("folders=[] names no runs; give the sweep folders that hold them")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout={self.layout!r} is not known; choose one of {', '.join(LAYOUTS)}")
        if self.layout == "matrix" and not self.rows:
            raise ValueError("rows=[] makes no matrix; name the keys whose values are the rows, such as rule.kind")
        if self.layout != "gallery" and not self.series:
            raise ValueError("series=[] has no rows; describe at least one, see docs/results")
        labels = [series.label for series in self.series]
        if len(set(labels)) != len(labels):
            raise ValueError(f"series: the labels {labels} must differ")
        if self.x is not None and self.group is None:
            raise ValueError(f"x={self.x} needs group, the setting whose values are told apart on the curve")
