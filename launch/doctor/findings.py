"""What a check found, and how it is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Iterable, List

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    level: str
    """OK, WARN or FAIL."""
    name: str
    """Of the check."""
    found: str
    advice: str = ""
    """What to do."""

    @property
    def line(self) -> str:
        """For the terminal."""
        return f"{self.level:<4}  {self.name}: {self.found}{f'; {self.advice}' if self.advice else ''}"


@dataclass
class Report:
    """All findings, printed as they come."""

    show: Callable[[str], None]
    """Prints a line."""
    entries: List[Dict[str, Any]] = field(default_factory=list)

    def add(self, group: str, findings: Iterable[Finding]) -> None:
        """Take up findings on `group`, whose name is printed before its first."""
        for finding in findings:
            if not self.entries or self.entries[-1]["group"] != group:
                self.show(f"{group}:")
            self.show(f"  {finding.line}")
            self.entries.append({"group": group, **asdict(finding)})

    def count(self, level: str) -> int:
        """Findings of one level."""
        return sum(entry["level"] == level for entry in self.entries)

    @property
    def summary(self) -> str:
        """How many of each level."""
        return ", ".join(f"{self.count(level)} {level}" for level in (OK, WARN, FAIL))
