"""What was done after a restore, and what is left to a person."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Recovery:
    """The outcome of every step, in their order."""

    holds_voided: int = 0
    holds_open: int = 0
    """Within their lease still; the sweeper ends them."""
    stripe: Mapping[str, Any] = field(default_factory=dict)
    """Empty where there is no key: then nobody has asked Stripe."""
    erasures: Mapping[str, int] = field(default_factory=dict)
    """By outcome: `known`, `absent`, `canceled`, `pending`, `erased`, `waiting`."""
    erasures_unreadable: tuple[str, ...] = ()
    """Torn files of erasures that no other record tells of: nobody can say whose they were."""
    heads_unreadable: tuple[str, ...] = ()
    """Torn copies of heads; they prove nothing, and hinder nothing."""
    heads_equal: int = 0
    """Copies of the sealed history that say what the database says."""
    heads_given_up: tuple[int, ...] = ()
    """Heights of copies that were sealed after the moment: that history is gone."""
    heads_differ: tuple[int, ...] = ()
    """Heights at which the restored history is not the one that was sealed."""
    audit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """The rooms may be started."""
        return (
            not self.heads_differ
            and not self.audit.get("ledger_violations")
            and not self.erasures.get("waiting")
            and not self.erasures_unreadable
            and not self.stripe.get("unbooked")
            and not self.stripe.get("waiting")
        )

    def body(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "sound": self.sound,
            "holds_voided": self.holds_voided,
            "holds_open": self.holds_open,
            "stripe": dict(self.stripe),
            "erasures": dict(self.erasures),
            "erasures_unreadable": list(self.erasures_unreadable),
            "heads_unreadable": list(self.heads_unreadable),
            "heads_equal": self.heads_equal,
            "heads_given_up": list(self.heads_given_up),
            "heads_differ": list(self.heads_differ),
            "audit": dict(self.audit),
        }
