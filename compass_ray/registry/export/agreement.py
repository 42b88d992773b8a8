"""Whether a converted adapter still says the same: logits on fixed probe tokens, before and after.

The measure has no scale: the largest change of a logit that the conversion made, divided by the largest change that
the adapter itself makes. 0 is a perfect conversion; 1 is as far off as leaving the adapter out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compass_ray.errors import IncompatibleAdapter

if TYPE_CHECKING:
    import torch

TOLERANCE = 0.05
_SEQUENCES, _LENGTH = 4, 32
_NO_EFFECT = 1e-4
"""An adapter that moves logits by less than this part of their size has no effect to compare with but rounding."""


@dataclass(frozen=True)
class Agreement:
    """How far a conversion changed the logits.

    Attributes
    ----------
    relative_error : float
        Largest change by the conversion over the largest change by the adapter.
    max_logit_change : float
        Largest change of a logit by the conversion.
    mean_kl : float
        Mean divergence of the next-token distribution from that of the original adapter, in nats.
    positions : int
        Number of token positions compared.
    """

    relative_error: float
    max_logit_change: float
    mean_kl: float
    positions: int

    def require(self, tolerance: float, remedy: str) -> None:
        """Refuse a conversion whose relative error is above the tolerance.

        Raises
        ------
        IncompatibleAdapter
        """
        if not self.relative_error <= tolerance:  # not finite is above, too
            raise IncompatibleAdapter(
                f"the converted adapter changes logits by {self.relative_error:.3g} of the adapter's own effect, above "
                f"the tolerance of {tolerance:g} (mean KL {self.mean_kl:.3g} nats over {self.positions} positions); "
                f"{remedy}"
            )


def probe_logits(model: Any) -> torch.Tensor:
    """Compute logits on token ids that follow from the vocabulary's size alone.

    They are of shape (sequences, length, vocabulary).
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (_SEQUENCES, _LENGTH), generator=generator)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float()
    return logits


def agreement(base: torch.Tensor, original: torch.Tensor, converted: torch.Tensor) -> Agreement:
    """Compare logits of the base alone, with the original adapter, and with the converted one.

    Logits are centred per position first, as a constant added to all of them changes no probability.
    """
    import torch

    base, original, converted = (logits - logits.mean(-1, keepdim=True) for logits in (base, original, converted))
    change = (converted - original).abs().max().item()
    effect = max((original - base).abs().max().item(), _NO_EFFECT * original.abs().max().item())
    log_p, log_q = original.log_softmax(-1), converted.log_softmax(-1)
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1).mean().item()
    return Agreement(change / effect if effect else 0.0, change, max(kl, 0.0), original.shape[0] * original.shape[1])
