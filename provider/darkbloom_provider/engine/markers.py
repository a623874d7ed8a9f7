"""Find markers in a stream of characters."""

from collections.abc import Iterable


class Matcher:
    """Finds one marker (Knuth-Morris-Pratt)."""

    def __init__(self, marker: str) -> None:
        self.marker = marker
        self.matched = 0
        """How many characters of the marker the text ends with."""
        self._fallback = [0] * len(marker)
        length = 0
        for index in range(1, len(marker)):
            while length and marker[index] != marker[length]:
                length = self._fallback[length - 1]
            length += marker[index] == marker[length]
            self._fallback[index] = length

    def feed(self, char: str) -> bool:
        """Take one character; tell whether the marker is complete."""
        while self.matched and self.marker[self.matched] != char:
            self.matched = self._fallback[self.matched - 1]
        if self.marker[self.matched] == char:
            self.matched += 1
        return self.matched == len(self.marker)

    def reset(self) -> None:
        """Forget the text before."""
        self.matched = 0


class Finder:
    """Finds the first of several markers and holds only what may be the beginning of one."""

    def __init__(self, markers: Iterable[str]) -> None:
        self._matchers = [Matcher(marker) for marker in markers]
        self._held = ""

    def feed(self, char: str) -> tuple[str, str]:
        """Take one character.

        Returns:
            Text that is certain, and the marker that is now complete, or nothing.
        """
        self._held += char
        found = ""
        longest = 0
        for matcher in self._matchers:
            if matcher.feed(char) and len(matcher.marker) > len(found):
                found = matcher.marker
            longest = max(longest, matcher.matched)
        if found:
            text = self._held[: -len(found)]
            self.reset()
            return text, found
        certain = len(self._held) - longest
        text, self._held = self._held[:certain], self._held[certain:]
        return text, ""

    def reset(self) -> str:
        """Begin anew; give what was held."""
        for matcher in self._matchers:
            matcher.reset()
        held, self._held = self._held, ""
        return held
