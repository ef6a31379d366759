"""Label words as a tree, so that the beginnings they share are calculated once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tpv.models.protocol import LabelScores, Tokens


class Path(NamedTuple):
    """The tokens from the end of the text to a leaf of a tree, as an ordinary continuation of the text.

    Attributes:
        tokens: what is read; of n tokens, the path passes n + 1 nodes, the end of the text included.
        first: how many of these nodes an earlier path has passed already.
    """

    tokens: Tokens
    first: int


class LabelTree(NamedTuple):
    """Label words as a tree: shared beginnings once. Node 0 is the end of the text; S more follow.

    Attributes:
        tokens: of the nodes after the first; a label's last token is predicted and never read.
        depths: how many nodes lie between each and the end of the text.
        ancestors: which of them each may attend to, itself included: bool [S, S].
        paths: for each label the nodes at which its tokens are predicted.
        branches: paths that together pass every node, for models that read nothing but ordinary sequences.
        order: the nodes [1 + S] in the order in which the branches pass them first.
    """

    tokens: list[int]
    depths: list[int]
    ancestors: Tensor
    paths: list[list[int]]
    branches: list[Path]
    order: list[int]

    @classmethod
    def of(cls, labels: Sequence[Tokens]) -> "LabelTree":
        known: dict[Tokens, int] = {(): 0}
        paths = []
        for label in labels:
            for end in range(1, len(label)):
                known.setdefault(label[:end], len(known))
            paths.append([known[label[:end]] for end in range(len(label))])
        nodes = list(known)[1:]
        ancestors = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for row, node in enumerate(nodes):
            for end in range(1, len(node) + 1):
                ancestors[row, known[node[:end]] - 1] = True
        inner = {node[:-1] for node in nodes}
        branches: list[Path] = []
        order: list[int] = []
        for leaf in (node for node in known if node not in inner):
            passed = [known[leaf[:end]] for end in range(len(leaf) + 1)]
            new = [node for node in passed if node not in order]
            branches.append(Path(leaf, len(passed) - len(new)))
            order += new
        return cls([node[-1] for node in nodes], [len(node) - 1 for node in nodes], ancestors, paths, branches, order)

    def scores(self, logits: Tensor, labels: Sequence[Tokens]) -> LabelScores:
        """Scores of N rows, still where the model is.

        Args:
            logits: at every node, fp32 [N, 1 + S, V].
            labels: those the tree was made of.
        """
        total, said = logits.logsumexp(-1), logits.argmax(-1)  # [N, 1 + S]
        log_probs, greedy = [], []
        for path, label in zip(self.paths, labels, strict=True):
            nodes, tokens = torch.tensor(path, device=logits.device), torch.tensor(label, device=logits.device)
            log_probs.append((logits[:, nodes, tokens] - total[:, nodes]).sum(1))
            greedy.append((said[:, nodes] == tokens).all(1))
        match = torch.stack(greedy, dim=1)
        # at most one label can be greedy: two labels differ at some first position
        best = torch.where(match.any(1), match.float().argmax(1), -1)
        return LabelScores(torch.stack(log_probs, dim=1), best)
