"""The `bursar` command's way in. Workers import this module again, so it costs nothing until it is called."""

from __future__ import annotations


def main() -> None:
    """Run the command line; exits with its code."""
    from app.commands.tree import cli  # noqa: PLC0415  (typer has no business in a worker)

    cli()


if __name__ == "__main__":
    main()
