"""Between text and tokens: prompts through the chat template, and responses with their end token.

Text of models and data enters only through here, so that nothing in it can pose as a turn of the chat.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from opcod.models import ModelError, first_line
from opcod.prompts import Message, neutralise

_MARK = re.compile(r"<[|｜][^\s|｜<>]+[|｜]>|\[/?INST\]|<</?SYS>>")
_BYTES_OF_A_CHARACTER = 4  # at most, in UTF-8


@dataclass(frozen=True)
class Chat:
    """A tokenizer with a chat template.

    Args:
        tokenizer: The base model's.
        ends: Token ids that end a response; the tokenizer's own one is written.
    """

    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...]

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The spellings of all special tokens, and of the template's marks that are none, such as `<|user|>`."""
        added = {str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        marks = set(_MARK.findall(str(self.tokenizer.chat_template)))
        return tuple(sorted(added | marks | set(self.tokenizer.all_special_tokens)))

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a prompt, up to where the response begins.

        Raises:
            ModelError: If the chat template has no place for such messages.
        """
        safe = [m | {"content": neutralise(m["content"], self.special_tokens)} for m in messages]
        try:
            return self._templated(safe if self.takes_system else _without_system(safe))
        except TemplateError as error:
            raise ModelError(
                f"the base model's chat template cannot be filled in: {first_line(error)}. Give another Jinja file as "
                "`chat_template`, or another base model."
            ) from error

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template says what the system does; Gemma's older ones raise an error, some others drop it."""
        user = {"role": "user", "content": "Why?"}
        try:
            one, other = (self._templated([{"role": "system", "content": said}, user]) for said in ("Yes.", "No."))
        except TemplateError:
            return False
        return one != other

    def _templated(self, messages: Sequence[Message]) -> tuple[int, ...]:
        ids = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        return tuple(ids)

    def response(self, text: str) -> tuple[int, ...]:
        """Token ids of a whole response, its end token included."""
        return (*self.tokenize(text), self.end)

    @property
    def end(self) -> int:
        """The token a response ends with."""
        return self.ends[0] if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of bare text."""
        safe = neutralise(text, self.special_tokens)
        return tuple(self.tokenizer(safe, add_special_tokens=False)["input_ids"])

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones, and with the space before a full stop where there is one."""
        decoded = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(decoded)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """What each token adds to the text; of a character that several make up, the last of them has it all."""
        pieces: list[str] = []
        before: list[int] = []  # the last piece's, as some tokenizers begin a text without its space
        pending: list[int] = []
        for token in tokens:
            pending.append(token)
            piece = self.text(before + pending)[len(self.text(before)) :]
            if piece.endswith("\ufffd") and len(pending) < _BYTES_OF_A_CHARACTER:
                pieces.append("")
            else:
                pieces.append(piece)
                before, pending = pending, []
        return pieces


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """With what the system says before what the user says."""
    system = [m["content"] for m in messages if m["role"] == "system"]
    first, *rest = [m for m in messages if m["role"] != "system"]
    return [first | {"content": "\n\n".join([*system, first["content"]])}, *rest]
