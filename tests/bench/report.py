"""Figures: medians with their spread, as a table for people and as JSON."""
import statistics


class Figures:
    """Rows in the order they were first added."""

    def __init__(self):
        self.rows = {}
        self.notes = []

    def add(self, scenario, store, figure, unit, value, limit=None, target=None):
        """One measurement. LIMIT: (what, value) of the raw limit in the same run; TARGET: as text, of the issue."""
        row = self.rows.setdefault((scenario, store, figure), {"unit": unit, "values": [], "limits": [], "limit": None,
                                                               "target": target})
        row["values"].append(value)
        if limit:
            row["limit"] = limit[0]
            row["limits"].append(limit[1])

    def note(self, text):
        self.notes.append(text)
        print(f"  {text}", flush=True)

    def as_json(self):
        return [{"scenario": k[0], "store": k[1], "figure": k[2], "median": statistics.median(r["values"]), **r,
                 "ratio": _ratio(r)} for k, r in self.rows.items()]

    def table(self):
        """Markdown."""
        head = ("scenario", "store", "figure", "median", "min … max", "runs", "target", "raw limit of the same run", "ratio")
        lines = [head, tuple("---" for _ in head)]
        for (scenario, store, figure), r in self.rows.items():
            ratio = _ratio(r)
            limit = f"{r['limit']} {_number(statistics.median(r['limits']))}" if r["limits"] else ""
            lines.append((scenario, store, figure, f"{_number(statistics.median(r['values']))} {r['unit']}",
                          f"{_number(min(r['values']))} … {_number(max(r['values']))}", str(len(r["values"])), r["target"] or "",
                          limit, f"{ratio:.2f}" if ratio else ""))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def _ratio(row):
    """Of the medians: above 1 means more than the limit."""
    if not row["limits"] or not statistics.median(row["limits"]):
        return None
    return statistics.median(row["values"]) / statistics.median(row["limits"])


def _number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
