"""What measures return: typed, immutable, and the JSON that `--json` prints."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Result(BaseModel):
    """A measured result.

    Attributes
    ----------
    merged
        Fields, themselves results or mappings, whose content lies flat among the others in JSON.
    optional
        Fields that JSON leaves out where they are None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    merged: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _flat(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        for name in self.merged:
            content |= content.pop(name) or {}
        left_out = {name for name in self.optional if content[name] is None}
        return {name: value for name, value in content.items() if name not in left_out}

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return self.model_dump(mode="json")
