"""When a phone may measure, as a configuration says it: device_farm.measurement.admission.AdmissionRules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from device_farm.measurement.admission import AdmissionRules
from npas_ray.config.fields import misplaced, number, refused, whole, yes_or_no
from npas_ray.config.section import Section

Off = Literal["off"]


def _or(word: str, check: BeforeValidator, phrase: str) -> BeforeValidator:
    """What `check` takes, or the word."""

    def either(value: Any) -> Any:
        if value == word and isinstance(value, str):
            return value
        try:
            return check.func(value)  # type: ignore[call-arg]
        except Exception:
            raise refused(f"{word}, or {phrase}") from None

    return BeforeValidator(either)


def _limit(phrase: str, holds: Callable[[float], bool]) -> BeforeValidator:
    return _or("off", number(phrase, holds), f"a number {phrase}")


Celsius = Annotated[float | Off, _limit("in 0..120", lambda c: 0 <= c <= 120)]
Seconds = Annotated[float, number("> 0 and at most 86400", lambda s: 0 < s <= 86_400)]
Wanted = Annotated[bool | Literal["either"], _or("either", yes_or_no(), "true or false")]
_DEFAULT = AdmissionRules()


class AdmissionConfig(Section):
    """Every rule has the default that docs/measurement.md explains; a limit that is `off` is not looked at."""

    max_thermal_status: Annotated[int | Off, _or("off", whole(0, 6), "a whole number in 0..6")] = 0
    max_temperature_c: Celsius = 60.0
    max_battery_temperature_c: Celsius = 40.0
    min_battery_level: Annotated[float | Off, _limit("in 0..1", lambda level: 0 <= level <= 1)] = 0.25
    charging: Wanted = "either"
    screen_on: Wanted = "either"
    max_load_1min: Annotated[float | Off, _limit("> 0", lambda load: load > 0)] = "off"
    need_quiet: Annotated[bool, yes_or_no()] = _DEFAULT.need_quiet
    max_clock_change: Annotated[float, number("> 0 and at most 1", lambda r: 0 < r <= 1)] = _DEFAULT.max_clock_change
    ambient_c: Annotated[float, number("in -20..60", lambda c: -20 <= c <= 60)] = _DEFAULT.ambient_c
    cool_s: Seconds = _DEFAULT.cool_s
    max_cool_s: Seconds = _DEFAULT.max_cool_s

    @model_validator(mode="after")
    def _can_be_kept(self) -> AdmissionConfig:
        for name in ("max_temperature_c", "max_battery_temperature_c"):
            limit = getattr(self, name)
            if limit != "off" and limit <= self.ambient_c:
                raise misplaced(
                    (name,), f"more than ambient_c, which is {self.ambient_c:g}: no device cools below", limit
                )
        return self

    def rules(self) -> AdmissionRules:
        said: dict[str, Any] = self.model_dump()
        limits: dict[str, Any] = {name: None if value in ("off", "either") else value for name, value in said.items()}
        return AdmissionRules(**limits)

    @classmethod
    def of(cls, rules: AdmissionRules | None) -> AdmissionConfig:
        """The rules as a configuration says them; without any, the defaults."""
        if rules is None:
            return cls()
        said = {name: getattr(rules, name) for name in cls.model_fields}
        words = {name: "either" if name in ("charging", "screen_on") else "off" for name in said}
        return cls.model_validate({name: words[name] if value is None else value for name, value in said.items()})
