"""Frozen language models behind one protocol. Only this package touches `transformers` models."""

from tpv.backbones.causal import CausalBackbone
from tpv.backbones.loading import load_backbone
from tpv.backbones.protocol import Backbone, LabelScores, Tokens
from tpv.backbones.seq2seq import Seq2SeqBackbone

__all__ = ["Backbone", "CausalBackbone", "LabelScores", "Seq2SeqBackbone", "Tokens", "load_backbone"]
