"""What a node does while nobody asks: it keeps the model for a while, then unloads it."""

from dataclasses import dataclass, field

from joulebox.model import IdlePolicy
from joulebox.protocol import LEASE_WAIT_S
from joulebox.settings import Settings


@dataclass(frozen=True, slots=True)
class Rest:
    """What is due after so long without a job; nothing without a policy."""

    policy: IdlePolicy = field(default_factory=IdlePolicy)

    def wait_s(self, idle_s: float, *, loaded: bool) -> float:
        """For how long a node that has been idle so long may wait for a job: until the next thing is due."""
        due_s = [self.policy.unload_s] if loaded else []
        left_s = [one - idle_s for one in due_s if one is not None]
        return max(min([*left_s, LEASE_WAIT_S]), 0.0)

    def unloads(self, idle_s: float) -> bool:
        """Whether a loaded model has been kept long enough."""
        return self.policy.unload_s is not None and idle_s >= self.policy.unload_s


def rest_of(settings: Settings) -> Rest:
    """The policy that is set."""
    return Rest(IdlePolicy(unload_s=settings.idle_unload_s))
