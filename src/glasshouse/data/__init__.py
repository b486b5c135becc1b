"""From documents to training batches: token shards and packing. (Filters and mixtures come later.)"""

from glasshouse.data.packing import IGNORE, Batch, PackedBatches, best_fit
from glasshouse.data.shards import Shards, ShardWriter

__all__ = ["IGNORE", "Batch", "PackedBatches", "ShardWriter", "Shards", "best_fit"]
