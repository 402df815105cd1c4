"""Crystals without a campaign: into a list, or into a folder that a kill leaves whole."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder, write_whole
from pccd_workflows.core.validation import explain
from pccd_workflows.generators.protocol import Generated
from pccd_workflows.generators.registry import generator_type, open_generator
from pccd_workflows.generators.request import SourceOptions

OPTIONS_FILE = "options.json"
SAMPLES_FILE = "samples.jsonl"
Progress = Callable[[int, int], None]
"""Told how many samples of how many are done."""


def sample(
    elements: str | Iterable[str] | None = None,
    samples: int = 16,
    source: str = "pccd",
    *,
    progress: Progress | None = None,
    **options: Any,
) -> list[Structure]:
    """Return new crystals; samples that are no crystal are left out.

    Parameters
    ----------
    elements
        Symbols, also as one text: Mg-Mn-O. None where the source is not asked for elements.
    samples
        How many are drawn.
    source
        As in a campaign file: pccd, substitution, files, an installed one, module:attribute.
    progress
        Told after each sample.
    options
        What else the source takes in a campaign file: seed, conditions, sampler, path, ...

    Raises
    ------
    InputError
        The source cannot do what is asked.
    """
    given: dict[str, Any] = {"source": source, "samples": samples, **options}
    if elements is not None:
        text = elements.replace(",", "-").split("-") if isinstance(elements, str) else elements
        given["elements"] = [symbol.strip() for symbol in text if symbol.strip()]
    asked = check_options(given)
    found = []
    for number, generated in enumerate(draw(asked), start=1):
        if generated.structure is not None:
            found.append(generated.structure)
        if progress is not None:
            progress(number, asked.samples)
    return found


def check_options(given: dict[str, Any]) -> SourceOptions:
    """Return checked options of a source, as a campaign file has them.

    Raises
    ------
    InputError
        One sentence with the option and what would do.
    """
    kind = generator_type(str(given.get("source", "pccd"))).options_type
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InputError(f"Options: {explain(error, kind)}") from None


def draw(asked: SourceOptions, indices: Iterable[int] | None = None) -> Iterator[Generated]:
    """Yield the samples of a source, after a check that it can make them; all unless told which."""
    generator = open_generator(asked)
    generator.check()
    yield from generator.generate(list(range(asked.samples) if indices is None else indices))


def draw_into(folder: Path, asked: SourceOptions) -> Iterator[dict[str, Any]]:
    """Yield a row for each sample of a source, written to a folder as soon as it is made.

    Each crystal is a CIF, each sample a line of samples.jsonl. Interrupted at any moment, the same
    call goes on: rows of samples that are there already come first.

    Raises
    ------
    InputError
        The folder holds samples of other options.
    """
    generator = open_generator(asked)
    generator.check()
    options = asked.model_dump(mode="json", exclude={"samples", "shard"})
    options["version"] = generator.info().version
    make_folder(folder)
    path = folder / SAMPLES_FILE
    if _stored_options(folder) not in (None, options):
        raise InputError(f"{folder} holds samples of other options: give another folder.")
    write_whole(folder / OPTIONS_FILE, json.dumps(options, indent=2) + "\n")
    rows = {row["index"]: row for row in _stored_rows(path)}
    done = [rows[index] for index in sorted(rows) if index < asked.samples]
    write_whole(path, "".join(json.dumps(rows[index]) + "\n" for index in sorted(rows)))
    yield from done
    missing = [index for index in range(asked.samples) if index not in rows]
    if not missing:
        return
    with path.open("a", encoding="utf-8") as stream:
        for generated in draw(asked, missing):
            row = describe(generated)
            if generated.structure is not None:
                formula = generated.structure.composition.reduced_formula
                cif = folder / f"{generated.index:06d}_{formula}.cif"
                write_whole(cif, generated.structure.to(fmt="cif"))
                row["file"] = str(cif)
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            yield row


def describe(generated: Generated) -> dict[str, Any]:
    """Return what one line says about a sample: formula and cell, or why there is no crystal."""
    structure = generated.structure
    if structure is None:
        return {"index": generated.index, "formula": None, "reason": generated.reason}
    aim = generated.generation.aim
    return {
        "index": generated.index,
        "formula": structure.composition.formula,
        "a_b_c": [round(x, 3) for x in structure.lattice.abc],
        "angles": [round(x, 1) for x in structure.lattice.angles],
        "volume_per_atom": round(structure.volume / len(structure), 2),
        "file": None,
        **({"estimates": aim.estimates} if aim is not None and aim.estimates else {}),
    }


def _stored_options(folder: Path) -> Any:
    try:
        return json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / OPTIONS_FILE} cannot be read: {error}.") from None


def _stored_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of samples; a last line that a kill cut off is none."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
