"""`pccd completion`: what a shell needs to complete the commands."""

from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Which shell")],
) -> None:
    """Print the script that lets a shell complete nouns, verbs and options of pccd.

    bash: `pccd completion bash > ~/.pccd-complete.bash`, and in ~/.bashrc
    `source ~/.pccd-complete.bash`; zsh in the same way; fish:
    `pccd completion fish > ~/.config/fish/completions/pccd.fish`.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from pccd_workflows.cli import COMPLETE

    typer.echo(get_completion_script(prog_name="pccd", complete_var=COMPLETE, shell=shell))
