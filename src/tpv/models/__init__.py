"""Frozen language models behind one protocol. Only this package touches `transformers` models."""

from tpv.models.causal import CausalBackbone
from tpv.models.loading import load_backbone
from tpv.models.protocol import Backbone, LabelScores, Tokens
from tpv.models.seq2seq import Seq2SeqBackbone

__all__ = ["Backbone", "CausalBackbone", "LabelScores", "Seq2SeqBackbone", "Tokens", "load_backbone"]
