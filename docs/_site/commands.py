"""The page of all commands, from the `pccd` program itself."""

import importlib
from collections.abc import Iterator
from typing import Any, get_args

import typer

from pccd_workflows.cli import NOUNS

INTRODUCTION = """\
# Commands

`pccd NOUN VERB`. This page is made from the program; `pccd NOUN --help` says the same.

Lists and verdicts take `--json`; what changes something takes `--dry-run` where it can be told
beforehand. `pccd --debug ...` shows the traceback of an error. [Completion](install.md#completion)
knows nouns, verbs and options. [What tables look like](#what-they-print).

| exit code | means |
|---|---|
| 0 | done |
| 1 | done, but something failed: a job, a check, the database, a file that cannot be written |
| 2 | wrong input (a mistyped option, an unknown name, a faulty file): nothing was done |
| 130 | stopped by Ctrl-C (SIGINT); jobs that ran are ready again, `pccd campaign resume` goes on |
| 143 | the same by SIGTERM, as queues send it |

"""


def page() -> str:
    """Return the page in Markdown."""
    parts = [INTRODUCTION, _overview()]
    for noun in NOUNS:
        parts.append(f"## pccd {noun}\n\n{NOUNS[noun]}\n")
        parts += [_described(name, command) for name, command in commands(noun)]
    return "\n".join(parts)


def commands(noun: str) -> Iterator[tuple[str, Any]]:
    """Yield every command of a noun with its full name."""
    module = importlib.import_module(f"pccd_workflows.cli.{noun}")
    root = typer.main.get_command(module.app)
    verbs = dict(getattr(root, "commands", {}))
    if not verbs:
        yield f"pccd {noun}", root
    for verb, command in verbs.items():
        yield f"pccd {noun} {verb}", command


def _overview() -> str:
    lines = ["| command | what it does |", "|---|---|"]
    for noun in NOUNS:
        lines += [
            f"| [`{name}`](#{_anchor(name)}) | {_cell(_summary(command))} |"
            for name, command in commands(noun)
        ]
    return "\n".join(lines) + "\n"


def _described(name: str, command: Any) -> str:
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    usage = " ".join([name, *(_usage(parameter) for parameter in shown)])
    lines = [f"### {name} {{ #{_anchor(name)} }}", ""]
    lines += [(command.help or "").strip(), "", f"```text\n{usage}\n```", ""]
    if shown:
        lines += ["| | meaning | default |", "|---|---|---|"]
        lines += [
            f"| {_names(p)} | {_cell(getattr(p, 'help', '') or '')} | {_default(p)} |"
            for p in shown
        ]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    """Return an anchor of its own: `pccd worker` is the heading of its noun, too."""
    words = name.split()
    return "-".join(words if len(words) > 2 else [*words, "command"])


def _summary(command: Any) -> str:
    return (command.help or "").strip().split("\n\n")[0].replace("\n", " ")


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = _argument(parameter)
        return name if parameter.required else f"[{name}]"
    longest = max(parameter.opts, key=len)
    value = "" if _is_flag(parameter) else f" {_kind(parameter)}"
    more = "..." if parameter.multiple else ""
    text = f"{longest}{value}{more}"
    return text if parameter.required else f"[{text}]"


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _kind(parameter: Any) -> str:
    """Return what a value is, as far as its type says: INT, PATH, ..."""
    described = getattr(parameter, "type_descriptor", None)
    annotation = getattr(described, "annotation", None)
    choices = get_args(annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    return {str: "TEXT", int: "INT", float: "NUMBER"}.get(
        annotation, getattr(annotation, "__name__", "TEXT").upper()
    )


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name or "").upper().strip("[]")


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    return ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])


def _default(parameter: Any) -> str:
    value: Any = parameter.default
    if parameter.required:
        return "needed"
    nothing = value is None or value in ("", False, [], ()) or callable(value)
    if nothing or "Sentinel" in repr(value):
        return ""
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
