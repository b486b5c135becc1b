"""The invented world: documents, dialogues and probes with known truth.

No tiny model can learn English in minutes, but it can master a small world completely, and there every
claim can be checked exactly. Everything here is made up by a program from a seed.
"""

from glasshouse.world.land import Land
from glasshouse.world.task import Task
from glasshouse.world.world import BYTES_PER_TOKEN, CONVERSATION_FIELDS, World, WorldConfig

__all__ = ["BYTES_PER_TOKEN", "CONVERSATION_FIELDS", "Land", "Task", "World", "WorldConfig"]
