"""The parts of a Responses request, as far as they are decoded: every member optional, unknown ones skipped.

Source: https://platform.openai.com/docs/api-reference/responses/create, and for `namespace`, `additional_tools` and
`tool_search_output` the types of openai-python 2 (`openai.types.responses`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.raw import ABSENT, NULL

"""Stands for an absent member: msgspec does not decode a union of Raw and null."""


class Part(msgspec.Struct):
    """A part of a message's content, or of a tool's output."""

    type: str = "input_text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: dict[str, str] | None = None
    prompt_cache_breakpoint: Any = None


class Item(msgspec.Struct):
    """An item of `input`; a message of `role` and `content` alone has no type."""

    type: str | None = None
    role: str | None = None
    content: msgspec.Raw = ABSENT
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: msgspec.Raw = ABSENT
    input: str | None = None
    output: msgspec.Raw = ABSENT
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    tools: msgspec.Raw = ABSENT

    @property
    def kind(self) -> str:
        """The type; `message` where there is a role without a type, `item_reference` where there is neither."""
        return self.type or ("message" if self.role else "item_reference")


class ToolShape(msgspec.Struct):
    """A tool on offer; `tools` are a namespace's."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    format: msgspec.Raw = ABSENT
    tools: list[ToolShape] | None = None
    environment: Any = None

    @property
    def billed_as(self) -> str:
        """The type by which it is billed: a shell in the provider's container is billed as its code interpreter is."""
        place = self.environment if isinstance(self.environment, dict) else {}
        hosted = self.type == "shell" and str(place.get("type")).startswith("container_")
        return "code_interpreter" if hosted else self.type


class Format(msgspec.Struct):
    """`text.format`."""

    type: str = "text"
    name: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class TextOptions(msgspec.Struct):
    """`text`."""

    format: Format | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    """`reasoning`; `generate_summary` is the older name of `summary`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Choice(msgspec.Struct):
    """`tool_choice`, where it is an object."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[Choice] | None = None


Content = str | list[Part] | None

items: msgspec.json.Decoder[str | list[Item]] = msgspec.json.Decoder(str | list[Item])
content: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Content)
tools: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[ToolShape] | None)
text_options: msgspec.json.Decoder[Any] = msgspec.json.Decoder(TextOptions | None)
reasoning: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Reasoning | None)
choice: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str | Choice | None)
string: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str)
optional_string: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str | None)
optional_integer: msgspec.json.Decoder[Any] = msgspec.json.Decoder(int | None)
flag: msgspec.json.Decoder[Any] = msgspec.json.Decoder(bool | None)
number: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float | None)
raws = msgspec.json.Decoder(list[msgspec.Raw])


def given(raw: msgspec.Raw) -> bool:
    """Whether a member is there and not null."""
    return len(raw) > 0 and bytes(raw) != NULL
