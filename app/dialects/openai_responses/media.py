"""Parts of content: text, refusals, pictures and files, from Responses to canonical and back.

Source: https://platform.openai.com/docs/guides/images-vision and .../guides/pdf-files (data URLs in base64).
"""

from __future__ import annotations

import msgspec

from app.core.conversation import Media, Refusal, Text
from app.core.errors import BadRequest
from app.dialects.openai_responses.parse import content_of
from app.dialects.openai_responses.shapes import Part

_TEXTS = frozenset(("input_text", "output_text", "text", "summary_text", "reasoning_text"))
_DEFAULT_MEDIA = {"image": "image/png", "file": "application/pdf", "audio": "audio/wav"}
Content = Text | Media | Refusal


def parts_of(raw: msgspec.Raw, param: str) -> list[Content]:
    """A message's or a tool output's content. Raises BadRequest naming the part that cannot be read elsewhere."""
    content = content_of(raw, param)
    if isinstance(content, str):
        return [Text(content)]
    return [_marked(part, f"{param}[{place}]") for place, part in enumerate(content or [])]


def _marked(part: Part, param: str) -> Content:
    made = _part_of(part, param)
    if part.prompt_cache_breakpoint is not None and not isinstance(made, Refusal):
        made.cache = True
    return made


def _part_of(part: Part, param: str) -> Content:
    if part.type in _TEXTS:
        return Text(part.text or "")
    if part.type == "refusal":
        return Refusal(part.refusal or "")
    if part.type == "input_image" and part.image_url:
        return _located("image", part.image_url, detail=part.detail)
    if part.type == "input_file" and part.file_data:
        return _located("file", part.file_data, name=part.filename)
    if part.type == "input_file" and part.file_url:
        return Media("file", url=part.file_url, name=part.filename)
    if part.type == "input_audio" and part.input_audio and "data" in part.input_audio:
        return Media("audio", f"audio/{part.input_audio.get('format', 'wav')}", part.input_audio["data"])
    if part.file_id:
        raise BadRequest(f"The parameter {param}.file_id names a file that only OpenAI has.", param=f"{param}.file_id")
    raise BadRequest(f"The parameter {param} is of a type that cannot be read.", param=param)


def _located(kind: str, place: str, name: str | None = None, detail: str | None = None) -> Media:
    """Media at a URL, in a data URL, or (files) as bare base64."""
    made = Media("image" if kind == "image" else "file", name=name, detail=detail)
    head, comma, data = place.partition(",")
    if head.startswith("data:") and comma and head.endswith(";base64"):
        made.media_type, made.data = head[len("data:") : -len(";base64")].partition(";")[0], data
    elif kind == "file" and "://" not in place:
        made.media_type, made.data = _DEFAULT_MEDIA["file"], place
    else:
        made.url = place
    return made


def data_url(media: Media) -> str:
    """The media's own bytes as a data URL."""
    return f"data:{media.media_type or _DEFAULT_MEDIA[media.kind]};base64,{media.data or ''}"


def part_to(part: Text | Media) -> dict[str, object]:
    """One part of a user's message or of a tool's output. Raises BadRequest for sound."""
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if part.kind == "audio":
        raise BadRequest("The chosen model's provider takes no sound.", param="input_audio")
    if part.kind == "image":
        shown = part.url if part.data is None else data_url(part)
        return {"type": "input_image", "image_url": shown, "detail": part.detail or "auto"}
    if part.data is None:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name or "file", "file_data": data_url(part)}
