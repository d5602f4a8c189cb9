"""What operators ask of workers, and what the workers answer.

Actions and results have the names of market-data-core's `ControlAction` and `ControlResult`; an answer is
its `AuditEnvelope`, with fields of our own beside.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from schemas.wire import Contract, Finite, Natural, decode

_Id = Annotated[str, Meta(min_length=1, max_length=256), Field(min_length=1, max_length=256)]
_Target = Literal["bars", "store"]


class Action(StrEnum):
    """What can be asked."""

    pause = "pause"
    resume = "resume"
    reload = "reload"
    """Read the settings again, and go on by those that need no restart."""


class Control(msgspec.Struct, gc=False, kw_only=True, frozen=True):
    """One action, for a role, or for a partition or a worker of it."""

    id: _Id
    action: Action
    role: _Target
    partition: Natural | None = None
    worker: _Id | None = None
    actor: _Id
    ts: float


class Result(msgspec.Struct, gc=False, kw_only=True, frozen=True):
    """What came of it."""

    status: Literal["ok", "error"]
    detail: str | None = None


class Audit(msgspec.Struct, gc=False, kw_only=True, frozen=True):
    """What one worker made of one action."""

    id: _Id
    action: Action
    actor: _Id
    role: str = "operator"
    target: _Target
    partition: Natural | None = None
    worker: _Id
    result: Result
    ts: float


class ControlModel(Contract):
    """What an operator asks of the workers of a role; the last word about a partition holds."""

    model_config = ConfigDict(title="Control")

    id: _Id = Field(description="Names the action; the answers carry it.")
    action: Annotated[Action, Field(strict=False)] = Field(description="pause, resume or reload.")
    role: _Target = Field(description="Whose work it is about.")
    partition: Natural | None = Field(None, description="The partition it is about; null: all.")
    worker: _Id | None = Field(None, description="The worker it is about, HOST:PID; null: all.")
    actor: _Id = Field(description="Who asks, USER@HOST.")
    ts: Finite = Field(description="When it was asked, seconds since the epoch.")


class ResultModel(Contract):
    """What came of an action."""

    model_config = ConfigDict(title="Result")

    status: Literal["ok", "error"] = Field(description="ok, or error: then nothing was changed.")
    detail: str | None = Field(None, description="What was done, or why not.")


class AuditModel(Contract):
    """What one worker made of one action."""

    model_config = ConfigDict(title="Audit")

    id: _Id = Field(description="That of the action.")
    action: Annotated[Action, Field(strict=False)] = Field(description="What was asked.")
    actor: _Id = Field(description="Who asked.")
    role: str = Field("operator", description="What the actor is.")
    target: _Target = Field(description="The role of the worker that it was about.")
    partition: Natural | None = Field(None, description="The partition that it was about; null: all.")
    worker: _Id = Field(description="Who answers, HOST:PID.")
    result: ResultModel = Field(description="What came of it.")
    ts: Finite = Field(description="When it was answered, seconds since the epoch.")


_encode = msgspec.json.Encoder().encode
_control = msgspec.json.Decoder(Control)
_audit = msgspec.json.Decoder(Audit)


def control_key(control: Control) -> bytes:
    """Of what the topic keeps the last: what the action is about. A reload takes no pause's place."""
    what = "reload" if control.action is Action.reload else "flow"
    partition = "*" if control.partition is None else str(control.partition)
    return "|".join((control.role, what, partition, control.worker or "*")).encode()


def encode_control(control: Control) -> bytes:
    """The value of a record on the control topic."""
    return _encode(control)


def decode_control(value: bytes | None) -> Control:
    """Raises BadRecord."""
    return decode(_control, value, "control action")


def encode_audit(audit: Audit) -> bytes:
    """The value of a record on the audit topic."""
    return _encode(audit)


def decode_audit(value: bytes | None) -> Audit:
    """Raises BadRecord."""
    return decode(_audit, value, "answer to a control action")
