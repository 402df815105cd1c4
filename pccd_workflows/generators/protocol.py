"""What a source of crystals is to the rest of the project."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pymatgen.core import Structure

from pccd_workflows.generators.request import Generation, SourceOptions


@dataclass(frozen=True)
class GeneratorInfo:
    """What a generator is and can do.

    Attributes
    ----------
    name
        Of the model, or of the file or folder.
    version
        sha256 of its weights, or of the files it reads: another version, other crystals.
    elements
        Symbols that it knows; None if it takes any.
    max_elements
        Most elements of one crystal; None if there is no limit.
    conditions
        Names of the conditions that it understands (see `Conditions`).
    """

    name: str
    version: str
    elements: tuple[str, ...] | None = None
    max_elements: int | None = None
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """What came of one sample.

    Attributes
    ----------
    index
        Number of the sample in its source.
    structure
        The crystal; None if none was made: `generation` says why.
    generation
        How it was made.
    """

    index: int
    structure: Structure | None
    generation: Generation

    @property
    def error_class(self) -> str | None:
        """Class of the reason why there is no crystal."""
        return self.generation.error_class

    @property
    def reason(self) -> str | None:
        """Why there is no crystal, in one sentence."""
        return self.generation.reason


class Generator(Protocol):
    """A source of crystals, made with its options (``kind(options)``).

    Crystal k depends on the options and k alone, not on the others that are asked for with it.
    Making one does no work; whatever is expensive waits for `generate`.
    """

    options_type: ClassVar[type[SourceOptions]]

    def __init__(self, options: Any) -> None:
        """Keep the options, an object of `options_type`."""

    def info(self) -> GeneratorInfo:
        """Return what it is and can do; InputError if a file is missing or damaged."""

    def check(self) -> None:
        """See that it can do what is asked, before anything is stored.

        Raises
        ------
        InputError, MissingDependencyError
            One sentence that names the option and what would do.
        """

    def generate(self, indices: Sequence[int]) -> Iterator[Generated]:
        """Yield samples by their number in this source, in this order, each as soon as it is made.

        What is no crystal is yielded with `error_class` and `reason`.
        """
