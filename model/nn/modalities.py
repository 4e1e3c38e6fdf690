"""Encoders of items and queries: projections per modality, gates within the item (arXiv 2407.10714, figure 2).

Letters: n items, m modalities (id, attribute, text, image), d model width, w and v widths of frozen text and image
vectors, a attribute slots, k token slots. The key of a behaviour is item part + query part, with no gate or normalisation
after, so that each part is encoded, quantised and scored once however often it repeats in a history.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class ItemInputs(NamedTuple):
    """row [n] of the id table (0: unknown), attributes [n, a], text [n, w], image [n, v], presences [n] (bool)."""

    row: Tensor
    attributes: Tensor
    text: Tensor
    text_ok: Tensor
    image: Tensor
    image_ok: Tensor


class ItemEncoder(nn.Module):
    """The item part [n, d]: a gated sum over the modalities that the item has."""

    modalities = ("id", "attribute", "text", "image")

    def __init__(
        self,
        dim: int,
        id_rows: int,
        attribute_rows: int,
        text_width: int,
        image_width: int,
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._kept = torch.tensor([name not in without for name in self.modalities])
        self.id_table = nn.Embedding(id_rows, dim, sparse=True)
        self.attribute_table = nn.Embedding(attribute_rows, dim, sparse=True, padding_idx=0)
        self.text = nn.Linear(text_width, dim, bias=False)
        self.image = nn.Linear(max(image_width, 1), dim, bias=False)
        m = len(self.modalities)
        # G^m: the same path in pretraining and fine-tuning, the identity to begin with.
        self.project = nn.Parameter(torch.eye(dim).repeat(m, 1, 1))
        self.missing = nn.Parameter(torch.zeros(m, dim))
        self.gate = nn.Linear(m * dim, m)
        self.nothing = nn.Parameter(torch.zeros(dim))
        # Ids begin apart from each other, contents alike: a behaviour of the same item matches best, then of the same kind.
        nn.init.normal_(self.id_table.weight, std=0.4)
        nn.init.normal_(self.attribute_table.weight, std=0.25)
        with torch.no_grad():  # of a slot without an attribute, which is summed as well
            self.attribute_table.weight[0] = 0
        nn.init.normal_(self.text.weight, std=0.25)
        nn.init.normal_(self.image.weight, std=0.25)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def modality_vectors(self, items: ItemInputs) -> tuple[Tensor, Tensor]:
        """Projected vectors [n, m, d] of each modality and which are present [n, m]; missing ones are zeros."""
        some = (items.attributes > 0).sum(1)
        attribute = self.attribute_table(items.attributes).sum(1) / some.clamp(min=1).sqrt().unsqueeze(1)
        # Pictures that came after the model was made, or of another encoder, have a width that it cannot read.
        legible = items.image.shape[1] == self.image.in_features
        image = self.image(items.image) @ self.project[3] if legible else torch.zeros_like(attribute)
        rest = zip((self.id_table(items.row), attribute, self.text(items.text)), self.project[:3], strict=True)
        vectors = torch.stack([*(vector @ project for vector, project in rest), image], 1)
        present = torch.stack([items.row > 0, some > 0, items.text_ok, items.image_ok & legible], 1) & self._kept
        return vectors * present.unsqueeze(2), present

    def gates(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Weights [n, m]: a softmax within the item over what is present; all zero where nothing is."""
        seen = torch.where(present.unsqueeze(2), vectors, self.missing)
        logits = self.gate(seen.flatten(1)).masked_fill(~present, -torch.inf)
        logits = torch.where(present.any(1, keepdim=True), logits, torch.zeros_like(logits))
        return torch.softmax(logits, 1) * present

    def forward(self, items: ItemInputs) -> Tensor:
        """Item parts [n, d]; an item of which nothing is known gets a learned vector."""
        return self.encode(items)[0]

    def encode(self, items: ItemInputs) -> tuple[Tensor, Tensor]:
        """Item parts [n, d], and what each modality says [n, m, d], as `modality_vectors`."""
        vectors, present = self.modality_vectors(items)
        # Times the number of what is present: equal gates make a plain sum.
        weights = self.gates(vectors, present) * present.sum(1, keepdim=True)
        part = (weights.unsqueeze(2) * vectors).sum(1)  # many small matrix products would take three times as long
        return torch.where(present.any(1, keepdim=True), part, self.nothing), vectors


class QueryEncoder(nn.Module):
    """The query part [n, d] of hashed words: a masked mean and a residual layer; the order of words does not matter."""

    def __init__(self, dim: int, token_rows: int) -> None:
        super().__init__()
        self.table = nn.Embedding(token_rows, dim, sparse=True, padding_idx=0)
        self.hidden = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(2 * dim, dim)
        self.project = nn.Parameter(torch.eye(dim))
        self.none = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.table.weight, std=0.3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Query parts [n, d] of token ids [n, k]; a row without tokens gets the learned "no query" vector."""
        present = tokens > 0
        count = present.sum(1, keepdim=True)
        mean = self.table(tokens).mul(present.unsqueeze(2)).sum(1) / count.clamp(min=1)
        part = (mean + self.out(torch.relu(self.hidden(mean)))) @ self.project
        return torch.where(count > 0, part, self.none)
