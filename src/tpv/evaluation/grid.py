"""The grid of lambdas, without what a search over it loads."""

from tpv.errors import TpvError


def scale_grid(step: float, about: str = "spacing of the lambdas") -> tuple[float, ...]:
    """Lambdas from 0 to 1, `step` apart.

    Args:
        about: what a user calls the step, for the error message.

    Raises:
        TpvError: a step that does not divide 1.
    """
    count = round(1 / step)
    if abs(count * step - 1) > 1e-9:
        raise TpvError(about, expected="a number that divides 1", got=step)
    return tuple(round(i / count, 6) for i in range(count + 1))
