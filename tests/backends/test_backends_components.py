"""The registry of components, with a kind of this file."""

import sys
from pathlib import Path

import pytest

from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.rules import Adam, Optimizer


class Shape:
    """Base of the components."""


class Circle(Shape):
    """A component that no package provides."""


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[type[Shape]]:
    """Return a registry with an installed component, `square`, and an entry point of another kind, `number`."""
    meta = tmp_path / "shapes-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[hxtrain.shapes]\nsquare = squares:Square\nnumber = squares:number\n")
    (tmp_path / "squares.py").write_text(
        f"from {__name__} import Shape\nclass Square(Shape):\n    pass\nnumber = 3\nclass Tall(Square):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "squares", raising=False)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Shape.__module__])
    return Registry("shapes", "shape", Shape)


def test_names_are_listed_without_an_import(shapes: Registry[type[Shape]]) -> None:
    assert shapes.names() == ["number", "square"]
    assert "squares" not in sys.modules


def test_a_component_is_loaded_by_its_name_its_class_or_its_path(shapes: Registry[type[Shape]]) -> None:
    square = shapes.load("square")
    assert square.__name__ == "Square"
    assert shapes.load("Square") is square
    assert shapes.canonical("Square") == "square"
    assert shapes.name_of(square) == "square"
    tall = shapes.resolve("squares:Tall")
    assert issubclass(tall, square)
    assert shapes.name_of(tall) == "squares:Tall"


def test_a_component_has_its_name_before_it_is_loaded_by_it() -> None:
    """The entry point of Adam names the package, and its class the module in it."""
    fresh: Registry[type[Optimizer]] = Registry("optimizers", "optimizer", Optimizer)
    assert fresh.name_of(Adam) == "adam"


def test_a_component_is_added_in_this_process(shapes: Registry[type[Shape]]) -> None:
    shapes.add("circle", Circle)
    assert shapes.load("circle") is shapes.load("Circle") is Circle
    assert shapes.name_of(Circle) == "circle"
    assert "circle" in shapes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sqare", "shape='sqare' is not registered; known: number, square. Did you mean square?"),
        ("number", "shape='number' is 3, expected a subclass of Shape"),
        ("squares:Tall", "shape='squares:Tall' is not registered"),
        (3, "shape=3 is not registered"),
    ],
)
def test_an_unsuitable_component_is_refused(shapes: Registry[type[Shape]], name: str, text: str) -> None:
    with pytest.raises(UnknownComponentError) as error:
        shapes.load(name)
    assert str(error.value).startswith(text)


def test_an_addition_must_have_a_new_name_and_the_right_kind(shapes: Registry[type[Shape]]) -> None:
    with pytest.raises(ValueError, match="shape=square is registered already"):
        shapes.add("square", Circle)
    with pytest.raises(ValueError, match="expected a subclass of Shape"):
        shapes.add("text", str)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no name of a component"):
        shapes.add("a b", Circle)


def test_a_path_that_cannot_be_imported_is_named(shapes: Registry[type[Shape]]) -> None:
    with pytest.raises(UnknownComponentError, match="shape='nowhere:Circle' cannot be imported"):
        shapes.resolve("nowhere:Circle")
