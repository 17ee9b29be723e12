"""What was seen of each fault."""

SEEN = []
"""A row a fault: what happened, in which part, how the processes ended, and in what the end differs."""


def seen(fault, part, where, statuses, differs):
    """Take a fault into the table."""
    SEEN.append({"fault": fault, "part": part, "where": where, "statuses": statuses, "differs": differs or ""})
