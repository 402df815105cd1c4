"""A small drawing board: SVG elements, linear axes with round ticks, a framed plot.

Colours come from the page's style sheet through classes, so pictures follow its light, dark and
print versions. Text is always escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an SVG element; ``class_`` is class, underscores become hyphens, None is left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _number(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inner)


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _label(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def figure(
    width: float,
    height: float,
    title: str,
    *children: object,
    class_: str = "",
    **attributes: object,
) -> Markup:
    """Return a picture that scales to its container; `title` is what a screen reader says.

    role: ``group`` for a picture with links in it; ``img`` if left out.
    """
    return element(
        "svg",
        element("title", title),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role=attributes.pop("role", "img"),
        class_=f"figure {class_}".strip(),
        style=f"max-width:{width:g}px",
        **attributes,
    )


def text(x: float, y: float, content: object, **attributes: object) -> Markup:
    """Return a line of text."""
    return element("text", content, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def path(points: Iterable[Sequence[float]], **attributes: object) -> Markup:
    """Return a polyline through `points`, shape (n, 2), in pixels."""
    steps = " ".join(
        f"{'L' if number else 'M'}{x:.1f},{y:.1f}" for number, (x, y) in enumerate(points)
    )
    return element("path", d=steps, **attributes)


@dataclass(frozen=True)
class Axis:
    """A linear map from values (low..high) to pixels (start..end)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 6, *, whole: bool = False) -> list[float]:
        """Return round values inside the axis, roughly `about` of them; `whole` ones for counts."""
        step = nice_step((self.high - self.low) / max(about, 1))
        if whole:
            step = max(1.0, 5.0 if step == 2.5 else step)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def padded(
    values: Iterable[float], margin: float = 0.06, least: float = 1e-3
) -> tuple[float, float]:
    """Return a range that holds all values with some room, and at least `least` wide."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = max((high - low) * margin, (least - (high - low)) / 2, 0.0)
    return low - room, high + room


@dataclass(frozen=True)
class Plot:
    """Two axes and their frame."""

    width: float
    height: float
    x: Axis
    y: Axis

    @classmethod
    def make(
        cls,
        size: tuple[float, float],
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        margins: tuple[float, float, float, float] = (16, 14, 44, 54),
    ) -> "Plot":
        """Return a plot; margins are top, right, bottom, left in pixels."""
        (width, height), (top, right, bottom, left) = size, margins
        return cls(
            width,
            height,
            Axis(*x_range, left, width - right),
            Axis(*y_range, height - bottom, top),
        )

    def frame(
        self,
        x_label: str,
        y_label: str,
        *,
        x_ticks: int = 6,
        y_ticks: int = 5,
        counts: bool = False,
    ) -> list[Markup]:
        """Return grid, ticks and axis titles; no x ticks if `x_ticks` is 0."""
        bottom, left, right = self.y.start, self.x.start, self.x.end
        parts: list[Markup] = []
        for value in self.y.ticks(y_ticks, whole=counts):
            y = self.y(value)
            parts.append(line(left, y, right, y, class_="grid"))
            parts.append(text(left - 7, y + 4, _label(value), class_="tick", text_anchor="end"))
        for value in self.x.ticks(x_ticks) if x_ticks else []:
            x = self.x(value)
            parts.append(line(x, bottom, x, bottom + 4, class_="axis"))
            parts.append(text(x, bottom + 17, _label(value), class_="tick", text_anchor="middle"))
        middle = (self.y.start + self.y.end) / 2
        centre = (left + right) / 2
        parts += [
            line(left, bottom, right, bottom, class_="axis"),
            text(centre, self.height - 6, x_label, class_="label", text_anchor="middle"),
            text(
                14,
                middle,
                y_label,
                class_="label",
                text_anchor="middle",
                transform=f"rotate(-90 14 {middle:g})",
            ),
        ]
        return parts

    def draw(
        self, title: str, parts: Iterable[object], class_: str = "", **attributes: object
    ) -> Markup:
        """Return the finished picture."""
        return figure(self.width, self.height, title, *parts, class_=class_, **attributes)
