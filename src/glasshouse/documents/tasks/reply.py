"""The base of what models reply: its JSON Schema is what they are asked for.

In every reply the evidence stands before what is concluded from it: a model writes from left to right.
"""

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
