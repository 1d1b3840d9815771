"""The one JSON object a run ends with. Pure: values in, a dict out; `main` prints it.

Every word costs the reader's budget, so what is not known or only repeats the prompt is left out.
"""

from __future__ import annotations

from typing import Any, Optional

from .errors import Image2Error
from .text import changed, shown

MAX_BYTES = 16_000  # of one answer, apart from the lists of paths of batches and galleries
MAX_TEXT = 600  # characters of one of the user's own texts
FEW = 10
Answer = dict[str, Any]


def build(status: str, *, error: Optional[Image2Error] = None, task_id: Optional[str] = None, charged: str = "no",
          images: Optional[list[dict[str, Any]]] = None, next_command: Optional[str] = None, **more: Any) -> Answer:
    """An answer: the members that every one has, then those of `more` that are not None."""
    answer: Answer = {
        "ok": error is None, "status": status, "task_id": task_id, "charged": charged, "images": images or [],
        "error": error.as_json() if error else None, "next": next_command}
    answer.update((name, value) for name, value in more.items() if value is not None)
    return answer


def of_error(error: Image2Error, **more: Any) -> Answer:
    """The answer where there is no order to speak of."""
    return build(error.code, error=error, charged=error.charged, next_command=error.remedy, **more)


def line(answer: Answer, is_indented: bool = False) -> bytes:
    """UTF-8; readable in any script, whole whatever a string holds, and bounded."""
    data = _encoded(answer, is_indented)
    if len(data) > MAX_BYTES:  # results.jsonl and the records keep what is left out here
        answer = {**answer, "images": [_shorter(image) for image in answer["images"]]}
        data = _encoded(answer, is_indented)
    if len(data) > MAX_BYTES and len(answer["images"]) > FEW:
        more = f"{len(answer['images']) - FEW} more images are left out here."
        answer = {**answer, "images": answer["images"][:FEW], "warnings": [*answer.get("warnings", ())[:FEW], more]}
        data = _encoded(answer, is_indented)
    if len(data) > MAX_BYTES:
        kept: Answer = {name: answer[name] for name in ("next", "files", "results", "gallery") if name in answer}
        data = _encoded({**changed(answer, _cut), **kept}, is_indented)
    return data


def _shorter(image: dict[str, Any]) -> dict[str, Any]:
    left_out = ("revised_prompt", "url") if image.get("path") else ("revised_prompt",)
    return {name: value for name, value in image.items() if name not in left_out}


def _cut(text: str) -> str:
    """A long text of the user's: its beginning, quoted no more than JSON does."""
    return text if len(text) <= MAX_TEXT else shown(text, MAX_TEXT)[1:-2] + "…"


def _encoded(answer: Answer, is_indented: bool) -> bytes:
    import json  # `--help` needs none

    text = json.dumps(answer, ensure_ascii=False, allow_nan=False, indent=2 if is_indented else None)
    return text.encode("utf-8", "replace") + b"\n"
