"""The public contract by name: `SCHEMAS["tick"].model_json_schema()`."""

from pydantic import BaseModel

from schemas.bar import BarModel
from schemas.control import AuditModel, ControlModel
from schemas.dead_letter import DeadLetterModel
from schemas.feedback import FeedbackModel
from schemas.rate import RateAdjustmentModel
from schemas.tick import Tick

SCHEMAS: dict[str, type[BaseModel]] = {
    "tick": Tick,
    "bar": BarModel,
    "feedback": FeedbackModel,
    "rate": RateAdjustmentModel,
    "dead-letter": DeadLetterModel,
    "control": ControlModel,
    "control-audit": AuditModel,
}
