"""Learning rates that fall: at milestones, by a factor each, along a power, by a function."""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from .lr_scheduler import Schedule, cosine
from .optimizer import Optimizer


class MultiStepLR(Schedule):
    """base * gamma ** (how many of the milestones are reached)."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """Falls by gamma at each milestone."""
        return base * self.gamma ** bisect_right(self.milestones, step)


class ExponentialLR(Schedule):
    """base * gamma ** step."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """Falls by gamma with every step."""
        return base * self.gamma**step


class PolynomialLR(Schedule):
    """base * (1 - step / total_iters) ** power, and 0 from total_iters on."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        if total_iters < 1:
            raise ValueError(f"PolynomialLR: total_iters is {total_iters}, but must be at least 1")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """Power 1 is a straight line down."""
        return base * (1 - min(step / self.total_iters, 1.0)) ** self.power


class LambdaLR(Schedule):
    """base * lr_lambda(step), a function of your own: the rate is its value, not a change."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]):
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """What the function says."""
        return base * self.lr_lambda(step)


class CosineAnnealingWarmRestarts(Schedule):
    """Down to eta_min along half a cosine, up again at once, in T_0, T_0 T_mult ... steps.

    Loshchilov and Hutter, "SGDR", 2017.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        if T_0 < 1 or T_mult < 1:
            raise ValueError(
                f"CosineAnnealingWarmRestarts: T_0 {T_0} and T_mult {T_mult} must be at least 1"
            )
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def lr(self, base: float, step: int) -> float:
        """As CosineAnnealingLR's since the last restart."""
        length = self.T_0
        if self.T_mult == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * self.T_mult
        return cosine(base, self.eta_min, step / length)
