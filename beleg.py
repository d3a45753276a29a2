"""The `beleg` command: mounts each package's cli.py lazily, and knows nothing else."""

from __future__ import annotations

import importlib
import logging
import sys

import click

__all__ = ["main"]

# Short helps stand here so that `beleg --help` imports no package.
_COMMANDS = {
    "index": ("retriever.cli_index", "Read files and folders and make them searchable."),
    "documents": ("serving.cli_documents", "List what is indexed, look into it, add files and remove documents."),
    "rebuild": ("retriever.cli_index", "Build a new index beside the live one, and swap them."),
    "rollback": ("reader.cli_rollback", "Bring back the reader or the index before the last promotion or rebuild."),
    "search": ("retriever.cli", "Find passages; no language model is asked."),
    "settings": ("retriever.cli", "Show all settings and where each one comes from."),
    "fetch": ("retriever.cli", "Download the models that the settings name by hub id."),
    "ask": ("reader.cli", "Answer a question, with quotes that prove the answer."),
    "doctor": ("reader.cli", "Check models, store and index, and say how to mend what is wrong."),
    "serve": ("serving.cli", "Answer questions over HTTP, and carry out jobs."),
    "jobs": ("serving.cli", "Leave long work to a running server: start it, watch it, cancel it."),
    "feedback": ("reader.cli_feedback", "Keep what people say of answers, and show it."),
    "data": ("finetune.cli_data", "Check, clean, split and balance questions with known answers."),
    "raft": ("finetune.cli_raft", "Make, check and review what the reader learns from."),
    "train": ("finetune.cli_train", "Retrain the retriever or the reranker by a recipe."),
    "export": ("finetune.cli_export", "Turn a tuned reader into GGUF files that are proven to be it."),
    "evaluate": ("finetune.cli", "Measure search and answers on questions with known answers."),
    "calibrate": ("finetune.cli", "Learn from such questions when to abstain."),
    "candidates": ("finetune.cli_candidates", "Show what was trained, and what of it is live."),
    "promote": ("finetune.cli_promote", "Make a retrained model the served one, if it is better."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="beleg")
def beleg() -> None:
    """Answers from your own documents, with receipts.

    \b
    beleg index handbook/                 read a folder
    beleg ask "Who approves travel?"      get an answer and the quotes that prove it
    beleg serve                           the same over HTTP

    Settings come from beleg.toml and BELEG_* variables: see `beleg settings`.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but something was left out."""
    from retriever.errors import BelegError, SettingsError

    # It tells, whenever a library looks whether it is there, of a faster kernel that could be downloaded.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        code = beleg.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was finished is kept; run the command again to go on.", err=True)
        code = 130
    except BelegError as error:
        click.secho(f"Error: {error.message}", fg="red", err=True)
        if error.way_out:
            click.echo(error.way_out, err=True)
        code = 2 if isinstance(error, SettingsError) else 1
    sys.exit(code)


if __name__ == "__main__":
    main()
