"""Settings of a report: which runs, in which rows and curves, beside which published values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends.files import path_part


@dataclass
class Published:
    """A published value.

    Attributes:
        mean, std: in the unit of the report's `y`; std None where none is given.
        x: where it belongs on a curve, in the unit shown.
        source: whence.
    """

    mean: float = 0.0
    std: Optional[float] = None  # noqa: UP045
    x: Optional[float] = None  # noqa: UP045
    source: str = ""


@dataclass
class Series:
    """A row of a table, or a curve.

    Attributes:
        label: what it is.
        where: what a run must have to belong to it, by key; a list allows several values.
        published: to compare with.
        folders: its runs are below one of these; empty: below any of the report's.
        group: setting whose values are told apart on this curve, if not the report's.
    """

    label: str = ""
    where: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    published: List[Published] = field(default_factory=list)  # noqa: UP006
    folders: List[str] = field(default_factory=list)  # noqa: UP006
    group: Optional[str] = None  # noqa: UP045


@dataclass
class Column:
    """A further quantity that the table shows.

    Attributes:
        key: of a run. label: what it is, with its unit. scale: factor on the value. digits: after the point.
    """

    key: str = ""
    label: str = ""
    scale: float = 1.0
    digits: int = 1


@dataclass
class ReportConfig:
    """Settings of a report. A key is `test_accuracy` or any other of `result.json` and `evaluation.json`, a setting
    such as `chip.preset`, or, of an evaluation, a setting of the training such as `trained.network.dropout`.

    Attributes:
        name: of the files written.
        out: folder of the files written.
        folders: where the runs are; everything below is looked through.
        where: what all runs must have.
        series: rows or curves.
        group: setting whose values are told apart on a curve; None: a series is one row.
        x: key whose mean is a point's place on the axis; None: the value of `group` itself.
        xlabel, xscale, xlog: of that axis.
        y, ylabel, yscale, digits: quantity shown.
        columns: further quantities.
        title, text: what it is.
        commands: how the runs were made and this report, for the record.
    """

    name: str = "report"
    out: str = "results/reports"
    folders: List[str] = field(default_factory=list)  # noqa: UP006
    where: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    series: List[Series] = field(default_factory=list)  # noqa: UP006
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
        if not self.series:
            raise ValueError("series=[] has no rows; describe at least one, see docs/results")
        labels = [series.label for series in self.series]
        if len(set(labels)) != len(labels):
            raise ValueError(f"series: the labels {labels} must differ")
        if self.x is not None and self.group is None:
            raise ValueError(f"x={self.x} needs group, the setting whose values are told apart on the curve")
