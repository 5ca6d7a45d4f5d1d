"""What the commands have in common: their options, and how they refuse what cannot be used."""

from __future__ import annotations

import time
from math import isnan
from typing import Any

import click

from isochrone.settings import Settings, SettingsError, load


class Refused(click.ClickException):
    """One line on stderr, exit status 2: what was given cannot be used."""

    exit_code = 2


class ConfigFile(click.ParamType[Settings]):
    """A path on the command line, a checked configuration in the command."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Settings:
        if isinstance(value, Settings):
            return value
        try:
            return load(value)
        except SettingsError as error:
            raise Refused(str(error)) from None


class NumberIn(click.FloatRange):
    """A range that "nan" is not in: it is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is no number.", param, ctx) if isnan(number) else number


class Moment(click.ParamType[float]):
    """An age or a date on the command line, epoch seconds in the command."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from isochrone.ledger.report import moment_of

        try:
            return value if isinstance(value, float) else moment_of(value, now=time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


config_option = click.option("--config", "settings", type=ConfigFile(), required=True, help="The configuration (TOML).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
