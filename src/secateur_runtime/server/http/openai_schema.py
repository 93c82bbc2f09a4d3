"""The schema of requests and answers: OpenAI's names, and no field that would be silently ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _whole(value: Any) -> Any:
    """Return the integer for a float such as 3.0, because JSON does not distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Token = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)]
Length = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)]
One = Annotated[int, Field(ge=1, le=1), BeforeValidator(_whole)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=200_000)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenName = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]


class RequestBody(BaseModel):
    """A JSON object without unknown fields; numbers are finite, and text is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(RequestBody):
    """Options of a streamed answer."""

    include_usage: bool = False


class TextFormat(RequestBody):
    """The only supported format of answers."""

    type: Literal["text"]


_SEEDS = 9223372036854776000
"""The bound of OpenAI's own description: a float holds it, so what validators take for a seed is one."""


class Common(RequestBody):
    """Fields of both kinds of request.

    `user`, `metadata` and `store: false` are accepted without effect, because they do not concern the answer.
    """

    model: str = Field(max_length=300, description="As `/v1/models` names it.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Length | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Annotated[int, Field(ge=-_SEEDS, le=_SEEDS), BeforeValidator(_whole)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: One | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[TokenName, Bias] | None = Field(
        None, max_length=1024, json_schema_extra={"additionalProperties": False}
    )
    user: Text | None = None
    metadata: dict[str, str] | None = Field(None, max_length=16)
    store: Literal[False] | None = None


class CompletionAsked(Common):
    """Body of `/v1/completions`."""

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5), BeforeValidator(_whole)] | None = None
    echo: Literal[False] | None = None
    best_of: One | None = None


class MessagePart(RequestBody):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: Text


class Message(RequestBody):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[MessagePart], Field(min_length=1, max_length=100)]
    name: str | None = Field(None, max_length=100)

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatAsked(Common):
    """Body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), BeforeValidator(_whole)] | None = None
    response_format: TextFormat | None = None


FIELDS = frozenset(
    name
    for body in (CompletionAsked, ChatAsked, Message, MessagePart, StreamOptions, TextFormat)
    for name in body.model_fields
)
"""All names that a request may hold."""
EITHER = {
    "prompt": "must be a text, a list of one text, or a list of token ids",
    "stop": "must be a text, or a list of at most 4, none of them empty",
    "content": "must be a text, or a list of {type: 'text', text: ...}",
}
"""Messages for fields that may have several types."""


class Fault(BaseModel):
    """Why a request was refused."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """Body of every answer that is an error."""

    error: Fault


class Usage(BaseModel):
    """Tokens of prompt and answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(BaseModel):
    """Body of an answer that is not streamed; `choices` holds one."""

    id: str
    object: Literal["text_completion", "chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]] = Field(min_length=1, max_length=1)
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int


class ModelList(BaseModel):
    """Body of `/v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
