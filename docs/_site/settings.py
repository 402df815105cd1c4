"""The table of settings, from the model that reads them."""

from pccd_workflows.settings import Settings

MARKER = "<!-- settings -->"
OWN_DEFAULTS = {
    "data_dir": "`~/.local/share/pccd`",
    "model_dir": "the project's own",
    "workers": "number of cores, at most 8",
}
"""Defaults that depend on the machine."""


def filled(text: str) -> str:
    """Return a page with the table in place of the marker."""
    lines = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = OWN_DEFAULTS.get(name)
        if default is None:
            default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `PCCD_{name.upper()}` | {field.description or ''} | {default} |")
    return text.replace(MARKER, "\n".join(lines))
