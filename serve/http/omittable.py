"""Fields that are present or absent, and never null, in forms and responses."""

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

FieldT = TypeVar("FieldT")


def _leave_default_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Omittable: TypeAlias = Annotated[FieldT | SkipJsonSchema[None], Field(json_schema_extra=_leave_default_out)]
"""A field that is absent when None; its schema does not mention null."""
