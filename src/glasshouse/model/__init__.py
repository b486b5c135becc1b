"""The decoder and its folder: config, blocks, attention, initialisation, Hugging Face in and out."""

from glasshouse.model.attention import Cache, make_mask
from glasshouse.model.config import ModelConfig
from glasshouse.model.hf_config import read_config
from glasshouse.model.hf_folder import load, save
from glasshouse.model.init import initialise
from glasshouse.model.transformer import Transformer

__all__ = ["Cache", "ModelConfig", "Transformer", "initialise", "load", "make_mask", "read_config", "save"]
