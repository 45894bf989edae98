"""The verdict of an evaluation in one line of plain words: report, card, command line, results."""

from dataclasses import dataclass

_BEGINNINGS = {"helps": "Helps", "does not help": "Does not help", "unsure": "Cannot tell yet"}


@dataclass(frozen=True)
class Outlook:
    """What it would take until an evaluation that cannot tell could tell.

    Attributes:
        splits: Splits in all, if those to come are like those measured; None: no number would do.
        limit: Number of splits up to which this was looked for.
        seconds: Seconds that the splits still missing would take; None if `splits` is.
    """

    splits: int | None
    limit: int
    seconds: float | None = None


@dataclass(frozen=True)
class Headline:
    """A verdict in words.

    Attributes:
        line: The verdict first and its number second, such as "Helps: +1.4 points (0.6 to 2.2)".
        detail: Sentences on what was compared, and on what to do next; may be empty.
    """

    line: str
    detail: str = ""

    @property
    def word(self) -> str:
        """The verdict alone."""
        return self.line.split(":")[0]

    def __str__(self) -> str:
        return f"{self.line}. {self.detail}".rstrip()


def headline(
    verdict: str,
    *,
    difference: tuple[float, float, float] | None = None,
    baseline: str = "",
    n_splits: int = 0,
    reason: str = "",
    outlook: Outlook | None = None,
) -> Headline:
    """Word a verdict.

    Args:
        verdict: "helps", "does not help" or "unsure".
        difference: Mean, low and high end of the difference in balanced accuracy, -1 to 1; None
            where nothing was compared.
        baseline: Name of the best training without synthetic data.
        n_splits: Number of splits that were measured.
        reason: What else decided the verdict, or kept it from being one.
        outlook: What more splits would bring; used if there is no `reason`.

    Returns:
        The headline.
    """
    word, points = _BEGINNINGS[verdict], "" if difference is None else in_points(*difference)
    compared = ""
    if difference is not None:
        compared = f"alanced accuracy against {baseline}, the best training without synthetic data"
        compared += f", over {n_splits} splits."
    if verdict != "unsure" and not reason:
        return Headline(f"{word}: {points}", f"B{compared}")
    so_far = f"So far {points}: b{compared}" if points else ""
    if verdict == "unsure" and not reason:
        reason, advice = _of_splits(n_splits, outlook)
        so_far = f"{so_far} {advice}".strip()
    return Headline(f"{word}: {reason}", so_far)


def in_points(mean: float, low: float, high: float) -> str:
    """Write a difference of shares in percentage points.

    Args:
        mean: The difference, -1 to 1.
        low: Lower end of its interval.
        high: Upper end.

    Returns:
        Such as "+1.4 points (0.6 to 2.2)".
    """
    low_text, high_text = (_plain(f"{100 * value:.1f}") for value in (low, high))
    return f"{_plain(f'{100 * mean:+.1f}')} points ({low_text} to {high_text})"


def more_time(seconds: float) -> str:
    """Write a duration that is still to come.

    Args:
        seconds: Seconds.

    Returns:
        Such as "about 25 minutes more".
    """
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute more"
    if minutes < 100:
        return f"about {minutes} {'minute' if minutes == 1 else 'minutes'} more"
    hours = seconds / 3600
    return f"about {hours:.0f} hours more" if hours < 48 else f"about {hours / 24:.0f} days more"


def _of_splits(n_splits: int, outlook: Outlook | None) -> tuple[str, str]:
    few = f"{n_splits} splits are too few"
    if outlook is None:
        return few, "These splits do not say how many would do."
    if outlook.splits is None:
        return (
            f"no number of splits up to {outlook.limit} would do; more images would",
            "The splits of this data differ too much for a difference this small.",
        )
    more = "more splits" if outlook.seconds is None else more_time(outlook.seconds)
    return (
        f"{few}; {more} would do",
        f"With --splits {outlook.splits} it gets that time, if other splits are like these.",
    )


def _plain(text: str) -> str:
    """Zero has no sign."""
    return text.lstrip("+-") if float(text) == 0 else text
