"""Convert OpenAI requests to requests for an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateur_runtime.server.engine.detokenizer import Decode
from secateur_runtime.server.engine.job import GenerationRequest
from secateur_runtime.server.engine.sampling import Sampling, ids_below
from secateur_runtime.server.http.openai_schema import ChatAsked, Common, CompletionAsked
from secateur_runtime.server.refusals import RefusedError


def decoder(tokenizer: Any) -> Decode:
    """Return a function that turns tokens into text without special tokens."""

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    return decode


class RequestReader:
    """Converts requests for one model.

    tokenizer: of transformers. names: names of the model, the first one for messages. ends: tokens that end
    an answer. context: most tokens of prompt and answer. vocabulary: number of tokens that the model knows.
    usual: most tokens of an answer if the request does not say.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        names: Sequence[str],
        ends: frozenset[int],
        context: int,
        vocabulary: int,
        usual: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._names = names
        self._ends = ends
        self._context = context
        self._vocabulary = vocabulary
        self._usual = usual

    def chat(self, asked: ChatAsked) -> GenerationRequest:
        """Convert a conversation; raises RefusedError if the chat template of the model rejects it."""
        if asked.top_logprobs is not None and not asked.logprobs:
            raise RefusedError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        if asked.max_tokens is not None and asked.max_completion_tokens is not None:
            raise RefusedError(400, "send max_completion_tokens or max_tokens, not both", param="max_tokens")
        logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
        return self._asked(
            asked, self._conversation(asked), asked.max_completion_tokens or asked.max_tokens, logprobs
        )

    def completion(self, asked: CompletionAsked) -> GenerationRequest:
        """Convert a text to continue; raises RefusedError for tokens that the model does not know."""
        prompt = (
            asked.prompt[0]
            if isinstance(asked.prompt, list) and isinstance(asked.prompt[0], str)
            else asked.prompt
        )
        tokens = self._encoded(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        if strange := [token for token in tokens if token >= self._vocabulary]:
            raise RefusedError(
                400, f"prompt holds token {strange[0]}, this model has {self._vocabulary}", param="prompt"
            )
        return self._asked(asked, tokens, asked.max_tokens, asked.logprobs)

    def name(self, token: int) -> str:
        """Return the text of one token, special tokens as they are written."""
        return str(self._tokenizer.decode([token]))

    def _conversation(self, asked: ChatAsked) -> list[int]:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise RefusedError(400, "this model has no chat template: use /v1/completions")
        turns = [
            {"role": "system" if message.role == "developer" else message.role, "content": message.text}
            for message in asked.messages
        ]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise RefusedError(
                400, f"the model's chat template refuses this conversation: {error}", param="messages"
            ) from None
        return self._encoded(text, special=False)

    def _encoded(self, text: str, *, special: bool = True) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special)]

    def _asked(
        self, body: Common, prompt: list[int], most: int | None, logprobs: int | None
    ) -> GenerationRequest:
        if body.model not in self._names:
            raise RefusedError(
                404, f"no model {body.model[:80]!r} here; there is {self._names[0]}", param="model"
            )
        bias = {int(name): value for name, value in (body.logit_bias or {}).items()}
        if strange := ids_below(bias, self._vocabulary):
            raise RefusedError(
                400,
                f"logit_bias names token {strange[0]}, this model has {self._vocabulary}",
                param="logit_bias",
            )
        sampling = Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=None if body.seed is None else body.seed % 2**63,
            frequency=body.frequency_penalty or 0.0,
            presence=body.presence_penalty or 0.0,
            bias=bias,
            logprobs=logprobs,
        )
        stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        return GenerationRequest(
            prompt=tuple(prompt),
            limit=self._length(len(prompt), most),
            ends=self._ends,
            stops=stops,
            sampling=sampling,
        )

    def _length(self, prompt: int, most: int | None) -> int:
        """Return the most tokens of an answer.

        Raises RefusedError if they do not fit in the context.
        """
        if not prompt:
            raise RefusedError(400, "the prompt is empty")
        rest = self._context - prompt
        if rest < 1:
            raise RefusedError(
                400, f"the prompt has {prompt} tokens, this model reads {self._context} with the answer"
            )
        if most is not None and most > rest:
            raise RefusedError(
                400,
                f"max_tokens is {most}: after the {prompt} tokens of prompt this model has room for {rest}",
                param="max_tokens",
            )
        return min(self._usual, rest) if most is None else most
