"""Entry point of the `kubeloop` command."""

import typer

app = typer.Typer(no_args_is_help=True, help="Kubeflow's loop from data to endpoint.")


def main() -> None:
    """Run the command line."""
    app()
