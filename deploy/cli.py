"""The `wardround` command: one tree of commands, errors mapped to exit codes in one place."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import click
import typer

from common.errors import ConfigurationError, StoreError, WardroundError
from deploy.commands import (
    audit,
    campaign,
    demo,
    export_mlflow,
    gateway,
    local,
    pki,
    preflight,
    provision,
    registry,
    release,
    report,
    simulate,
    site_access,
    site_backup,
    site_budget,
    site_dicom,
    site_import,
    site_outbox,
    site_pause,
    site_personalise,
    site_release,
    site_views,
    site_withdraw,
    trigger,
    up,
    user,
)
from deploy.console import EXIT_INTERRUPTED, EXIT_USAGE, exit_code, report_error

app = typer.Typer(
    name="wardround",
    help="Federated learning across hospital sites: the model makes its rounds, the patients stay.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(*, wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"wardround {version('wardround')}\n")
        raise typer.Exit


@app.callback()
def _wardround(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda wanted: _version(wanted=wanted), is_eager=True,
            help="Print the version and end.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Federated learning across hospital sites: the model makes its rounds, the patients stay."""


site = typer.Typer(no_args_is_help=True, help="For hospital IT: one site's cases and privacy.")
coordinator = typer.Typer(no_args_is_help=True, help="For coordinators: campaigns and releases.")

app.command("demo")(demo.demo)
app.command("provision")(provision.provision)
app.add_typer(local.commands, name="local")
app.command("simulate")(simulate.simulate)
app.add_typer(site, name="site")
app.add_typer(coordinator, name="coordinator")
app.add_typer(audit.commands, name="audit")
site.command("up")(up.site_up)
site.command("import")(site_import.import_command)
site.command("backup")(site_backup.backup)
site.command("restore")(site_backup.restore)
site.command("budget")(site_budget.budget)
site.command("outbox")(site_outbox.outbox)
site.command("views")(site_views.views)
site.command("pause")(site_pause.pause)
site.command("resume")(site_pause.resume)
site.command("personalise")(site_personalise.personalise)
site.command("withdraw")(site_withdraw.withdraw)
site.add_typer(site_dicom.app, name="dicom")
site.add_typer(site_release.commands, name="release")
site.add_typer(site_access.users, name="user")
site.add_typer(site_access.keys, name="key")
app.add_typer(pki.commands, name="pki")
coordinator.command("up")(up.coordinator_up)
coordinator.command("gateway")(gateway.gateway)
campaigns = typer.Typer(no_args_is_help=True, help="Start, list and show campaigns.")
coordinator.add_typer(campaigns, name="campaign")
campaigns.command("create")(campaign.create)
campaigns.command("start")(campaign.start)
campaigns.command("watch")(campaign.watch)
campaigns.command("pause")(campaign.pause)
campaigns.command("resume")(campaign.resume)
campaigns.command("cancel")(campaign.cancel)
campaigns.command("preflight")(preflight.preflight)
campaigns.command("export-mlflow")(export_mlflow.export_mlflow)
campaigns.command("list")(registry.list_campaigns)
campaigns.command("show")(registry.show_campaign)
releases = typer.Typer(no_args_is_help=True, help="Decide on releases, list and show them.")
coordinator.add_typer(releases, name="release")
releases.command("approve")(release.approve)
releases.command("refuse")(release.refuse)
releases.command("rollout")(release.rollout)
releases.command("hold")(release.hold)
releases.command("rollback")(release.rollback)
releases.command("list")(registry.list_releases)
releases.command("show")(registry.show_release)
releases.command("report")(report.report)
coordinator.add_typer(user.commands, name="user")
coordinator.add_typer(trigger.commands, name="trigger")


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 failed; 2 the call or its input is wrong; 3 refused by privacy or plan
    checks; 4 a certificate ends soon or has ended; 130 interrupted.
    """
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except WardroundError as error:
        report_error(error, as_json=as_json)
        sys.exit(exit_code(error))
    except OSError as error:
        failed = StoreError(
            f"{error.filename or 'A file'} cannot be used ({error.strerror or error}).",
            action="Check the path, that the disk has room and that it is yours.",
        )
        report_error(failed, as_json=as_json)
        sys.exit(exit_code(failed))
    except click.ClickException as error:
        error.show()
        if as_json:
            wrong = ConfigurationError(error.format_message(), action="See --help.", code="usage")
            report_error(wrong, as_json=True)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("Interrupted.\n")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
