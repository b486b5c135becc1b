"""The special tokens of our own tokenizers: ids 0 to 8, before the 256 bytes and the merges."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
START_OF_THINKING = "<think>"
END_OF_THINKING = "</think>"
START_OF_TOOL_CALL = "<tool_call>"
END_OF_TOOL_CALL = "</tool_call>"
START_OF_TOOL_RESPONSE = "<tool_response>"
END_OF_TOOL_RESPONSE = "</tool_response>"

SPECIAL_TOKENS: tuple[str, ...] = (
    END_OF_TEXT,
    START_OF_TURN,
    END_OF_TURN,
    START_OF_THINKING,
    END_OF_THINKING,
    START_OF_TOOL_CALL,
    END_OF_TOOL_CALL,
    START_OF_TOOL_RESPONSE,
    END_OF_TOOL_RESPONSE,
)
"""In the order of their ids. The names are those of Qwen's tokenizers, which many servers know."""

ASSISTANT_MAY_WRITE = frozenset({START_OF_THINKING, END_OF_THINKING, START_OF_TOOL_CALL, END_OF_TOOL_CALL})
"""Special tokens that stay special inside the content of an assistant message: they are its own words."""
