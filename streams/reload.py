"""Settings that are read again while a worker runs: those that need no restart, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from schemas.errors import ConfigError
from streams import logs
from streams.roles import BarsRole, StoreRole
from streams.settings import Settings

_THRESHOLDS = frozenset({"soft", "hard", "hysteresis"})

#: What each role can take while it runs. Whatever else has changed is refused.
RELOADABLE: Mapping[str, frozenset[str]] = {
    "bars": _THRESHOLDS | {"policy", "scale_ok", "scale_soft", "scale_hard", "log_level"},
    "store": _THRESHOLDS | {"heartbeat", "write_linger", "log_level"},
}

log = structlog.get_logger(__name__)


class Reload:
    """Reads the settings as they were read at the start: from the same file and flags, and the environment then."""

    def __init__(
        self,
        settings: Settings,
        roles: Mapping[str, BarsRole | StoreRole],
        read: Callable[[], Settings] | None,
    ) -> None:
        self._now = dict.fromkeys(roles, settings)
        self._roles = roles
        self._read = read

    def __call__(self, role: str) -> str:
        """Apply what has changed for a role, and say what that is. Raises `ConfigError`; then all is as it was."""
        if self._read is None:
            raise ConfigError(
                "this worker's settings were given to it by a program: there is no file to read"
            )
        old, new = self._now[role], self._read()
        changed = {name for name in Settings.model_fields if getattr(new, name) != getattr(old, name)}
        if fixed := changed - frozenset().union(*RELOADABLE.values()):
            raise ConfigError(
                f"{', '.join(sorted(fixed))} cannot change while it runs, so nothing was changed",
                hint="restart the worker",
            )
        mine = sorted(changed & RELOADABLE[role])
        taken = old.model_copy(update={name: getattr(new, name) for name in mine})
        self._roles[role].apply(taken)
        if "log_level" in mine:
            logs.configure(taken.log_level)
        self._now[role] = taken
        told = [f"{name} = {getattr(taken, name)}" for name in mine]
        log.info("settings.reloaded", role=role, changed=told)
        return ", ".join(told) if told else "nothing has changed"
