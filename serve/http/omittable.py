"""A field that is there or not, and never null: how forms and answers leave out what does not apply."""

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

FieldT = TypeVar("FieldT")


def _leave_default_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Omittable: TypeAlias = Annotated[FieldT | SkipJsonSchema[None], Field(json_schema_extra=_leave_default_out)]
"""A field whose default is None, which its schema does not name."""
